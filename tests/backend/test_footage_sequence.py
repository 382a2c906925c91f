"""Numbered images are one film with the numbers of their files, in whatever format; what is ambiguous is asked for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image
from test_footage_hdr import srgb_code

from backend.assets import asset_path
from backend.errors import EffigyError
from backend.footage.build import make_capture
from backend.footage.decode import probe, read_frames
from backend.footage.sequence import SUFFIXES, find_sequence, read_image
from backend.formats.capture import findings_in, load_capture
from backend.progress import Progress
from blender_addon import image_run
from blender_addon.errors import EffigyError as BlenderError
from blender_addon.worker.file_sender import scan
from tests.backend.footage_clips import corner_image


class Listener(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (48, 64)) -> Path:
    """Grey images whose level is ten times their place in `names`."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), 10 * place, np.uint8)).save(folder / name)
    return folder


def shots(numbers: list[int]) -> list[str]:
    return [f"shot.{number:04d}.png" for number in numbers]


def test_a_folder_of_images_is_a_film_with_the_numbers_of_its_files(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "plate", shots([1001, 1002, 1004, 1005]))
    (folder / "._shot.1003.png").write_bytes(b"what macOS leaves")
    (folder / "notes.txt").write_text("take 3")
    for name in (folder, folder / "shot.####.png", folder / "shot.%04d.png"):
        info = probe(name, rate=Fraction(25))
        assert (info.width, info.height, info.fps, info.frame_count, info.still) == (64, 48, 25, 4, False)
        assert info.sequence and info.sequence.pattern == "shot.####.png"
        frames = list(read_frames(info))
        # The number that people count is one more than the index, as in a video.
        assert [frame.number + 1 for frame in frames] == [1001, 1002, 1004, 1005]
        assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.12, 0.16])
        assert [int(frame.image.mean()) for frame in frames] == [0, 10, 20, 30]
    assert [frame.number + 1 for frame in read_frames(info, first_frame=1002, last_frame=1004)] == [1002, 1004]
    assert [frame.number + 1 for frame in read_frames(info, start=0.1)] == [1004, 1005]
    assert [frame.number + 1 for frame in read_frames(info, every=2)] == [1001, 1004]
    assert probe(folder).fps == 24
    assert next(read_frames(info, longest_side=32)).image.shape == (24, 32, 3)
    assert info.sequence.missing(1001, 1005) == info.sequence.missing(1002, 1004) == "1003"
    assert info.sequence.missing(1001, 1002) == info.sequence.missing(1004, 1005) == ""
    on_twos = replace(info.sequence, numbers=tuple(range(1001, 1201, 2)))
    assert on_twos.missing(1001, 1009) == "1002, 1004, 1006, 1008"
    assert on_twos.missing(1001, 1199) == "1002, 1004, 1006, 1008 and 95 more"
    turned = probe(folder, turn=90)
    assert (turned.width, turned.height) == (48, 64) and next(read_frames(turned)).image.shape == (64, 48, 3)


@pytest.mark.parametrize(
    ("names", "pattern", "numbers"),
    [
        (["9.png", "10.png", "11.png"], "#.png", (9, 10, 11)),
        (["a_0000.jpg", "a_0001.jpg"], "a_####.jpg", (0, 1)),
        (["take2_001_left.png", "take2_002_left.png"], "take2_###_left.png", (1, 2)),
        (["x.1.png", "x.2.png", "me.png", "7.txt"], "x.#.png", (1, 2)),
        (["20260101123456_1.png", "20260101123456_2.png"], "20260101123456_#.png", (1, 2)),
    ],
)
def test_the_number_is_the_one_that_counts_the_images(
    tmp_path: Path, names: list[str], pattern: str, numbers: tuple[int, ...]
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"")
    found = find_sequence(tmp_path)
    assert found and found.pattern == pattern and found.numbers == numbers
    assert found.path_of(numbers[1]).name == names[1]


