"""The clean plate removes background from the matte and no part of the person."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.footage.plate import find_plate, open_by_ellipse
from backend.formats.capture import Capture, save_capture

SIDE = 128
FRAMES = 12
HAIR, LINE, WALL = (40, 34, 30), (44, 40, 38), (225, 220, 205)
LINE_COLUMNS = slice(80, 84)
HEAD_BOTTOM = 70


def head_at(shift: int) -> np.ndarray:
    """(SIDE, SIDE) uint8: a dark head that ends above the image's lower part, with a strand of hair on its left."""
    matte = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(matte, (64 + shift, 40), (30, HEAD_BOTTOM - 40), 0, 0, 360, 255, -1)
    cv2.line(matte, (46 + shift, 60), (44 + shift, 92), 255, 2)
    return matte


def make_clip(folder: Path, moving_camera: bool = False) -> Capture:
    """Frames and mattes of a head before a wall with a dark upright line, which the mattes take for hair below the
    head.
    """
    (folder / "frames").mkdir(parents=True)
    (folder / "mattes").mkdir()
    random = np.random.default_rng(0)
    for index in range(FRAMES):
        frame = np.full((SIDE, SIDE, 3), WALL, np.uint8)
        frame[:, LINE_COLUMNS] = LINE
        if moving_camera:
            frame = random.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
        head = head_at(index % 3)
        frame[head > 0] = HAIR
        matte = head.copy()
        matte[50 : HEAD_BOTTOM + 14, LINE_COLUMNS] = 255
        cv2.imwrite(str(folder / "frames" / f"{index:06d}.png"), frame[..., ::-1])
        cv2.imwrite(str(folder / "mattes" / f"{index:06d}.png"), matte)
    capture = Capture(
        folder=folder,
        source_name="clip.mp4",
        source_sha256="0" * 64,
        size=SIDE,
        fps=Fraction(25),
        crop=(0.0, 0.0, float(SIDE)),
        intrinsics=np.array([[280.0, 0, 64], [0, 280.0, 64], [0, 0, 1]]),
        frame_numbers=np.arange(FRAMES),
        frame_times=np.arange(FRAMES) / 25,
        landmarks=np.zeros((FRAMES, 478, 3), np.float32),
        scores=np.zeros((FRAMES, 52), np.float32),
        detector_pose=np.tile(np.eye(4, dtype=np.float32), (FRAMES, 1, 1)),
        flags=np.zeros(FRAMES, np.int32),
        frame_suffix=".png",
    )
    save_capture(capture, {})
    return capture


def cleaned(capture: Capture, index: int) -> np.ndarray:
    frame = cv2.imread(str(capture.folder / "frames" / f"{index:06d}.png"))[..., ::-1]
    matte = cv2.imread(str(capture.folder / "mattes" / f"{index:06d}.png"), cv2.IMREAD_GRAYSCALE)
    return find_plate(capture).remove_from(matte, frame)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_the_edge_of_a_picture_on_the_wall_is_no_hair(tmp_path, index):
    matte = cleaned(make_clip(tmp_path / "c.capture"), index)
    below = matte[HEAD_BOTTOM + 4 : HEAD_BOTTOM + 14, LINE_COLUMNS]
    assert below.max() == 0


def test_a_strand_of_hair_that_differs_from_the_wall_stays(tmp_path):
    matte = cleaned(make_clip(tmp_path / "c.capture"), 0)
    assert (matte[75:90, 40:50].max(1) == 255).all()


def test_hair_before_the_line_stays_though_it_has_the_same_colour(tmp_path):
    matte = cleaned(make_clip(tmp_path / "c.capture"), 0)
    assert matte[25:50, LINE_COLUMNS].min() == 255


@pytest.mark.parametrize(("seen", "known"), [(3, True), (2, False)])
def test_a_pixel_is_known_that_three_frames_show_without_the_person(tmp_path, seen, known):
    capture = make_clip(tmp_path / "clip.capture")
    for index in range(FRAMES - seen):
        path = str(capture.matte_path(index))
        matte = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
        matte[100:120, 10:30] = 255
        cv2.imwrite(path, matte)
    plate = find_plate(capture)
    # The first of its layers is what the frames themselves show; the others are extrapolated.
    assert bool(plate.known[0, 110, 20]) is known and plate.known[0, 110, 110]


def test_nothing_is_taken_where_the_background_moves(tmp_path):
    capture = make_clip(tmp_path / "c.capture", moving_camera=True)
    before = cv2.imread(str(capture.folder / "mattes" / "000000.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(cleaned(capture, 0), before)


@pytest.mark.parametrize("width", [1, 5, 21, 41])
def test_the_opening_by_rectangles_is_the_ellipse_s(width):
    random = np.random.default_rng(width)
    image = cv2.GaussianBlur(random.integers(0, 255, (150, 130)).astype(np.uint8), (0, 0), 4)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    assert (open_by_ellipse(image, width) == cv2.morphologyEx(image, cv2.MORPH_OPEN, ellipse)).all()
