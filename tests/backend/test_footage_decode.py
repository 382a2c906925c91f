"""Footage is decoded upright, in its right colours and at its own times; what cannot be used is refused with a
sentence.
"""

from __future__ import annotations

import gc
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from backend.errors import EffigyError
from backend.footage import still
from backend.footage.container import sound_start
from backend.footage.decode import probe, read_frames
from backend.progress import Progress
from tests.backend.footage_clips import (
    RATE,
    corner_image,
    write_clip,
    write_clip_with_late_sound,
    write_raw_colour,
    write_sound,
)


class Listener(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def numbered_images(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Grey frames whose level is ten times their number."""
    return [np.full((height, width, 3), 10 * index, np.uint8) for index in range(count)]


def assert_alike(image: np.ndarray, expected: np.ndarray) -> None:
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    assert np.median(np.abs(image.astype(int) - expected)) <= 4
    assert np.abs(image.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("hflip", [False, True])
def test_a_rotation_flag_gives_the_upright_image(tmp_path: Path, rotation: int, hflip: bool) -> None:
    stored = corner_image()
    clip = write_clip(tmp_path / "rotated.mp4", [stored] * 3, rotation=rotation, hflip=hflip)
    # FFmpeg's display rotation turns counter-clockwise and mirrors afterwards.
    upright = np.rot90(stored, rotation // 90)
    upright = upright[:, ::-1] if hflip else upright
    info = probe(clip)
    assert (info.height, info.width) == upright.shape[:2]
    frames = list(read_frames(clip))
    assert len(frames) == 3
    assert_alike(frames[0].image, upright)


def test_variable_frame_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.15, 0.7, 0.72]
    clip = write_clip(tmp_path / "variable.mkv", numbered_images(5), times=times)
    frames = list(read_frames(clip))
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert np.allclose([frame.time for frame in frames], times, atol=2e-3)


def test_a_clip_whose_time_starts_late_is_counted_from_its_first_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "late.ts", numbered_images(6), times=[5 + index / RATE for index in range(6)])
    assert [frame.time for frame in read_frames(clip)] == pytest.approx([index / RATE for index in range(6)], abs=2e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("delay", [0.0, 0.6])
def test_when_the_sound_begins_is_told_in_the_time_of_the_images(tmp_path: Path, suffix: str, delay: float) -> None:
    # AAC begins with 1024 samples before the sound, which MP4 takes off and Matroska does not.
    clip = write_clip_with_late_sound(tmp_path / f"late.{suffix}", delay)
    assert sound_start(clip) == pytest.approx(delay, abs=0.03)


def test_a_clip_without_sound_has_no_start_of_it(tmp_path: Path) -> None:
    assert sound_start(write_clip(tmp_path / "mute.mp4", numbered_images(3))) == 0
    Image.fromarray(corner_image()).save(tmp_path / "photo.png")
    assert sound_start(tmp_path / "photo.png") == sound_start(tmp_path / "nothing.mp4") == 0


def test_odd_sizes_come_through_whole(tmp_path: Path) -> None:
    image = corner_image(101, 77)
    clip = write_clip(tmp_path / "odd.mkv", [image] * 2)
    assert_alike(next(read_frames(clip)).image, image)


def test_pixels_that_are_not_square_are_made_square(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "wide.mp4", [corner_image(96, 64)] * 2, pixel_shape=Fraction(4, 3))
    assert (probe(clip).width, probe(clip).height) == (128, 64)
    assert_alike(next(read_frames(clip)).image, corner_image(128, 64))


def test_transparent_pixels_keep_their_colour(tmp_path: Path) -> None:
    image = np.dstack([corner_image(), np.zeros((64, 96), np.uint8)])
    clip = write_clip(tmp_path / "alpha.mov", [image] * 2, codec="png", pixels="rgba")
    assert_alike(next(read_frames(clip)).image, corner_image())


@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(
    ("matrix", "red_weight", "blue_weight"),
    [
        (1, 0.2126, 0.0722),
        (5, 0.299, 0.114),
        (9, 0.2627, 0.0593),
        (6, 0.299, 0.114),
        (2, 0.299, 0.114),
    ],
)
def test_colours_follow_the_matrix_and_range_of_the_clip(
    tmp_path: Path,
    pixels: str,
    full_range: bool,
    matrix: int,
    red_weight: float,
    blue_weight: float,
) -> None:
    colour = np.array([200, 60, 30])
    red, green, blue = colour / 255
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = (blue - luma) / (2 * (1 - blue_weight)), (red - luma) / (2 * (1 - red_weight))
    span = ((0, 255), (128, 255)) if full_range else ((16, 219), (128, 224))
    depth = 4 if "10" in pixels else 1
    (luma_zero, luma_span), (chroma_zero, chroma_span) = span
    planes = [luma_zero + luma_span * luma, *(chroma_zero + chroma_span * value for value in chroma)]
    planes = [round(depth * value) for value in planes]
    clip = write_raw_colour(tmp_path / "colour.mkv", pixels, planes, matrix, full_range)
    decoded = next(read_frames(clip)).image
    assert decoded.dtype == np.uint8
    assert np.abs(decoded[10:50, 10:50].astype(int) - colour).max() <= 2


def test_start_end_and_count_choose_frames(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", numbered_images(24))
    numbers = [frame.number for frame in read_frames(clip, start=0.2, end=0.5)]
    assert numbers == list(range(6, 15))
    assert [frame.number for frame in read_frames(clip, start=0.2, max_frames=4)] == [6, 7, 8, 9]
    every_third = list(read_frames(clip, start=0.2, end=0.5, every=3))
    assert [frame.number for frame in every_third] == [6, 9, 12]
    assert [round(frame.image.mean() / 10) for frame in every_third] == [6, 9, 12]


def test_longest_side_only_ever_shrinks(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [corner_image()] * 2)
    assert_alike(next(read_frames(clip, longest_side=48)).image, corner_image(48, 32))
    assert next(read_frames(clip, longest_side=500)).image.shape == (64, 96, 3)


def test_a_clip_that_breaks_off_is_read_as_far_as_possible_and_reported(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3), np.uint8)
    clip = write_clip(tmp_path / "whole.mp4", images, options={"movflags": "faststart"})
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) // 2])
    listener = Listener()
    count = sum(1 for _ in read_frames(clip, progress=listener))
    assert 10 < count < 40
    assert len(listener.messages) == 1
    assert f"{count} of about 60 frames" in listener.messages[0]


def test_a_whole_clip_raises_no_complaint(tmp_path: Path) -> None:
    listener = Listener()
    assert sum(1 for _ in read_frames(write_clip(tmp_path / "a.mp4", numbered_images(20)), progress=listener)) == 20
    assert listener.messages == []


def cut_before_index(path: Path) -> Path:
    write_clip(path, np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: folder / "nothing.mp4", "no video or photograph"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: written(folder / "empty.mp4", b""), "is empty"),
        (lambda folder: written(folder / "noise.mp4", b"neither a video nor anything else" * 99), "not a video"),
        (lambda folder: written(folder / "notes.txt", b"Dear diary,\n" * 99), "not a video"),
        (
            lambda folder: written(folder / "list.m3u8", b"#EXTM3U\n#EXTINF:9,\nhttp://localhost/a.ts\n"),
            "list of files",
        ),
        (
            lambda folder: written(folder / "half.png", cv2.imencode(".png", corner_image())[1].tobytes()[:-30]),
            "damaged",
        ),
        (
            lambda folder: written(folder / "one.pgm", cv2.imencode(".pgm", corner_image()[..., 0])[1].tobytes()),
            "save it as PNG",
        ),
        (lambda folder: write_sound(folder / "song.m4a"), "only sound"),
        (lambda folder: cut_before_index(folder / "cut.mp4"), "cut short"),
    ],
)
def test_a_file_that_is_no_video_is_refused_with_a_sentence(tmp_path: Path, make, sentence: str) -> None:
    path = make(tmp_path)
    for use in (probe, lambda name: list(read_frames(name))):
        with pytest.raises(EffigyError, match=sentence) as refusal:
            use(path)
        assert "\n" not in str(refusal.value)


def test_a_photograph_is_one_upright_frame_in_srgb(tmp_path: Path) -> None:
    image = Image.fromarray(corner_image(96, 64))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera stood on its right side
    image.save(tmp_path / "phone.jpg", exif=exif, quality=98, subsampling=0)
    info = probe(tmp_path / "phone.jpg")
    assert (info.width, info.height, info.frame_count, info.still) == (64, 96, 1, True)
    (frame,) = read_frames(tmp_path / "phone.jpg")
    expected = np.rot90(corner_image(96, 64), -1)
    assert np.abs(frame.image.astype(int) - expected).mean() < 4
    (small,) = read_frames(tmp_path / "phone.jpg", longest_side=48)
    assert small.image.shape == (48, 32, 3)


@pytest.mark.parametrize("kind", ["phone.jpg", "scan.tif", "palette.png", "deep.png", "clear.png"])
def test_a_photograph_with_more_pixels_than_a_frame_is_read_at_half_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(still, "WHOLE_PIXELS", 96 * 64 / 1.1)
    image, expected = Image.fromarray(corner_image(96, 64)), np.rot90(corner_image(96, 64), -1)
    exif = image.getexif()
    exif[0x0112] = 6
    match kind:
        case "palette.png":
            image = image.quantize(16)
            expected = np.rot90(np.asarray(image.convert("RGB")), -1)
        case "deep.png":
            grey = corner_image(96, 64)[..., 1]
            image, expected = (
                Image.fromarray(grey.astype(np.uint16) * 257),
                np.rot90(np.repeat(grey[..., None], 3, 2), -1),
            )
        case "clear.png":
            image.putalpha(255)
    image.save(tmp_path / kind, exif=exif, **({"quality": 98, "subsampling": 0} if kind == "phone.jpg" else {}))
    (frame,) = read_frames(tmp_path / kind)
    info = probe(tmp_path / kind)
    assert frame.image.shape == (48, 32, 3) == (info.height, info.width, 3)
    halved = expected.reshape(48, 2, 32, 2, 3).mean((1, 3))
    assert np.abs(frame.image - halved).mean() < 4


def test_a_photograph_may_have_200_megapixels_and_a_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Image.MAX_IMAGE_PIXELS and 16_320 * 12_240 < 2 * Image.MAX_IMAGE_PIXELS == still.MOST_PIXELS
    Image.fromarray(corner_image(96, 64)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64 // 1.5)
    assert probe(tmp_path / "bomb.png").width == 96, "between the bound and half of it Pillow only warns"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 96 * 64 // 2 - 1)
    with pytest.raises(EffigyError, match="at most 250 megapixels"):
        probe(tmp_path / "bomb.png")


def test_a_photographs_colours_are_what_its_profile_says(tmp_path: Path) -> None:
    image = Image.fromarray(corner_image(96, 64))
    other = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image.save(tmp_path / "odd.png", icc_profile=other)
    assert np.array_equal(next(read_frames(tmp_path / "odd.png")).image, corner_image(96, 64))
    # sRGB's own profile with red and blue exchanged: the file's channels are then another colour.
    srgb = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    srgb[:] = srgb.replace(b"rXYZ", b"tmp_").replace(b"bXYZ", b"rXYZ").replace(b"tmp_", b"bXYZ")
    image.save(tmp_path / "swapped.png", icc_profile=bytes(srgb))
    found = next(read_frames(tmp_path / "swapped.png")).image
    assert np.abs(found.astype(int) - corner_image(96, 64)[..., ::-1]).mean() < 3


def test_photographs_of_other_depths_are_read_with_the_right_colours(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 1024, (48, 1))
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    assert np.array_equal(next(read_frames(tmp_path / "deep.png")).image, np.repeat((ramp // 257)[..., None], 3, 2))
    clear = np.zeros((48, 64, 4), np.uint8)
    clear[:, :32] = (10, 200, 30, 255)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    seen = next(read_frames(tmp_path / "clear.png")).image
    assert (seen[:, 32:] == 255).all() and (seen[:, :32] == (10, 200, 30)).all()
    first, second = (Image.fromarray(corner_image(96, 64)) for _ in range(2))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    assert next(read_frames(tmp_path / "phone.jpg")).image.shape == (64, 96, 3)
    Image.fromarray(np.ones((48, 64), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(EffigyError, match="8 bits"):
        probe(tmp_path / "float.tif")


def test_a_stream_that_changes_its_size_stays_one_clip(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "a.ts", [corner_image(96, 64)] * 5)
    second = write_clip(tmp_path / "b.ts", [corner_image(192, 128)] * 5, times=[1 + index / RATE for index in range(5)])
    both = written(tmp_path / "both.ts", first.read_bytes() + second.read_bytes())
    shapes = [frame.image.shape for frame in read_frames(both)]
    assert len(shapes) >= 8
    assert set(shapes) == {(64, 96, 3)}


def test_decoded_frames_are_released_at_once(tmp_path: Path) -> None:
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        pytest.skip("how much memory is used can be read on Linux only")

    def used_megabytes() -> float:
        return int(statistics.read_text().split()[1]) * 4096 / 1e6

    # A frame that waits for the garbage collector in a reference cycle is 12 MB of a 4K clip, times hundreds.
    megapixels = [np.full((1080, 1920, 3), 10 * index, np.uint8) for index in range(4)]
    images = (megapixels[index % 4] for index in range(60))
    clip = write_clip(tmp_path / "long.mp4", images, pixels="yuv420p", rotation=90)
    frames = read_frames(clip, longest_side=64)
    gc.disable()
    try:
        for _ in range(12):
            next(frames)
        before = used_megabytes()
        for _ in range(40):
            next(frames)
        grown = used_megabytes() - before
    finally:
        gc.enable()
    assert grown < 30, "40 frames are 124 MB; they stayed in memory"
