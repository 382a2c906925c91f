"""Footage as it comes, all the way from a video file to a track: a face that leaves, two people, black, odd rates, a
telephone held upright, cuts. The bundled clip, cut up and glued together anew, small.
"""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from footage_clips import write_clip

from backend.assets import asset_path
from backend.footage.build import make_capture
from backend.footage.matte import Matter
from backend.formats.capture import Capture, FrameFlag
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.tracking.observe.shot_cuts import find_cuts
from backend.tracking.pipeline import track_capture, track_captures

SIDE = 256
"""Of the clip's frames here."""
PLAIN = np.full((SIDE, SIDE, 3), 90, np.uint8)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def heads() -> list[np.ndarray]:
    """The first 120 frames of the bundled clip, (SIDE, SIDE, 3)."""
    frames = []
    with av.open(str(asset_path("demo.mp4"))) as film:
        for frame in film.decode(video=0):
            frames.append(cv2.resize(frame.to_ndarray(format="rgb24"), (SIDE, SIDE), interpolation=cv2.INTER_AREA))
            if len(frames) == 120:
                return frames
    raise AssertionError("the bundled clip is shorter than it was")


def taken(folder: Path, images: list[np.ndarray], size: int = 192, **options: object) -> tuple[Capture, Track]:
    """Captured and tracked, as the commands do it."""
    capture = make_capture(write_clip(folder / "clip.mp4", images, **options), folder / "clip.capture", size=size)
    return capture, track_capture(capture, load_head())


def sure(track: Track) -> np.ndarray:
    return np.flatnonzero(track.flags == 0)


def check_sane(track: Track) -> None:
    """Every frame has a finite pose before the camera, and what counts as sure is explained."""
    for name in ("expression", "rotations", "head_to_camera"):
        assert np.isfinite(getattr(track, name)).all(), name
    assert (track.head_to_camera[:, 2, 3] > 0.1).all()
    assert np.median(track.residual[sure(track)]) < 3 * track.size / 512 + 0.5


def test_photographs_of_one_person_are_tracked_together(heads, tmp_path):
    captures = []
    for index in (5, 60, 110):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), cv2.cvtColor(heads[index], cv2.COLOR_RGB2BGR))
        captures.append(make_capture(tmp_path / f"{index}.jpg", tmp_path / f"{index}.capture", size=192))
    tracks = track_captures(captures, load_head())
    for track in tracks:
        assert track.frame_count == track.training_count == 1
        assert np.array_equal(track.identity, tracks[0].identity)
        assert np.isfinite(track.sigma).all()
        check_sane(track)


def test_a_face_that_leaves_and_returns_is_bridged_and_left_out_meanwhile(heads, tmp_path):
    images = []
    for index in range(45):
        away = (
            SIDE
            if 15 <= index < 30
            else round(SIDE * np.clip(max((index - 9) / 6, 0) if index < 15 else (36 - index) / 6, 0, 1))
        )
        wide = np.concatenate((heads[index], PLAIN), 1)
        images.append(np.roll(wide, -away, 1)[:, :SIDE] if away < SIDE else PLAIN)
    capture, track = taken(tmp_path, images)
    assert (capture.flags[16:29] & FrameFlag.NO_FACE).all()
    assert set(range(8)) | set(range(38, 45)) <= set(sure(track).tolist())
    assert not set(range(15, 30)) & set(sure(track).tolist())
    check_sane(track)


