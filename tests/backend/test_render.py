"""Rendering a track: the files' contents follow each format's conventions, and no file is left half-written."""

from __future__ import annotations

import re
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import OpenEXR
import pytest
import torch

from backend.avatar.export import export_frame, export_frames, frames_of
from backend.avatar.render import draw, render_track
from backend.errors import Cancelled, EffigyError
from backend.formats.image_files import srgb_to_linear
from backend.progress import Progress
from backend.splatting.ply import read_ply
from backend.splatting.types import Splats

SIZE = 64
ORANGE = (0.8, 0.5, 0.2)


class Blob:
    """One soft ball that the expression moves to the image's right, half transparent at the middle."""

    def splats(self, track, indices) -> Splats:
        means = torch.zeros(len(indices), 1, 3)
        means[:, 0, 0] = torch.as_tensor(track.expression[list(indices), 0])
        one = torch.ones(len(indices), 1)
        turns, colors = torch.tensor([1.0, 0, 0, 0]), torch.tensor(ORANGE)
        return Splats(
            means,
            turns.expand(len(indices), 1, 4),
            0.02 * one[..., None].expand(-1, -1, 3),
            0.6 * one,
            colors.expand(len(indices), 1, 3),
        )


@pytest.fixture
def track() -> SimpleNamespace:
    frames = 5
    cameras = np.tile(np.diag([1.0, -1, -1, 1]), (frames, 1, 1)).astype(np.float32)
    cameras[:, 2, 3] = 0.5
    flags = np.zeros(frames, np.int32)
    flags[2] = 8
    return SimpleNamespace(
        expression=np.linspace(-0.03, 0.03, frames, dtype=np.float32)[:, None],
        head_to_camera=cameras,
        flags=flags,
        intrinsics=np.array([[256, 0, 64], [0, 256, 64], [0, 0, 1]], np.float32),
        size=128,
        uneven_times=None,
        fps=Fraction(30000, 1001),
    )


class Listener(Progress):
    def __init__(self, cancel_at: int | None = None) -> None:
        self.messages, self.done, self.cancel_at = [], [], cancel_at

    def message(self, text):
        self.messages.append(text)

    def update(self, stage, done, total, **metrics):
        self.done.append((done, total))

    def cancelled(self):
        return self.cancel_at is not None and len(self.done) >= self.cancel_at