def test_one_image_is_a_photograph_and_two_films_in_a_folder_are_asked_for(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "plate", shots([1, 2, 3]))
    assert probe(folder / "shot.0002.png").still and find_sequence(folder / "shot.0002.png") is None
    write_images(folder, ["left.1.png", "left.2.png"])
    with pytest.raises(EffigyError, match=r"several sequences \(left\.#\.png, shot\.####\.png\)"):
        probe(folder)
    assert probe(folder / "left.#.png").frame_count == 2
    with pytest.raises(EffigyError, match="no images right"):
        probe(folder / "right.#.png")
    write_images(tmp_path / "twice", ["7.png", "8.png", "007.png"])
    for name in ("twice", "twice/#.png"):
        with pytest.raises(EffigyError, match=r"two images with the number 7, 007\.png and 7\.png: move"):
            probe(tmp_path / name)
    with pytest.raises(EffigyError, match=r"one image, me\.0001\.png\): name the image itself"):
        probe(write_images(tmp_path / "one", ["me.0001.png"]))
    with pytest.raises(EffigyError, match="without numbered images"):
        probe(write_images(tmp_path / "others", ["me.png", "you.png"]))
    with pytest.raises(EffigyError, match="its own"):
        probe(asset_path("demo.mp4"), rate=Fraction(24))


def test_images_of_other_sizes_are_refused_and_damaged_ones_left_out(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "plate", shots([1, 2, 3, 4]))
    (folder / "shot.0003.png").write_bytes((folder / "shot.0002.png").read_bytes()[:60])
    listener = Listener()
    assert [frame.number + 1 for frame in read_frames(probe(folder), progress=listener)] == [1, 2, 4]
    (message,) = listener.messages
    assert "1 of 4 images" in message and "shot.0003.png" in message
    write_images(folder, ["shot.0004.png"], size=(60, 64))
    with pytest.raises(EffigyError, match=r"shot\.0004\.png has 64 x 60 pixels, and the first image 64 x 48"):
        list(read_frames(folder))


def write_exr(path: Path, channels: dict[str, np.ndarray], **header: object) -> Path:
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}, channels).write(
        str(path)
    )
    return path


LINEAR = np.linspace(0.01, 0.75, 48 * 64 * 3, dtype=np.float32).reshape(48, 64, 3)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_scene_linear_light_becomes_display_values(tmp_path: Path, kind: type) -> None:
    image = read_image(write_exr(tmp_path / "a.exr", {"RGB": LINEAR.astype(kind)}))
    expected = srgb_code(LINEAR.astype(kind).astype(np.float64))
    assert np.abs(image.astype(float) - expected).max() <= 1
    # Highlights are compressed instead of being clipped, and what is no number becomes black.
    bright = np.array([[[1.0] * 3, [1.2] * 3, [50.0] * 3, [np.nan] * 3, [-1.0] * 3, [np.inf] * 3]], np.float32)
    row = read_image(write_exr(tmp_path / "b.exr", {"RGB": np.repeat(bright, 8, 0)}))[0, :, 0].tolist()
    assert 235 < row[0] < row[1] < row[2] <= 255 and row[3:] == [0, 0, 255]