def test_two_people_who_cross_stay_two_and_shared_frames_are_left_out(heads, tmp_path):
    small, wide = 150, 2 * SIDE
    matter = Matter()
    images = []
    for index in range(72):
        canvas = np.full((SIDE, wide, 3), 90, np.uint8)
        # The other walks by behind the one who stands in the middle, from beyond one edge to beyond the other.
        if 12 <= index < 60:
            other = cv2.resize(heads[119 - index][:, ::-1], (small, small))
            _paste(canvas, other, matter.matte(other), round(-small + (index - 12) / 47 * (wide + small)))
        _paste(canvas, heads[index], matter.matte(heads[index]), (wide - SIDE) // 2)
        images.append(canvas)
    matter.close()
    capture, track = taken(tmp_path, images)
    several = np.flatnonzero(capture.flags & FrameFlag.SEVERAL_FACES)
    assert len(several) >= 8 and several.min() >= 12 and several.max() < 60
    assert not set(several.tolist()) & set(sure(track).tolist())
    # Before and after nobody else is there.
    assert {*range(10), *range(62, 72)} <= set(sure(track).tolist())
    # It is the same person throughout: nobody jumps.
    middle = np.nanmean(capture.landmarks[..., :2], 1)
    assert np.nanmax(np.linalg.norm(np.diff(middle, axis=0), axis=1)) < 0.05 * capture.size
    check_sane(track)


def _paste(canvas: np.ndarray, picture: np.ndarray, matte: np.ndarray, left: int) -> None:
    """Onto the canvas's lower edge, where it is on the canvas."""
    height, width = matte.shape
    first, last = max(left, 0), min(left + width, canvas.shape[1])
    if first >= last:
        return
    share = matte[:, first - left : last - left, None] / 255
    below = canvas[-height:, first:last]
    below[:] = (share * picture[:, first - left : last - left] + (1 - share) * below).round().astype(np.uint8)


def test_a_black_second_is_left_out_and_both_sides_are_tracked(heads, tmp_path):
    images = [*heads[:20], *[np.zeros_like(PLAIN)] * 30, *heads[20:40]]
    capture, track = taken(tmp_path, images)
    assert (capture.flags[20:50] & FrameFlag.NO_FACE).all() and np.isnan(track.residual[20:50]).all()
    assert len(sure(track)) >= 38 and not set(range(20, 50)) & set(sure(track).tolist())
    check_sane(track)


@pytest.mark.parametrize("rate", [15, 120])
def test_slow_and_fast_rates_keep_their_time(heads, tmp_path, rate):
    images = heads[0:90:3] if rate == 15 else [frame for frame in heads[:24] for _ in range(2)]
    capture, track = taken(tmp_path, images, times=[index / rate for index in range(len(images))])
    # The writer gives the last frame another length, so that the mean rate is a little off.
    assert capture.fps == track.fps == pytest.approx(rate, rel=0.08) and track.frame_count == len(images)
    assert len(sure(track)) == len(images)
    check_sane(track)


def test_a_telephone_held_upright_gives_an_upright_head(heads, tmp_path):
    upright = [
        np.concatenate((np.full((90, SIDE, 3), 90, np.uint8), frame, np.full((90, SIDE, 3), 60, np.uint8)))
        for frame in heads[:20]
    ]
    capture, track = taken(tmp_path, [np.ascontiguousarray(np.rot90(frame, -1)) for frame in upright], rotation=90)
    if len(sure(track)) == 0 or track.head_to_camera[0, 1, 1] > 0:
        pytest.fail("the picture was not turned")
    assert len(sure(track)) == 20
    check_sane(track)


def test_sixty_frames_are_enough(heads, tmp_path):
    _, track = taken(tmp_path, heads[:60])
    assert len(sure(track)) == 60 and track.training_count == 48
    check_sane(track)


def test_cuts_are_found_and_nothing_is_smoothed_across_them(heads, tmp_path, monkeypatch):
    closer = [cv2.resize(frame[20:210, 10:200], (SIDE, SIDE)) for frame in heads[60:75]]
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in heads[100:115]]
    capture, track = taken(tmp_path, [*heads[:15], *closer, *mirrored])
    cuts = find_cuts(capture)
    assert list(cuts) == [15, 30]
    assert len(sure(track)) == 45
    check_sane(track)
    # As one shot its ends would be drawn towards each other.
    monkeypatch.setattr("backend.tracking.pipeline.find_cuts", lambda capture: np.zeros(0, np.int64))
    glued = track_capture(capture, load_head())
    ends = [14, 15, 29, 30]
    assert np.mean(track.residual[ends]) <= np.mean(glued.residual[ends]) + 0.02


def test_a_clip_without_cuts_has_none_nor_has_one_whose_frames_were_repeated(heads, tmp_path):
    images = [frame for frame in heads[:60:2] for _ in range(2)]
    capture = make_capture(write_clip(tmp_path / "clip.mp4", images), tmp_path / "clip.capture", size=192)
    assert len(find_cuts(capture)) == 0