def read_png(path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def centroid(alpha: np.ndarray) -> tuple[float, float]:
    rows, columns = np.mgrid[: alpha.shape[0], : alpha.shape[1]] + 0.5
    return float((columns * alpha).sum() / alpha.sum()), float((rows * alpha).sum() / alpha.sum())


def test_cameras_scale_with_the_image(track):
    """In the last frame the ball is 3 cm off the axis at 0.5 m: 15.36 of the track's 128 px, at any rendered size."""
    for size in (64, 128, 100):
        frame = draw(Blob(), track, [4], size)[0]
        x, y = centroid(frame.alpha)
        assert x == pytest.approx((64 + 256 * 0.03 / 0.5) * size / 128, abs=0.1)
        assert y == pytest.approx(size / 2, abs=0.1)
        row, column = int(y), int(x)
        assert frame.depth[row, column] == pytest.approx(0.5, abs=0.01)
        assert np.isinf(frame.depth[0, 0])


def test_png_is_straight_alpha_and_holds_flagged_frames_too(track, tmp_path):
    listener = Listener()
    assert render_track(Blob(), track, tmp_path / "shot", size=SIZE, progress=listener) == 5
    assert sorted(p.name for p in (tmp_path / "shot").iterdir()) == [f"{k:06d}.png" for k in range(5)]
    assert listener.done[-1] == (5, 5) and listener.messages == []
    image = read_png(tmp_path / "shot" / "000002.png")
    assert image.shape == (SIZE, SIZE, 4) and image.dtype == np.uint8
    # The colour stays orange where the ball fades, because it was divided by alpha.
    assert image[32, 32, 3] > 140 > 80 > image[24, 32, 3] > 40
    for row in (32, 24):
        np.testing.assert_allclose(image[row, 32, :3], np.array(ORANGE) * 255, atol=3)
    assert image[0, 0, 3] == 0
    xs = [centroid(read_png(tmp_path / "shot" / f"{k:06d}.png")[..., 3].astype(float))[0] for k in range(5)]
    assert (np.diff(xs) > 2).all()


def test_png_on_a_colour_is_opaque(track, tmp_path):
    render_track(Blob(), track, tmp_path / "shot", size=SIZE, background="#2040Ff")
    image = read_png(tmp_path / "shot" / "000002.png")
    assert image.shape == (SIZE, SIZE, 3)
    assert image[0, 0].tolist() == [0x20, 0x40, 0xFF]
    alpha = draw(Blob(), track, [2], SIZE)[0].alpha[32, 32]
    expected = np.array(ORANGE) * 255 * alpha + np.array([0x20, 0x40, 0xFF]) * (1 - alpha)
    np.testing.assert_allclose(image[32, 32], expected, atol=1)


def test_exr_is_scene_linear_premultiplied_with_depth_in_metres(track, tmp_path):
    render_track(Blob(), track, tmp_path / "shot", size=SIZE, fmt="exr")
    with OpenEXR.File(str(tmp_path / "shot" / "000002.exr")) as file:
        channels = file.channels()
        rgba, depth = channels["RGBA"].pixels, channels["Z"].pixels
    assert rgba.dtype == np.float32 and rgba.shape == (SIZE, SIZE, 4)
    frame = draw(Blob(), track, [2], SIZE)[0]
    np.testing.assert_allclose(rgba[..., 3], frame.alpha, atol=1e-6)
    expected = srgb_to_linear(np.array(ORANGE, np.float32)) * frame.alpha[..., None]
    np.testing.assert_allclose(rgba[..., :3], expected, atol=1e-4)
    assert depth[32, 32] == pytest.approx(0.5, abs=1e-3) and depth[0, 0] == np.float32(1e10)


def test_linear_values_are_those_of_the_srgb_standard():
    encoded = np.array([0, 0.04, 0.5, 1], np.float32)
    np.testing.assert_allclose(srgb_to_linear(encoded), [0, 0.0030960, 0.2140411, 1], rtol=1e-5)


def test_mp4_has_the_frame_rate_of_the_track_and_the_right_colours(track, tmp_path):
    listener = Listener()
    render_track(Blob(), track, tmp_path / "shot.mp4", size=SIZE, fmt="mp4", background="#c02010", progress=listener)
    assert listener.messages == []
    with av.open(str(tmp_path / "shot.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(30000, 1001)
        assert int(stream.codec_context.colorspace) == 1
        frames = list(container.decode(stream))
    assert len(frames) == 5
    image = frames[2].reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    np.testing.assert_allclose(image[:8, :8].mean((0, 1)), [0xC0, 0x20, 0x10], atol=4)
    assert int(image[32, 32, 1]) > 60


def test_mp4_without_a_background_is_on_white_and_reports_it(track, tmp_path):
    listener = Listener()
    render_track(Blob(), track, tmp_path / "shot.mp4", size=SIZE, fmt="mp4", progress=listener)
    assert len(listener.messages) == 1 and "white" in listener.messages[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"background": "red"}, "#rrggbb"),
        ({"background": "#12345"}, "#rrggbb"),
        ({"fmt": "tiff"}, "png, exr, mp4"),
        ({"fmt": "mp4", "size": 65}, "64 or 66"),
        ({"size": 0}, "choose a size"),
    ],
)
def test_bad_requests_are_refused_with_a_sentence_before_rendering(track, tmp_path, arguments, sentence):
    with pytest.raises(EffigyError, match=re.escape(sentence)):
        render_track(Blob(), track, tmp_path / "shot", **({"size": SIZE} | arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fmt", ["png", "exr", "mp4"])
def test_a_cancelled_render_leaves_the_earlier_one_untouched(track, tmp_path, fmt):
    target = tmp_path / ("shot.mp4" if fmt == "mp4" else "shot")
    render_track(Blob(), track, target, size=SIZE, fmt=fmt)
    before = {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()}
    with pytest.raises(Cancelled):
        render_track(Blob(), track, target, size=32, fmt=fmt, progress=Listener(cancel_at=1))
    assert {p: p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file()} == before


def test_a_folder_with_other_files_is_not_replaced(track, tmp_path):
    (tmp_path / "notes.txt").write_text("keep me")
    with pytest.raises(EffigyError, match="notes.txt"):
        render_track(Blob(), track, tmp_path, size=SIZE)
    assert (tmp_path / "notes.txt").read_text() == "keep me"


def test_export_writes_the_requested_frame_in_head_space(track, tmp_path):
    assert export_frame(Blob(), track, 4, tmp_path / "head.ply") == 1
    splats, _ = read_ply(tmp_path / "head.ply")
    np.testing.assert_allclose(splats.means[0, 0], [0.03, 0, 0], atol=1e-6)
    np.testing.assert_allclose(splats.opacities[0, 0], 0.6, atol=1e-5)
    with pytest.raises(EffigyError, match="0 to 4"):
        export_frame(Blob(), track, 5, tmp_path / "other.ply")
    with pytest.raises(EffigyError, match=r"\.ply"):
        export_frame(Blob(), track, 0, tmp_path / "head.obj")
    assert [p.name for p in tmp_path.iterdir()] == ["head.ply"]


def test_an_export_of_several_frames_numbers_its_files(track, tmp_path):
    first, count = export_frames(Blob(), track, frames_of("1-3"), tmp_path / "head.ply")
    assert (first.name, count) == ("head_0001.ply", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"head_000{k}.ply" for k in (1, 2, 3)]
    splats, _ = read_ply(tmp_path / "head_0003.ply")
    np.testing.assert_allclose(splats.means[0, 0, 0], track.expression[3, 0], atol=1e-6)


def test_frames_that_are_not_there_are_refused_before_a_file_is_written(track, tmp_path):
    for text in ("", "3", "3-1", "a-b", "-3", "1-2-3"):
        with pytest.raises(EffigyError, match="a range such as 10-25"):
            frames_of(text)
    with pytest.raises(EffigyError, match="no frame 5"):
        export_frames(Blob(), track, frames_of("2-5"), tmp_path / "head.glb")
    with pytest.raises(EffigyError, match=r"\.spz or \.glb"):
        export_frames(Blob(), track, frames_of("2-3"), tmp_path / "head.obj")
    assert not list(tmp_path.iterdir())
