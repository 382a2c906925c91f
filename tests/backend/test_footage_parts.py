"""Footage piece by piece: the screen's geometry and colours, rates, the search for the head, mattes and the plate."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from av.video.reformatter import Colorspace
from footage_clips import write_clip
from test_footage_crop import face, sighting
from test_footage_hdr import srgb_code

from backend.errors import EffigyError
from backend.footage import container, hdr, model_threads
from backend.footage.build import _check_faces, _summary, describe_flags
from backend.footage.crop import SEARCH_SIDE, HeadSearch, choose_face, guess_intrinsics, stable_crop
from backend.footage.decode import probe, read_frames
from backend.footage.detector import SCORE_NAMES, quiet_stderr
from backend.footage.findings import Findings
from backend.footage.geometry import Geometry, _colour_matrix
from backend.footage.hdr import HLG, PQ, _compress_highlights, to_sdr
from backend.footage.matte import MattingModel, fill_uncertain
from backend.footage.model_threads import ModelThreads
from backend.footage.picture_area import Area
from backend.footage.plate import Plate, _extrapolate
from backend.formats.capture import FrameFlag

# --- geometry and colours


@pytest.mark.parametrize(
    ("matrix", "upright"),
    [
        ([[1, 0], [0, 1]], [[1, 2], [3, 4]]),
        ([[-1, 0], [0, 1]], [[2, 1], [4, 3]]),
        ([[1, 0], [0, -1]], [[3, 4], [1, 2]]),
        ([[-1, 0], [0, -1]], [[4, 3], [2, 1]]),
        ([[0, 1], [1, 0]], [[1, 3], [2, 4]]),
        ([[0, 1], [-1, 0]], [[3, 1], [4, 2]]),
        ([[0, -1], [1, 0]], [[2, 4], [1, 3]]),
        ([[0, -1], [-1, 0]], [[4, 2], [3, 1]]),
        # Angles are rounded to the nearest multiple of 90 degrees.
        ([[0.8, 0.6], [-0.6, 0.8]], [[1, 2], [3, 4]]),
        ([[0.6, 0.8], [-0.8, 0.6]], [[3, 1], [4, 2]]),
    ],
)
def test_an_image_is_turned_and_mirrored_as_its_matrix_says(matrix: list, upright: list) -> None:
    geometry = Geometry(6, 4, np.array(matrix, float))
    image = np.array([[1, 2], [3, 4]], np.uint8)
    assert geometry.make_upright(image).tolist() == upright
    turned = abs(matrix[0][1]) > abs(matrix[0][0])
    assert geometry.is_transposed == turned and geometry.upright_size == ((4, 6) if turned else (6, 4))


@pytest.mark.parametrize(
    ("code", "width", "height", "expected"),
    [
        (2, 640, 480, Colorspace.ITU601),
        (2, 1279, 719, Colorspace.ITU601),
        (2, 1280, 719, Colorspace.ITU709),
        (2, 720, 720, Colorspace.ITU709),
        (6, 1920, 1080, Colorspace.ITU601),
        (1, 640, 480, Colorspace.ITU709),
        (5, 1920, 1080, Colorspace.ITU601),
    ],
)
def test_untagged_footage_has_the_colours_of_its_size(code: int, width: int, height: int, expected: Colorspace) -> None:
    assert _colour_matrix(SimpleNamespace(colorspace=code, width=width, height=height)) == expected


def test_motion_jpeg_has_the_full_range(tmp_path: Path) -> None:
    levels = (4, 128, 250)
    clip = write_clip(
        tmp_path / "a.mov",
        [np.full((64, 64, 3), level, np.uint8) for level in levels],
        codec="mjpeg",
        pixels="yuvj420p",
    )
    for frame, level in zip(read_frames(clip), levels, strict=True):
        assert abs(float(frame.image.mean()) - level) < 3


def test_frames_are_scaled_to_the_longest_side_and_never_to_nothing(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "wide.mp4", [np.full((16, 128, 3), 90, np.uint8)] * 2)
    for side, shape in ((64, (8, 64)), (100, (12, 100)), (128, (16, 128)), (4, (1, 4)), (None, (16, 128))):
        assert next(read_frames(clip, longest_side=side)).image.shape == (*shape, 3)
    # Half of the pixels are bright: a smaller image is their mean, not one of both.
    stripes = np.repeat(np.tile([0, 255], 64)[None, :, None], 16, 0).repeat(3, 2).astype(np.uint8)
    clip = write_clip(tmp_path / "stripes.mp4", [stripes] * 2)
    assert np.abs(next(read_frames(clip, longest_side=64)).image.astype(int) - 127).max() < 12


# --- rates and times


@pytest.mark.parametrize(
    ("average", "guessed", "rate"),
    [
        (None, Fraction(24), Fraction(24)),
        (None, None, Fraction(25)),
        (Fraction(30002, 1000), Fraction(30), Fraction(30)),
        (Fraction(30), Fraction(60), Fraction(30)),
        (Fraction(2997, 100), None, Fraction(2997, 100)),
        (Fraction(123457, 10001), Fraction(60), Fraction(123457, 10001).limit_denominator(1001)),
    ],
)
def test_a_rate_is_the_average_or_the_one_that_it_nearly_is(
    average: Fraction | None, guessed: Fraction | None, rate: Fraction
) -> None:
    assert container.frame_rate(SimpleNamespace(average_rate=average, guessed_rate=guessed)) == rate


@pytest.mark.parametrize(
    ("ticks", "base", "whole", "seconds"),
    [
        (50, Fraction(1, 25), 9_000_000, 2.0),
        (None, Fraction(1, 25), 1_500_000, 1.5),
        (50, None, 3_000_000, 3.0),
        (None, None, None, 0),
    ],
)
def test_a_duration_is_the_streams_or_the_files(
    ticks: int | None, base: Fraction | None, whole: int | None, seconds: float
) -> None:
    stream, film = SimpleNamespace(duration=ticks, time_base=base), SimpleNamespace(duration=whole)
    assert container.duration_of(film, stream) == seconds


def test_a_clip_is_described_by_its_first_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [np.full((48, 64, 3), 90, np.uint8)] * 15)
    info = probe(clip)
    assert (info.width, info.height, info.fps, info.frame_count) == (64, 48, 30, 15)
    assert info.duration == pytest.approx(0.5, abs=0.04) and info.transfer == "sdr" and not info.still
    assert info.path == clip


def test_the_last_frame_before_the_end_is_the_last(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", [np.full((48, 64, 3), 90, np.uint8)] * 12)
    chosen = {
        (0.0, 0.1): [0, 1, 2],
        (0.1, 0.2): [3, 4, 5],
        (None, 0.1): [0, 1, 2],
        (0.3, None): [9, 10, 11],
    }
    for (start, end), numbers in chosen.items():
        assert [frame.number for frame in read_frames(clip, start=start, end=end)] == numbers
    assert [frame.number for frame in read_frames(clip, start=0.1, every=4, max_frames=6)] == [3, 7]
    assert [frame.number for frame in read_frames(clip, max_frames=1)] == [0]


def test_a_photograph_is_a_clip_of_one_frame_at_the_start(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((40, 80, 3), 120, np.uint8)).save(tmp_path / "a.png")
    info = probe(tmp_path / "a.png")
    assert (info.fps, info.frame_count, info.duration, info.transfer) == (25, 1, 0.0, "sdr")
    assert [(frame.number, frame.time) for frame in read_frames(tmp_path / "a.png", start=0.0, end=9)] == [(0, 0.0)]
    assert list(read_frames(tmp_path / "a.png", start=0.1)) == []
    for side, shape in ((40, (20, 40, 3)), (80, (40, 80, 3)), (200, (40, 80, 3))):
        assert next(read_frames(tmp_path / "a.png", longest_side=side)).image.shape == shape


def box(kind: bytes, size: int, more: bytes = b"") -> bytes:
    return size.to_bytes(4, "big") + kind + more + bytes(max(0, size - 8 - len(more)) if size > 1 else 0)


@pytest.mark.parametrize(
    ("content", "lacks"),
    [
        (box(b"ftyp", 16) + box(b"moov", 24), False),
        (box(b"ftyp", 16) + box(b"mdat", 40), True),
        (box(b"ftyp", 16) + box(b"moov", 24)[:-1], True),
        (box(b"ftyp", 16) + b"\0\0\0\1mdat" + (32).to_bytes(8, "big") + bytes(16) + box(b"moov", 8), False),
        (box(b"ftyp", 16) + b"\0\0\0\0mdat" + bytes(30), True),
        (b"RIFF" + bytes(40), False),
        (b"ftyp", False),
        (box(b"free", 8), True),
    ],
)
def test_a_file_whose_index_is_missing_is_recognised(tmp_path: Path, content: bytes, lacks: bool) -> None:
    (tmp_path / "clip.mp4").write_bytes(content)
    assert container.lacks_index(tmp_path / "clip.mp4") == lacks


# --- high dynamic range


def test_highlights_approach_white_from_four_fifths_on_without_a_bend() -> None:
    light = np.array([0.0, 0.4, 0.8, 0.81, 1.0, 1.8])
    mapped = _compress_highlights(light)
    assert mapped[:3] == pytest.approx(light[:3]) and mapped[3] == pytest.approx(0.81, abs=5e-4)
    assert mapped[4] == pytest.approx(1 - 0.2 * np.exp(-1)) and mapped[5] == pytest.approx(1 - 0.2 * np.exp(-5))


def test_the_tables_are_those_of_the_standards() -> None:
    hlg, pq = hdr._decode_table(HLG), hdr._decode_table(PQ)
    assert hlg.shape == pq.shape == (256,) and hlg.dtype == pq.dtype == np.float32
    # BT.2100 tables 4 and 5.
    assert hlg[0] == 0 and hlg[255] == pytest.approx(1, abs=1e-4) and hlg[127] == pytest.approx((127 / 255) ** 2 / 3)
    assert hlg[128] == pytest.approx((np.exp((128 / 255 - 0.55991073) / 0.17883277) + 0.28466892) / 12, rel=1e-5)
    assert pq[0] == 0 and pq[255] * 203 == pytest.approx(10000, rel=1e-4)
    assert pq[round(0.508 * 255)] * 203 == pytest.approx(100, rel=0.06), "half of the signal is about 100 cd/m2"
    srgb = hdr._encode_table()
    assert srgb.shape == (4096,) and srgb[0] == 0 and srgb[-1] == 255 and (np.diff(srgb.astype(int)) >= 0).all()
    assert srgb[round(0.2140 * 4095)] in (127, 128) and srgb[8] == round(255 * 12.92 * 8 / 4095)


def to_xyz(*chromaticities: tuple[float, float]) -> np.ndarray:
    """The matrix from linear RGB with these primaries and the white D65 to XYZ."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*chromaticities, (0.3127, 0.3290))]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_colours_are_converted_from_the_wide_primaries_and_keep_their_hue(transfer: str) -> None:
    wide = to_xyz((0.708, 0.292), (0.170, 0.797), (0.131, 0.046))
    narrow = to_xyz((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
    codes = np.array([(115, 105, 98), (98, 110, 90), (100, 99, 120), (200, 190, 185)], np.uint8)
    light = hdr._decode_table(transfer)[codes].astype(float)
    if transfer == HLG:
        light *= 1000 / 203 * (light @ wide[1])[:, None] ** 0.2
    peak = light.max(1, keepdims=True)
    light *= _compress_highlights(peak) / peak
    expected = [srgb_code(value) for value in (light @ np.linalg.solve(narrow, wide).T).clip(0.0032, 1).ravel()]
    found = to_sdr(codes[None], transfer)[0].ravel()
    assert found.tolist() == pytest.approx(expected, abs=1.5)


# --- the search for the head


class Detector:
    """Finds the faces that the test has put at places of the image."""

    def __init__(self, *faces: Any) -> None:
        self.faces, self.asked = faces, []

    def detect(self, part: np.ndarray) -> list[Any]:
        # The place of a part is written into its pixels.
        top, left = (int(value) for value in part[0, 0])
        height, width = part.shape[:2]
        self.asked.append((left, top, width, height))
        inside = []
        for each in self.faces:
            x, y = each.centre - (left, top)
            if 0 <= x < width and 0 <= y < height:
                inside.append(face(x, y, each.extent))
        return inside


def places(width: int, height: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)


def test_a_small_face_is_looked_for_in_overlapping_tiles() -> None:
    detector = Detector(face(900, 500, 40))
    search = HeadSearch(detector)
    found = search.find(7, places(1000, 600), 0.5, [])
    assert found is not None and found.number == 7 and not found.several
    assert found.centre == pytest.approx((1800, 1000)) and found.extent == pytest.approx(80), "in the source's pixels"
    assert detector.asked == [(0, 0, 600, 600), (400, 0, 600, 600)]
    assert SEARCH_SIDE == 960


def test_a_face_that_was_seen_is_looked_for_near_its_last_place() -> None:
    detector = Detector(face(640, 300, 60))
    search = HeadSearch(detector)
    assert search.find(0, places(1000, 600), 0.5, [face(600, 300, 80)]).centre == pytest.approx((1200, 600))
    assert not detector.asked, "it was seen in the whole image"
    found = search.find(1, places(1000, 600), 0.5, [])
    assert detector.asked == [(480, 180, 240, 240)] and found.centre == pytest.approx((1280, 600))
    assert HeadSearch(Detector()).find(0, places(1000, 600), 1.0, []) is None
    nowhere = HeadSearch(Detector(face(50, 50, 20)))
    nowhere.find(0, places(1000, 600), 1.0, [face(990, 590, 8)])
    assert nowhere.find(1, places(1000, 600), 1.0, []) is None
    assert nowhere._detector.asked == [(978, 578, 22, 22)], "the rest of the region is outside"


def test_a_region_of_less_than_sixteen_pixels_is_not_searched() -> None:
    detector = Detector(face(995, 595, 6))
    search = HeadSearch(detector)
    search.find(0, places(1000, 600), 1.0, [face(995, 595, 6)])
    assert search.find(1, places(1000, 600), 1.0, []) is None and not detector.asked


def test_the_person_who_was_followed_is_preferred_by_distance_and_size() -> None:
    near, large = face(100, 100, 50), face(200, 100, 100)
    assert choose_face([large, near], np.array([100.0, 100])) == (near, True)
    assert choose_face([large, near], np.array([140.0, 100])) == (large, True)
    assert choose_face([large, face(400, 100, 40)], None)[1] and not choose_face([large, face(400, 100, 39)], None)[1]


def test_a_detection_that_touches_no_other_widens_the_crop_only_where_there_are_two() -> None:
    path = [sighting(0, 300, 300), sighting(1, 300, 300), sighting(2, 1500, 800)]
    assert stable_crop(path, 1920, 1080) == stable_crop(path[:2], 1920, 1080)
    assert stable_crop(path[1:], 1920, 1080)[2] > 1000
    apart = [sighting(index, 200 + 500 * index, 500) for index in range(3)]
    assert stable_crop(apart, 1920, 1080)[2] > 1000, "none is supported, so all are"
    assert stable_crop([sighting(0, 960, 540, extent=0.1)], 1920, 1080)[2] == 2


def test_the_field_of_view_is_taken_across_the_shorter_side() -> None:
    tall = guess_intrinsics((0.0, 0.0, 1080.0), 540, 1080, 1920, 10)
    wide = guess_intrinsics((0.0, 0.0, 1080.0), 540, 1920, 1080, 10)
    assert tall[0, 0] == wide[0, 0] == pytest.approx(270 / np.tan(np.radians(25)))
    assert tall[:2, 2].tolist() == [270, 480] and wide[:2, 2].tolist() == [480, 270]


# --- mattes and the plate


def test_a_gap_that_only_touches_the_background_at_a_corner_is_a_hole() -> None:
    confidence = np.ones((12, 12), np.float32)
    confidence[:6, :6] = 0.0
    confidence[6:9, 6:9] = 0.5
    assert (fill_uncertain(confidence)[6:, 6:] == 1).all() and not fill_uncertain(confidence)[:6, :6].any()


def test_what_touches_the_person_at_a_corner_belongs_to_it_and_the_largest_of_two_is_kept() -> None:
    confidence = np.zeros((20, 20), np.float32)
    confidence[:8, :8], confidence[8:10, 8:10], confidence[15:18, 15:18] = 1.0, 0.6, 1.0
    kept = fill_uncertain(confidence)
    assert (kept[8:10, 8:10] == np.float32(0.6)).all() and not kept[15:18, 15:18].any() and (kept[:8, :8] == 1).all()
    # What is as surely background as 5 % counts as such, and what is as sure as 95 % as the person.
    confidence = np.full((20, 20), 0.95, np.float32)
    confidence[5, 5], confidence[9, 9] = 0.05, 0.06
    filled = fill_uncertain(confidence)
    assert filled[5, 5] == 0 or filled[5, 5] == np.float32(0.05)
    assert filled[9, 9] == 1 and filled[0, 0] == np.float32(0.95)


def test_faint_values_of_the_matte_become_none_and_nearly_full_ones_full(monkeypatch: pytest.MonkeyPatch) -> None:
    model = object.__new__(MattingModel)
    levels = np.array([-0.5, 0.0, 0.12, 0.13, 0.5, 0.87, 0.88, 1.0, 1.5], np.float32)
    model.confidence = lambda image: np.zeros(image.shape[:2], np.float32)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr("backend.footage.matte.guided_filter", lambda small, matte, image: np.tile(levels, (9, 1)))
    asked = model.matte(np.zeros((9, 9, 3), np.uint8))
    assert asked.dtype == np.uint8
    assert asked[0].tolist() == [
        0,
        0,
        0,
        pytest.approx(255 * 0.01 / 0.76, abs=1),
        128,
        pytest.approx(252, abs=1),
        255,
        255,
        255,
    ]


def test_the_plate_is_continued_behind_the_head_up_to_its_limit() -> None:
    color = np.arange(6, dtype=np.uint8)[None, :, None].repeat(6, 0).repeat(3, 2)
    known = np.zeros((6, 6), bool)
    known[:, 1] = known[:, 5] = True
    filled, where = _extrapolate(color, known, axis=1, backwards=False, max_distance=2)
    assert np.flatnonzero(where[0]).tolist() == [2, 3] and filled[0, [2, 3], 0].tolist() == [1, 1]
    filled, where = _extrapolate(color, known, axis=1, backwards=True, max_distance=2)
    assert np.flatnonzero(where[0]).tolist() == [0, 3, 4] and filled[0, [0, 3, 4], 0].tolist() == [1, 5, 5]
    down, where = _extrapolate(color.transpose(1, 0, 2), known.T, axis=0, backwards=False, max_distance=2)
    assert np.flatnonzero(where[:, 0]).tolist() == [2, 3] and down[[2, 3], 0, 0].tolist() == [1, 1]


def test_thin_parts_of_the_plates_colour_go_and_all_others_stay() -> None:
    side = 100
    matte, frame = np.zeros((side, side), np.uint8), np.full((side, side, 3), 50, np.uint8)
    matte[:, 20:22] = matte[:, 40:42] = matte[:, 60:90] = 255
    colors = np.full((1, side, side, 3), 68, np.uint8)
    colors[0, :, 40:42, 1] = 69
    known = np.ones((1, side, side), bool)
    known[0, 50:] = False
    cleaned = Plate(colors, known).remove_from(matte, frame)
    assert not cleaned[:50, 20:22].any() and (cleaned[50:, 20:22] == 255).all(), "below, the plate is not known"
    assert (cleaned[:, 40:42] == 255).all(), "one channel differs by 19"
    assert (cleaned[:, 60:90] == 255).all(), "it is not thin"
    assert Plate(colors, ~known & known).remove_from(matte, frame) is matte


# --- flags, threads and logs


def test_flagged_frames_are_listed_in_runs() -> None:
    flags = np.array([0, 1, 1, 0, 2, 4, 4, 4])
    assert describe_flags(flags) == [
        "frames 1-2: no face",
        "frame 4: several faces",
        "frames 5-7: face cut off by the edge of the image",
    ]
    assert describe_flags(np.zeros(3, int)) == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([1, 1, 1], "No face was found in the head crops of a.mp4"),
        ([2, 2, 0], "a.mp4 shows two faces in most of its frames"),
        ([2, 0], None),
        ([2, 2, 0, 0, 1], None),
        ([1, 0], None),
    ],
)
def test_a_capture_of_nobody_or_of_two_is_refused(flags: list[int], sentence: str | None) -> None:
    capture: Any = SimpleNamespace(flags=np.array(flags, np.int32))
    if sentence is None:
        _check_faces(capture, Path("/films/a.mp4"))
        return
    with pytest.raises(EffigyError, match=sentence):
        _check_faces(capture, Path("/films/a.mp4"))