def test_layers_alpha_windows_and_primaries_of_openexr_are_followed(tmp_path: Path) -> None:
    half = np.full((48, 64), 0.5, np.float32)
    layered = {f"beauty.{name}": LINEAR[..., index].copy() for index, name in enumerate("RGB")} | {"depth.Z": half}
    plain = read_image(write_exr(tmp_path / "plain.exr", {"RGB": LINEAR}))
    assert np.array_equal(read_image(write_exr(tmp_path / "layers.exr", layered)), plain)
    grey = read_image(write_exr(tmp_path / "grey.exr", {"Y": half}))
    assert np.abs(grey.astype(float) - srgb_code(np.array(0.5))).max() <= 1
    # Premultiplied: half of the light, and half of what is behind, which is white.
    clear = np.dstack([half * 0, half * 0, half * 0, half])
    seen = read_image(write_exr(tmp_path / "clear.exr", {"RGBA": np.ascontiguousarray(clear)}))
    assert np.abs(seen.astype(float) - srgb_code(np.array(0.5))).max() <= 1
    coloured = read_image(
        write_exr(tmp_path / "c.exr", {"RGBA": np.ascontiguousarray(np.dstack([half / 4] * 3 + [half]))})
    )
    assert np.abs(coloured.astype(float) - srgb_code(np.array(0.5 / 4 + 0.5))).max() <= 1
    # A crop of a larger picture lies where it was, and an anamorphic picture is shown wide.
    window = (np.array([8, 4], np.int32), np.array([71, 51], np.int32))
    shown = (np.array([0, 0], np.int32), np.array([79, 59], np.int32))
    placed = read_image(write_exr(tmp_path / "crop.exr", {"RGB": LINEAR}, dataWindow=window, displayWindow=shown))
    assert placed.shape == (60, 80, 3) and np.array_equal(placed[4:52, 8:72], plain) and not placed[:4].any()
    wide = read_image(write_exr(tmp_path / "wide.exr", {"RGB": LINEAR}, pixelAspectRatio=2.0))
    assert wide.shape == (48, 128, 3)
    # ACES AP1: white stays white, and the red of Rec. 709 is less than its full red.
    ap1 = (0.713, 0.293, 0.165, 0.830, 0.128, 0.044, 0.32168, 0.33767)
    colours = np.array([[[0.5, 0.5, 0.5], [0.6131 * 0.7, 0.0702 * 0.7, 0.0206 * 0.7]]], np.float32).repeat(8, 0)
    white, red = read_image(write_exr(tmp_path / "aces.exr", {"RGB": colours}, chromaticities=ap1))[0].astype(float)
    assert np.abs(white - srgb_code(np.array(0.5))).max() <= 1
    assert np.abs(red - np.maximum(srgb_code(np.array([0.7, 0, 0])), 0)).max() <= 8
    with pytest.raises(EffigyError, match="no colour"):
        read_image(write_exr(tmp_path / "depth.exr", {"Z": half}))
    (tmp_path / "half.exr").write_bytes((tmp_path / "plain.exr").read_bytes()[:200])
    with pytest.raises(EffigyError, match="damaged"):
        read_image(tmp_path / "half.exr")


def test_an_openexr_that_claims_too_many_pixels_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write_exr(tmp_path / "a.exr", {"RGB": LINEAR})
    window = np.array([0, 0, 63, 47], np.int32).tobytes()
    path.write_bytes(path.read_bytes().replace(window, np.array([0, 0, 60_000, 60_000], np.int32).tobytes()))
    with pytest.raises(EffigyError, match="too large|damaged"):
        read_image(path)


def test_dpx_and_deep_images_keep_their_colours(tmp_path: Path) -> None:
    corners = corner_image(96, 64)
    with av.open(str(tmp_path / "film.%04d.dpx"), "w", format="image2") as container:
        stream = container.add_stream("dpx", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb24"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(corners, format="rgb24")))
        container.mux(stream.encode())
    found = list(read_frames(tmp_path / "film.####.dpx"))
    assert len(found) == 2 and np.array_equal(found[0].image, corners)
    scan = bytearray((tmp_path / "film.0001.dpx").read_bytes())
    scan[801] = 1
    (tmp_path / "scan.dpx").write_bytes(scan)
    with pytest.raises(EffigyError, match="logarithmic"):
        read_image(tmp_path / "scan.dpx")
    for name in ("deep.tif", "deep.png"):
        cv2.imwrite(str(tmp_path / name), corners[..., ::-1].astype(np.uint16) * 257)
        assert np.array_equal(read_image(tmp_path / name), corners)


def test_photographs_of_telephones_and_animations_are_read_or_named(tmp_path: Path) -> None:
    first, second = (Image.fromarray(corner_image(96, 64)[:, ::side]) for side in (1, -1))
    first.save(tmp_path / "phone.avif", quality=95)
    assert probe(tmp_path / "phone.avif").still
    assert np.abs(read_image(tmp_path / "phone.avif").astype(int) - corner_image(96, 64)).mean() < 4
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    with pytest.raises(EffigyError, match=r"phone\.heic is a photograph in HEIC: save it as JPEG"):
        probe(tmp_path / "phone.heic")
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second], duration=40)
    with pytest.raises(EffigyError, match="animated WEBP"):
        probe(tmp_path / "a.webp")
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second], duration=40)
    assert [frame.time for frame in read_frames(tmp_path / "a.gif")] == pytest.approx([0, 0.04])


