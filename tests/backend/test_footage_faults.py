"""Difficult footage from the video file to the track: a face that leaves, two people, black frames, unusual frame
rates, a phone held upright, cuts. The clips are edited from small frames of the bundled clip.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from footage_clips import write_clip

from backend.assets import asset_path
from backend.footage.build import make_capture
from backend.footage.matte import MattingModel
from backend.formats.capture import Capture, FrameFlag
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.tracking.observe.shot_cuts import find_cuts
from backend.tracking.pipeline import track_capture, track_captures

SIDE = 256
"""Side of the clip's frames, pixels."""
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


def capture_and_track(
    folder: Path, images: list[np.ndarray], size: int = 192, **options: object
) -> tuple[Capture, Track]:
    """A clip of `images`, captured and tracked as the commands do."""
    capture = make_capture(write_clip(folder / "clip.mp4", images, **options), folder / "clip.capture", size=size)
    return capture, track_capture(capture, load_head())


def reliable_frames(track: Track) -> np.ndarray:
    return np.flatnonzero(track.flags == 0)


def check_sane(track: Track) -> None:
    """Every frame has a finite pose before the camera, and the reliable frames have a small residual."""
    for name in ("expression", "rotations", "head_to_camera"):
        assert np.isfinite(getattr(track, name)).all(), name
    assert (track.head_to_camera[:, 2, 3] > 0.1).all()
    assert np.median(track.residual[reliable_frames(track)]) < 3 * track.size / 512 + 0.5


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
    capture, track = capture_and_track(tmp_path, images)
    assert (capture.flags[16:29] & FrameFlag.NO_FACE).all()
    assert set(range(8)) | set(range(38, 45)) <= set(reliable_frames(track).tolist())
    assert not set(range(15, 30)) & set(reliable_frames(track).tolist())
    check_sane(track)


def test_two_people_who_cross_stay_two_and_shared_frames_are_left_out(heads, tmp_path):
    small, wide = 150, 2 * SIDE
    matting = MattingModel()
    images = []
    for index in range(72):
        canvas = np.full((SIDE, wide, 3), 90, np.uint8)
        # A second person walks past behind the one in the middle, from beyond one edge to beyond the other.
        if 12 <= index < 60:
            other = cv2.resize(heads[119 - index][:, ::-1], (small, small))
            _paste(canvas, other, matting.matte(other), round(-small + (index - 12) / 47 * (wide + small)))
        _paste(canvas, heads[index], matting.matte(heads[index]), (wide - SIDE) // 2)
        images.append(canvas)
    matting.close()
    capture, track = capture_and_track(tmp_path, images)
    several = np.flatnonzero(capture.flags & FrameFlag.SEVERAL_FACES)
    assert len(several) >= 8 and several.min() >= 12 and several.max() < 60
    assert not set(several.tolist()) & set(reliable_frames(track).tolist())
    # Before and after there is only one person.
    assert {*range(10), *range(62, 72)} <= set(reliable_frames(track).tolist())
    # The landmarks stay on the same person throughout.
    middle = np.nanmean(capture.landmarks[..., :2], 1)
    assert np.nanmax(np.linalg.norm(np.diff(middle, axis=0), axis=1)) < 0.05 * capture.size
    check_sane(track)


def _paste(canvas: np.ndarray, image: np.ndarray, matte: np.ndarray, left: int) -> None:
    """Blend an image onto the canvas at its lower edge; columns beyond the canvas are dropped."""
    height, width = matte.shape
    first, last = max(left, 0), min(left + width, canvas.shape[1])
    if first >= last:
        return
    share = matte[:, first - left : last - left, None] / 255
    below = canvas[-height:, first:last]
    below[:] = (share * image[:, first - left : last - left] + (1 - share) * below).round().astype(np.uint8)


def test_a_black_second_is_left_out_and_both_sides_are_tracked(heads, tmp_path):
    images = [*heads[:20], *[np.zeros_like(PLAIN)] * 30, *heads[20:40]]
    capture, track = capture_and_track(tmp_path, images)
    assert (capture.flags[20:50] & FrameFlag.NO_FACE).all() and np.isnan(track.residual[20:50]).all()
    assert len(reliable_frames(track)) >= 38 and not set(range(20, 50)) & set(reliable_frames(track).tolist())
    check_sane(track)


@pytest.mark.parametrize("rate", [15, 120])
def test_slow_and_fast_rates_keep_their_time(heads, tmp_path, rate):
    images = heads[0:90:3] if rate == 15 else [frame for frame in heads[:24] for _ in range(2)]
    capture, track = capture_and_track(tmp_path, images, times=[index / rate for index in range(len(images))])
    # The writer gives the last frame another length, so that the mean rate is a little off.
    assert capture.fps == track.fps == pytest.approx(rate, rel=0.08) and track.frame_count == len(images)
    assert len(reliable_frames(track)) == len(images)
    check_sane(track)


def test_a_telephone_held_upright_gives_an_upright_head(heads, tmp_path):
    upright = [
        np.concatenate((np.full((90, SIDE, 3), 90, np.uint8), frame, np.full((90, SIDE, 3), 60, np.uint8)))
        for frame in heads[:20]
    ]
    capture, track = capture_and_track(
        tmp_path, [np.ascontiguousarray(np.rot90(frame, -1)) for frame in upright], rotation=90
    )
    if len(reliable_frames(track)) == 0 or track.head_to_camera[0, 1, 1] > 0:
        pytest.fail("the image was not rotated")
    assert len(reliable_frames(track)) == 20
    check_sane(track)


def test_sixty_frames_are_enough(heads, tmp_path):
    _, track = capture_and_track(tmp_path, heads[:60])
    assert len(reliable_frames(track)) == 60 and track.training_count == 48
    check_sane(track)


def test_cuts_are_found_and_nothing_is_smoothed_across_them(heads, tmp_path, monkeypatch):
    closer = [cv2.resize(frame[20:210, 10:200], (SIDE, SIDE)) for frame in heads[60:75]]
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in heads[100:115]]
    capture, track = capture_and_track(tmp_path, [*heads[:15], *closer, *mirrored])
    cuts = find_cuts(capture)
    assert list(cuts) == [15, 30]
    assert len(reliable_frames(track)) == 45
    check_sane(track)
    # Without cuts, smoothing would pull the frames at the ends of the shots towards each other.
    monkeypatch.setattr("backend.tracking.prepared_clip.find_cuts", lambda capture: np.zeros(0, np.int64))
    glued = track_capture(capture, load_head())
    ends = [14, 15, 29, 30]
    assert np.mean(track.residual[ends]) <= np.mean(glued.residual[ends]) + 0.02


def test_landmarks_that_jump_while_the_image_stays_the_same_are_no_cut(heads, tmp_path):
    capture = make_capture(write_clip(tmp_path / "clip.mp4", heads[:24]), tmp_path / "clip.capture", size=192)
    landmarks = capture.landmarks.copy()
    landmarks[12:, :, 0] += 0.2 * np.ptp(landmarks[12, :, 1])
    assert len(find_cuts(dataclasses.replace(capture, landmarks=landmarks))) == 0


def test_a_clip_without_cuts_has_none_nor_has_one_whose_frames_were_repeated(heads, tmp_path):
    images = [frame for frame in heads[:60:2] for _ in range(2)]
    capture = make_capture(write_clip(tmp_path / "clip.mp4", images), tmp_path / "clip.capture", size=192)
    assert len(find_cuts(capture)) == 0