def test_a_capture_is_summed_up_by_its_flags() -> None:
    capture: Any = SimpleNamespace(flags=np.array([0, 0, 1, 2, 2 | 4], np.int32))
    info: Any = SimpleNamespace(width=640, height=480, turn=90, sequence=None)
    found: Any = SimpleNamespace(info=info, area=Area(0, 60, 640, 420))
    assert _summary(capture, found, ["a line"], Findings("Five frames.", "", True)) == {
        "source_size": [640, 480],
        "picture": [0, 60, 640, 420],
        "turn": 90,
        "numbered_from": None,
        "findings": "Five frames.",
        "trainable": True,
        "counts": {"good": 2, "no_face": 1, "several_faces": 2, "cut_off": 1},
        "flagged": ["a line"],
    }
    assert FrameFlag.CUT_OFF == 4 and len(SCORE_NAMES) == 52 and SCORE_NAMES[-1] == "tongueOut"


def test_frames_wait_for_two_items_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, count in ((3, 3), (64, 8)):
        monkeypatch.setattr(model_threads, "core_count", lambda cores=cores: cores)
        taken: list[int] = []

        def items(taken: list[int] = taken) -> Any:
            for number in range(40):
                taken.append(number)
                yield number

        with ModelThreads() as threads:
            results = threads.map(lambda item: 2 * item, items())
            assert next(results) == 0 and len(taken) == 2 * count + 1
            assert list(results) == [2 * number for number in range(1, 40)]


def test_only_the_log_of_a_loading_model_is_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with pytest.raises(ValueError, match="loading"), quiet_stderr():
        os.write(2, b"hidden\n")
        raise ValueError("loading")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
