"""Bars, sides and fields: what of a film is picture, which way is up, and how interlaced frames become images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from footage_clips import write_clip

from backend.assets import asset_path
from backend.errors import EffigyError
from backend.footage.build import make_capture
from backend.footage.decode import probe, read_frames
from backend.footage.detector import CHIN, FOREHEAD
from backend.footage.head_search import _sideways, _turn_of
from backend.footage.interlacing import BOTTOM_FIRST, TOP_FIRST, FieldSearch
from backend.footage.picture_area import BorderSearch
from backend.formats.capture import findings_in, read_frame, read_matte

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def person() -> list[np.ndarray]:
    """Ten frames of the bundled clip, 320 x 320."""
    frames = read_frames(asset_path("demo.mp4"), every=4, max_frames=40)
    return [cv2.resize(frame.image, (320, 320), interpolation=cv2.INTER_AREA) for frame in frames]


def area_of(images: list[np.ndarray], scale: int = 1) -> tuple[int, int, int, int]:
    search = BorderSearch()
    for image in images:
        search.look(image)
    found = search.area(images[0].shape[1] * scale, images[0].shape[0] * scale)
    return found.left, found.top, found.right, found.bottom


def barred(images: list[np.ndarray], above: int, below: int, beside: int, level: int = 0) -> list[np.ndarray]:
    """The images with bars, in which compression has left a little noise."""
    margins = ((above, below), (beside, beside), (0, 0))
    padded = [np.pad(image, margins, constant_values=level).astype(int) for image in images]
    return [np.clip(image + RANDOM.integers(-3, 4, image.shape), 0, 255).astype(np.uint8) for image in padded]


@pytest.mark.parametrize(
    ("above", "below", "beside", "level"),
    [
        (60, 60, 0, 0),
        (0, 0, 90, 16),
        (40, 40, 70, 0),
        (0, 50, 0, 0),
        (60, 60, 0, 250),
        (33, 71, 0, 128),
        # An upright film in a wide one: its upper edge is less than a third of the whole image.
        (40, 40, 430, 0),
    ],
)
def test_steady_bars_are_outside_the_picture(
    person: list[np.ndarray], above: int, below: int, beside: int, level: int
) -> None:
    height, width = 320 + above + below, 320 + 2 * beside
    found = np.array(area_of(barred(person, above, below, beside, level)))
    true = np.array((beside, above, width - beside, height - below))
    # The area is never larger than the picture, and smaller by a blended row at most.
    inner = (found - true) * (1, 1, -1, -1)
    assert (inner >= 0).all() and (inner <= 1).all()


def test_a_picture_without_bars_stays_whole_however_dark_it_is(person: list[np.ndarray]) -> None:
    whole = (0, 0, 320, 320)
    assert area_of(person) == whole
    assert area_of([image // 12 for image in person]) == whole
    assert area_of([image * 0 for image in person]) == whole
    # A fade to black that lasts for most of the clip.
    assert area_of([(image * max(0.0, 1 - index / 4)).astype(np.uint8) for index, image in enumerate(person)]) == whole
    # A head before an even wall, which is not bounded by straight edges.
    wall = [np.full((320, 320, 3), 8, np.uint8) for _ in range(10)]
    for index, image in enumerate(wall):
        cv2.ellipse(image, (160 + index, 200), (70, 100), 0, 0, 360, (180, 140, 120), -1)
        cv2.ellipse(image, (160, 340), (140, 60), 0, 0, 360, (90, 30, 40), -1)
    assert area_of(wall) == whole


def test_bars_are_found_under_subtitles_after_fades_and_in_a_dark_scene(person: list[np.ndarray]) -> None:
    true = (0, 61, 320, 379)
    titled = barred(person, 60, 60, 0)
    for index, image in enumerate(titled):
        cv2.putText(image, f"and then he said it {index}", (5, 415), 0, 0.8, (255, 255, 255), 2)
    assert area_of(titled) == true
    fading = [(image * max(0.0, 1 - index / 4)).astype(np.uint8) for index, image in enumerate(person)]
    assert area_of(barred(fading, 60, 60, 0)) == true
    assert area_of(barred([image // 4 for image in person], 60, 60, 0)) == true
    # Bars that come and go are a part of the picture, as those of a title are.
    some = [image if index % 2 else image[::-1] // 2 + 90 for index, image in enumerate(barred(person, 60, 60, 0))]
    assert area_of(some) == (0, 0, 320, 440)


def test_an_area_is_given_in_pixels_of_the_film(person: list[np.ndarray]) -> None:
    assert area_of(barred(person, 60, 60, 0), scale=4) == (0, 244, 1280, 1516)


def test_a_letterboxed_clip_has_no_person_in_its_bars(person: list[np.ndarray], tmp_path: Path) -> None:
    """The head fills the picture, so that the crop reaches into the bars, where the matting network sees a body."""
    wide = [np.pad(image[40:270], ((110, 110), (0, 0), (0, 0))) for image in person]
    clip = write_clip(tmp_path / "cinema.mp4", wide)
    capture = make_capture(clip, tmp_path / "cinema.capture", size=256)
    summary = json.loads((capture.folder / "capture.json").read_text())
    left, top, right, bottom = summary["picture"]
    assert (left, right) == (0, 320) and 110 <= top <= 112 and 338 <= bottom <= 340
    rows = (np.arange(256) + 0.5) * capture.crop[2] / 256 + capture.crop[1]
    bars = (rows < 110) | (rows > 340)
    assert bars.sum() > 40
    mattes = np.stack([read_matte(capture, index) for index in range(capture.frame_count)])
    assert not mattes[:, bars].any() and (mattes[:, rows < 330][:, -10:] > 200).mean() > 0.25
    # The lens looks at the middle of the picture, as in a film without bars.
    centre = capture.intrinsics[:2, 2] * capture.crop[2] / 256 + capture.crop[:2]
    assert centre == pytest.approx((160, 225), abs=1)
    assert "letterboxed" in summary["findings"] and findings_in(capture.folder) == summary["findings"]


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_clip_on_its_side_is_refused_with_the_turn_that_mends_it(
    person: list[np.ndarray], tmp_path: Path, turn: int
) -> None:
    clip = write_clip(tmp_path / "phone.mp4", [np.rot90(image[:, 20:], turn // 90) for image in person[:6]])
    with pytest.raises(EffigyError, match=rf"phone\.mp4 .*{turn}° clockwise \(--rotate {turn}\)"):
        make_capture(clip, tmp_path / "a.capture", size=128)
    capture = make_capture(clip, tmp_path / "b.capture", size=128, rotate=turn)
    upright = capture.landmarks[:, FOREHEAD, 1] < capture.landmarks[:, CHIN, 1] - 20
    assert upright.all() and "turned by" in findings_in(capture.folder)
    info = probe(clip, turn=turn)
    assert (info.width, info.height) == (300, 320)
    assert next(read_frames(info)).image.shape == (320, 300, 3)


def test_a_turn_that_is_too_much_is_taken_back() -> None:
    assert "270° clockwise (--rotate 270)" in _sideways("a.mp4", 180, 90)
    assert "import it without Turn" in _sideways("a.mp4", 90, 270)
    with pytest.raises(EffigyError, match="not by 45"):
        probe(asset_path("demo.mp4"), turn=45)


def test_a_head_that_leans_or_lies_for_a_moment_is_not_turned() -> None:
    upright: Any = SimpleNamespace(detect=lambda image: [])
    nothing = [np.zeros((64, 64, 3), np.uint8)]
    rolls = [SimpleNamespace(roll=roll) for roll in (50, -55, 80, 85, 10)]
    assert _turn_of(rolls, 5, nothing, upright) == 0
    assert (
        _turn_of([SimpleNamespace(roll=-92), SimpleNamespace(roll=-85), SimpleNamespace(roll=3)], 3, [], upright) == 90
    )
    assert _turn_of([SimpleNamespace(roll=170)], 1, [], upright) == 180


def test_no_more_than_twelve_frames_are_searched_in_each_direction() -> None:
    seen = []
    nobody: Any = SimpleNamespace(detect=lambda image: seen.append(image) or [])
    assert _turn_of([], 23, [np.zeros((64, 64, 3), np.uint8)] * 23, nobody) == 0
    assert len(seen) == 4 * 12


@pytest.fixture(scope="module")
def moving() -> list[np.ndarray]:
    """Sixty half images of a scene that moves by 3 pixels from one to the next."""
    texture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (96, 400, 3), np.uint8), (0, 0), 2)
    return [np.ascontiguousarray(texture[:, 3 * index : 3 * index + 128]) for index in range(60)]


def woven(moments: list[np.ndarray], top_first: bool) -> list[np.ndarray]:
    """Frames of two moments each, the first one in the even rows if `top_first`."""
    frames = []
    for first, second in zip(moments[::2], moments[1::2], strict=True):
        frame = first.copy()
        frame[int(top_first) :: 2] = second[int(top_first) :: 2]
        frames.append(frame)
    return frames


def combing(image: np.ndarray) -> float:
    """How much neighbouring rows differ beside how much every second row does."""
    grey = image.mean(2)
    return float(np.abs(np.diff(grey, axis=0)).mean() / np.abs(grey[2:] - grey[:-2]).mean())


@pytest.mark.parametrize("top_first", [True, False])
@pytest.mark.parametrize("flagged", [True, False])
def test_interlaced_frames_become_whole_images_at_their_times(
    moving: list[np.ndarray], tmp_path: Path, top_first: bool, flagged: bool
) -> None:
    options = {"x264-params": f"interlaced=1:{'tff' if top_first else 'bff'}=1"} if flagged else {}
    clip = write_clip(tmp_path / "tape.mp4", woven(moving, top_first), stream_options=options)
    search = FieldSearch()
    combed = list(read_frames(clip, fields=search))
    assert search.order == (TOP_FIRST if top_first else BOTTOM_FIRST)
    whole = list(read_frames(replace(probe(clip), field_order=search.order)))
    assert [frame.time for frame in whole] == [frame.time for frame in combed] and len(whole) == 30
    assert min(combing(frame.image) for frame in combed) > 1.2 > 0.8 > max(combing(frame.image) for frame in whole)
    # Each image is that of its first moment, in its colours.
    for frame, moment in zip(whole[1:-1], moving[2:-2:2], strict=True):
        assert np.abs(frame.image.astype(int) - moment).mean() < 4


def test_whole_images_stay_as_they_are_also_where_they_are_marked_as_interlaced(
    moving: list[np.ndarray], tmp_path: Path
) -> None:
    marked = write_clip(tmp_path / "a.mp4", moving, stream_options={"x264-params": "interlaced=1:tff=1"})
    still = write_clip(tmp_path / "b.mp4", moving[:1] * 30)
    for clip in (marked, still, asset_path("demo.mp4")):
        search = FieldSearch()
        for _ in read_frames(clip, fields=search, every=1000, max_frames=60):
            pass
        assert search.order == ""


def test_cinema_film_on_television_has_combs_in_some_frames_and_is_found(
    moving: list[np.ndarray], tmp_path: Path
) -> None:
    """3:2 pulldown: of five frames two hold rows of two moments."""
    halves = [moment for index, moment in enumerate(moving[:24]) for _ in range(2 + index % 2)]
    clip = write_clip(tmp_path / "film.mp4", woven(halves, True))
    search = FieldSearch()
    for _ in read_frames(clip, fields=search):
        pass
    assert search.order == TOP_FIRST


def test_an_interlaced_clip_is_captured_as_whole_images_and_said_to_be(
    person: list[np.ndarray], tmp_path: Path
) -> None:
    moments = [np.roll(person[0], 2 * index, 1) for index in range(24)]
    capture = make_capture(write_clip(tmp_path / "tape.mp4", woven(moments, True)), tmp_path / "a.capture", size=256)
    assert "interlaced (made into whole images)" in findings_in(capture.folder)
    assert capture.frame_count == 12 and capture.fps == 30
    assert max(combing(read_frame(capture, index)) for index in range(2, 10)) < 0.8


def test_an_upside_down_face_that_the_detector_takes_for_an_upright_one_is_found(person: list[np.ndarray]) -> None:
    upright: Any = SimpleNamespace(detect=lambda image: [])
    found = [SimpleNamespace(roll=2.0)] * len(person)
    assert _turn_of(found, len(person), [np.rot90(image, 2) for image in person], upright) == 180
    assert _turn_of(found, len(person), person, upright) == 0
