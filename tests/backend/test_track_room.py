"""What stays with the room while the head moves is taken from the matte, and nothing of the head."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_capture import make_small_capture

from backend.formats.capture import Capture, load_capture, read_head_matte, read_matte, save_capture
from backend.formats.track import Track
from backend.head.model import HeadModel
from backend.tracking.after.head_matte import make_head_mattes
from backend.tracking.after.room import find_room

SIDE, FRAMES = 160, 16
BOTTLE = slice(50, 110), slice(112, 124)
RNG = np.random.default_rng(0)
SWAYING = np.round(6 * np.sin(np.arange(FRAMES) * 2.3)).astype(int)
HAIR, ROOM = (cv2.GaussianBlur(RNG.uniform(20, 80, (SIDE, SIDE)), (0, 0), 1.5) for _ in range(2))


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Track, HeadModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
        return make_small_capture(tmp_path_factory.mktemp("ball"), frames=FRAMES)


def clip(
    folder: Path,
    ball: tuple[Capture, Track, HeadModel],
    shifts: np.ndarray = SWAYING,
    bottle_moves: bool = False,
    texture: np.ndarray = ROOM,
) -> tuple[Capture, Track]:
    """A head with a shock of textured hair that moves aside by `shifts` pixels, and a textured bottle beside it, which
    the mattes take for hair.
    """
    capture, track, _ = ball
    cameras = np.tile(np.diag([1.0, -1, -1, 1]).astype(np.float32), (FRAMES, 1, 1))
    cameras[:, :3, 3] = np.stack((shifts * 0.6 / 140, 0 * shifts, 0 * shifts + 0.6), 1)
    track = replace(
        track,
        expression=0 * track.expression,
        rotations=0 * track.rotations,
        head_to_camera=cameras,
        intrinsics=np.array([[140, 0, 70], [0, 140, 80], [0, 0, 1]], np.float32),
        size=SIDE,
    )
    capture = replace(capture, folder=folder, size=SIDE, intrinsics=track.intrinsics.astype(np.float64))
    for name in ("frames", "mattes"):
        (folder / name).mkdir(parents=True)
    save_capture(capture)
    for index, shift in enumerate(shifts.tolist()):
        light, matte = np.full((SIDE, SIDE), 150.0), np.zeros((SIDE, SIDE), np.uint8)
        columns = slice(BOTTLE[1].start + shift, BOTTLE[1].stop + shift) if bottle_moves else BOTTLE[1]
        light[BOTTLE[0], columns] = texture[BOTTLE]
        matte[BOTTLE[0], columns] = 255
        hair = cv2.ellipse(np.zeros_like(matte), (70 + shift, 80), (33, 40), 0, 0, 360, 255, -1) > 0
        light[hair], matte[hair] = np.roll(HAIR, shift, 1)[hair], 255
        noisy = light[..., None] + np.random.default_rng(index).normal(0, 1.5, (SIDE, SIDE, 3))
        cv2.imwrite(str(capture.frame_path(index)), noisy.clip(0, 255).astype(np.uint8))
        cv2.imwrite(str(capture.matte_path(index)), matte)
    return load_capture(folder), track


def ever_in_matte(capture: Capture) -> np.ndarray:
    return np.max([read_matte(capture, index) for index in range(FRAMES)], 0) > 0


def test_a_bottle_that_stays_while_the_head_moves_is_of_the_room_and_no_hair_is(tmp_path: Path, ball) -> None:
    capture, track = clip(tmp_path / "c.capture", ball)
    found = find_room(capture, track, ball[2]).where & ever_in_matte(capture)
    assert found[BOTTLE].mean() > 0.9
    found[BOTTLE] = False
    assert not found.any()


FAINT = np.tile(50 + 5 * np.sin(np.arange(SIDE) * np.pi / 4), (SIDE, 1))


@pytest.mark.parametrize(
    "how",
    [
        {"shifts": 0 * SWAYING},
        {"bottle_moves": True},
        {"bottle_moves": True, "texture": FAINT, "shifts": np.where(SWAYING > 3, 2 * SWAYING, 0)},
    ],
    ids=["still", "moves_along", "moves_along_at_times_and_is_faint"],
)
def test_nothing_is_removed_if_the_head_is_still_or_the_bottle_moves_with_it(tmp_path: Path, ball, how) -> None:
    capture, track = clip(tmp_path / "c.capture", ball, **how)
    assert not (find_room(capture, track, ball[2]).where & ever_in_matte(capture)).any()


def test_a_bottle_that_less_than_half_of_the_frames_show_stays(tmp_path: Path, ball) -> None:
    before_it = np.where(np.arange(FRAMES) < 9, 45, 0) + SWAYING // 3
    assert not find_room(*clip(tmp_path / "c.capture", ball, before_it), ball[2]).where[BOTTLE].any()


def test_too_few_good_frames_tell_nothing(tmp_path: Path, ball) -> None:
    capture, track = clip(tmp_path / "c.capture", ball)
    flags = np.ones_like(track.flags)
    flags[:7] = 0
    assert not find_room(capture, replace(track, flags=flags), ball[2]).where.any()
    flags[7] = 0
    assert find_room(capture, replace(track, flags=flags), ball[2]).where.any()


def test_the_room_is_removed_where_a_frame_shows_it_but_not_around_the_mesh_nor_below_the_chin(
    tmp_path: Path, ball
) -> None:
    capture, track = clip(tmp_path / "c.capture", ball)
    room = find_room(capture, track, ball[2])
    frame = room.colors.copy()
    frame[50:60] = 255
    vertices = ball[2].template * (1, -1, -1) + (0, 0, 0.6)
    matte = np.full((SIDE, SIDE), 200, np.uint8)
    cleaned = room.remove_from(matte, frame, vertices, track.intrinsics)
    assert (cleaned[60:102, BOTTLE[1]] == 0).mean() > 0.9 and (cleaned[50:60] == 200).all()
    assert (cleaned[104:] == 200).all()
    hair = ever_in_matte(capture)
    hair[BOTTLE] = False
    assert (cleaned[hair] == 200).all()
    before_the_bottle = vertices + (45 * 0.6 / 140, 0, 0)
    assert (room.remove_from(matte, frame, before_the_bottle, track.intrinsics)[65:95] == 200).all()
    assert (room.remove_from(matte, frame, vertices * np.nan, track.intrinsics) == matte).all()


def test_head_mattes_hold_hair_and_no_bottle(tmp_path: Path, ball) -> None:
    capture, track = clip(tmp_path / "c.capture", ball)
    make_head_mattes(capture, track, ball[2])
    matte = read_head_matte(capture, 3)
    assert not matte[BOTTLE].any() and (matte[45:60, 60:80] > 200).all()