def test_a_capture_of_images_keeps_their_numbers_and_names_gaps(tmp_path: Path) -> None:
    folder = tmp_path / "plate"
    folder.mkdir()
    for index, frame in enumerate(read_frames(asset_path("demo.mp4"), max_frames=5)):
        if index != 2:
            image = cv2.cvtColor(cv2.resize(frame.image, (256, 256)), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / f"shot.{1001 + index}.png"), image)
    listener = Listener()
    made = make_capture(folder, tmp_path / "a.capture", size=128, rate=Fraction(25), progress=listener)
    loaded = load_capture(made.folder)
    assert (loaded.frame_numbers + 1).tolist() == [1001, 1002, 1004, 1005]
    assert loaded.fps == 25 and loaded.frame_times == pytest.approx([0, 0.04, 0.12, 0.16])
    assert loaded.source_name == "shot.####.png" and len(loaded.source_sha256) == 64
    assert "images 1003 missing" in findings_in(made.folder)
    part = make_capture(folder, tmp_path / "part.capture", size=128, last_frame=1002, progress=listener)
    assert "missing" not in findings_in(part.folder), "1003 lies outside the chosen part"
    # Another image of the same size is another source.
    cv2.imwrite(str(folder / "shot.1005.png"), np.zeros((256, 256, 3), np.uint8))
    assert find_sequence(folder).sha256() != loaded.source_sha256
    lone = make_capture(folder / "shot.1001.png", tmp_path / "b.capture", size=128, progress=listener)
    assert lone.frame_count == 1 and "A photograph with a face" in findings_in(lone.folder)
    assert any("shot.####.png" in text and "photograph" in text for text in listener.messages)


@pytest.mark.parametrize(
    "names",
    [
        ["shot.1001.exr", "shot.1002.exr", "shot.1004.exr"],
        ["9.png", "10.png", "11.png"],
        ["take2_001_left.png", "take2_002_left.png"],
        ["plate_v03.0000.DPX", "plate_v03.0001.DPX"],
    ],
)
def test_blender_names_sequences_as_the_backend_reads_them(tmp_path: Path, names: list[str]) -> None:
    for name in (*names, "me.png", "._shot.1003.exr", "notes.txt"):
        (tmp_path / name).write_bytes(b"image")
    pattern = image_run.pattern_of(tmp_path / names[1])
    assert pattern is not None and not pattern.exists()
    found = find_sequence(pattern)
    assert found and found.names == tuple(names)
    assert [image_run.number_in(name, pattern) for name in names] == list(found.numbers)
    assert set(image_run.images_of(pattern)) == set(names)
    assert set(image_run.images_of(tmp_path)) == {*names, "me.png"}
    assert image_run.pattern_of(tmp_path / "me.png") is None and not image_run.images_of(tmp_path / "me.png")
    assert "#" not in image_run.name_of(pattern) and image_run.name_of(tmp_path / "take1.mp4") == "take1"
    assert image_run.SUFFIXES == SUFFIXES


def test_only_the_images_of_a_sequence_are_sent_to_another_machine(tmp_path: Path) -> None:
    """The worker there reads the folder of what was sent."""
    write_images(tmp_path, shots([1001, 1002]))
    for name in ("private.jpg", "private.txt"):
        (tmp_path / name).write_bytes(b"mine")
    sent = scan(tmp_path / "shot.####.png", (), images=True)
    assert list(sent) == shots([1001, 1002])
    there = tmp_path / "there" / "shot.####.png"
    there.mkdir(parents=True)
    for name, path in sent.items():
        (there / name).write_bytes(path.read_bytes())
    found = find_sequence(there)
    assert found and found.pattern == "shot.####.png" and found.numbers == (1001, 1002)
    # A path of another kind names no images.
    with pytest.raises(BlenderError, match="nothing at"):
        scan(tmp_path / "shot.####.png", ())
    with pytest.raises(BlenderError, match="nothing at"):
        scan(tmp_path, ())
    (tmp_path / "shot.1003.png").symlink_to(tmp_path / "private.jpg")
    with pytest.raises(BlenderError, match="link to another place"):
        scan(tmp_path / "shot.####.png", (), images=True)
