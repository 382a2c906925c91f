"""A capture is read as it was saved; a missing, damaged or newer one is refused with a sentence."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.errors import EffigyError
from backend.formats.capture import (
    SCHEMA,
    Capture,
    FrameFlag,
    load_capture,
    read_frame,
    read_head_matte,
    read_matte,
    save_capture,
)

FRAMES = 5
SIZE = 16


@pytest.fixture
def capture(tmp_path: Path) -> Capture:
    random = np.random.default_rng(0)
    made = Capture(
        folder=tmp_path / "Zoë.capture",
        source_name="Zoë.mp4",
        source_sha256="ab" * 32,
        size=SIZE,
        fps=Fraction(30000, 1001),
        crop=(-3.0, 4.0, 200.0),
        intrinsics=np.array([[800.0, 0, 250.5], [0, 800, 260], [0, 0, 1]]),
        frame_numbers=np.arange(3, 3 + FRAMES),
        frame_times=np.arange(FRAMES) / 29.97,
        landmarks=random.normal(size=(FRAMES, 478, 3)).astype(np.float32),
        scores=random.random((FRAMES, 52), np.float32),
        detector_pose=random.normal(size=(FRAMES, 4, 4)).astype(np.float32),
        flags=np.array([0, FrameFlag.NO_FACE, 0, FrameFlag.CUT_OFF, 0], np.int32),
    )
    made.landmarks[1] = np.nan
    for path_of, channels in ((made.frame_path, 3), (made.matte_path, 1)):
        path_of(0).parent.mkdir(parents=True)
        for index in range(FRAMES):
            image = random.integers(0, 255, (SIZE, SIZE, channels), np.uint8)
            path_of(index).write_bytes(cv2.imencode(path_of(index).suffix, image)[1].tobytes())
    save_capture(made, {"flagged": ["frame 1: no face"]})
    return made


def test_a_capture_is_read_as_it_was_saved(capture: Capture) -> None:
    loaded = load_capture(capture.folder)
    for name, value in capture.__dict__.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(getattr(loaded, name), value, equal_nan=value.dtype.kind == "f"), name
            assert getattr(loaded, name).dtype == value.dtype, name
        elif name != "seen":
            assert getattr(loaded, name) == value, name
    assert loaded.training_count == 4


def test_capture_json_is_readable_for_people(capture: Capture) -> None:
    info = json.loads((capture.folder / "capture.json").read_text(encoding="utf-8"))
    assert info["fps"] == "30000/1001"
    assert info["source"] == {"name": "Zoë.mp4", "sha256": "ab" * 32}
    assert info["frame_count"] == FRAMES
    assert info["flagged"] == ["frame 1: no face"]


def test_images_are_rgb_and_are_read_at_any_size(capture: Capture) -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    image[..., 2] = 250  # OpenCV writes blue first, so this is red.
    image[:, ::2] = 0
    capture.frame_path(0).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    assert (read_frame(capture, 0)[0, 1] == (250, 0, 0)).all()
    assert read_frame(capture, 0, 8).shape == (8, 8, 3)
    assert (read_frame(capture, 0, 8)[..., 0] == 125).all(), "shrinking averages, it does not skip pixels"
    assert read_frame(capture, 0, 32).shape == (32, 32, 3)
    assert read_matte(capture, 0).shape == (SIZE, SIZE)
    assert read_matte(capture, 0, 4).shape == (4, 4)


def test_a_capture_of_format_1_keeps_its_png_frames(capture: Capture) -> None:
    image = np.random.default_rng(1).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    for index in range(FRAMES):
        capture.frame_path(index).unlink()
        path = capture.folder / "frames" / f"{index:06d}.png"
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    info = json.loads((capture.folder / "capture.json").read_text(encoding="utf-8")) | {"schema": 1}
    del info["frame_suffix"]
    (capture.folder / "capture.json").write_text(json.dumps(info), encoding="utf-8")
    loaded = load_capture(capture.folder)
    assert (read_frame(loaded, 3) == image[..., ::-1]).all()
    save_capture(loaded)
    assert load_capture(capture.folder).frame_path(0) == capture.folder / "frames" / "000000.png"


def test_a_head_matte_before_tracking_is_asked_for_with_a_sentence(capture: Capture) -> None:
    with pytest.raises(EffigyError, match="track the capture first"):
        read_head_matte(capture, 0)


def rewrite(capture: Capture, **changes: object) -> None:
    path = capture.folder / "capture.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        (lambda c: (c.folder / "capture.json").unlink(), "is not a capture"),
        (lambda c: (c.folder / "capture.json").write_text("{"), "capture.json cannot be read"),
        (lambda c: (c.folder / "capture.json").write_text("[]"), "capture.json cannot be read"),
        (lambda c: rewrite(c, schema=SCHEMA + 1), "newer Effigy"),
        (lambda c: rewrite(c, fps="thirty"), "cannot be read"),
        (lambda c: rewrite(c, fps="1/0"), "cannot be read"),
        (lambda c: rewrite(c, crop=None), "cannot be read"),
        (lambda c: rewrite(c, frame_suffix="/../../x.png"), "cannot be read"),
        (lambda c: rewrite(c, frame_count=FRAMES + 1), "does not fit"),
        (lambda c: (c.folder / "landmarks.npz").unlink(), "landmarks.npz is missing"),
        (lambda c: (c.folder / "landmarks.npz").write_bytes(b"PK no archive"), "cut short or no archive"),
        (lambda c: os.truncate(c.folder / "landmarks.npz", 500), "cut short or no archive"),
        (lambda c: np.savez(c.folder / "landmarks.npz", landmarks=np.array([print], object)), "Python objects"),
    ],
)
def test_a_damaged_capture_is_refused_with_a_sentence(capture: Capture, break_it, sentence: str) -> None:
    break_it(capture)
    with pytest.raises(EffigyError, match=sentence) as refusal:
        load_capture(capture.folder)
    assert "\n" not in str(refusal.value)


def test_a_missing_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EffigyError, match="python -m backend capture"):
        load_capture(tmp_path / "none.capture")


def test_a_missing_and_a_damaged_image_are_refused_with_a_sentence(capture: Capture) -> None:
    capture.frame_path(0).unlink()
    capture.matte_path(1).write_bytes(b"not an image")
    capture.matte_path(2).write_bytes(b"")
    for read in (lambda: read_frame(capture, 0), lambda: read_matte(capture, 1), lambda: read_matte(capture, 2)):
        with pytest.raises(EffigyError, match="make the capture again"):
            read()
