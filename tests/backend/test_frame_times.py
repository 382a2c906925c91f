"""The time of a frame is what the video file says, not its index: telephones change their frame rate."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from footage_clips import write_clip
from small_capture import make_small_capture

from backend.footage.decode import probe, read_frames
from backend.formats.frame_times import are_even, nominal_rate
from backend.formats.image_files import Mp4
from backend.formats.track import load_track, save_track
from backend.retargeting.retarget import retarget
from backend.service.parameters import Parameters
from backend.service.rig_data import read_track

DIM = [i / 30 for i in range(120)] + [4 + i / 15 for i in range(60)]
"""Seconds; a telephone that falls from 30 to 15 frames a second."""
GAP = [i / 30 for i in range(30)] + [4 + i / 15 for i in range(15)]
JITTER = np.cumsum([0] + [1 / 60 if i % 2 else 1 / 20 for i in range(59)]).tolist()


@pytest.mark.parametrize(
    ("times", "average", "expected"),
    [
        (DIM, Fraction(45, 2), 30),
        (GAP, Fraction(9), 30),
        (JITTER, Fraction(30), 60),
        ([i * 1001 / 24000 for i in range(40)] + [9.0], Fraction(5), Fraction(24000, 1001)),
        ([0.0, 0.0, 0.0], Fraction(25), 25),
    ],
)
def test_the_rate_of_a_variable_clip_is_that_of_its_short_intervals(times, average, expected):
    assert nominal_rate(np.array(times), average) == expected


def test_times_rounded_to_milliseconds_are_those_of_a_constant_rate():
    times = np.round(np.arange(600) / 29.97, 3) + 0.02
    assert are_even(times, Fraction(2997, 100))
    assert nominal_rate(times, Fraction(2997, 100)) == Fraction(2997, 100)
    times[300:] += 0.02
    assert not are_even(times, Fraction(2997, 100))


@pytest.mark.parametrize("times", [DIM[100:140], GAP])
def test_first_and_last_frame_are_numbers_of_the_footage_itself(tmp_path, times):
    images = [np.full((48, 64, 3), 5 * index, np.uint8) for index in range(len(times))]
    clip = write_clip(tmp_path / "clip.mp4", images, times=times)
    frames = list(read_frames(clip, first_frame=26, last_frame=33))
    assert [frame.number + 1 for frame in frames] == list(range(26, 34))
    assert [round(float(frame.image.mean()) / 5) for frame in frames] == list(range(25, 33))
    np.testing.assert_allclose([frame.time for frame in frames], np.array(times[25:33]) - times[0], atol=2e-3)
    assert len(list(read_frames(clip, first_frame=26, last_frame=33, max_frames=3))) == 3
    assert list(read_frames(clip, first_frame=len(times) + 1)) == []


def test_a_track_keeps_the_times_of_its_frames_and_older_ones_get_those_of_their_capture(tmp_path):
    capture, track, _ = make_small_capture(tmp_path)
    count = track.frame_count
    uneven = np.array(GAP[10 : 10 + count])
    path = tmp_path / "new.npz"
    save_track(replace(track, fps=Fraction(30), frame_times=uneven), path)
    loaded = load_track(path)
    np.testing.assert_allclose(loaded.times, uneven - uneven[0])
    save_track(replace(track, frame_times=None), capture.folder / "track.npz")
    landmarks = dict(np.load(capture.folder / "landmarks.npz"))
    np.savez(capture.folder / "landmarks.npz", **(landmarks | {"frame_times": uneven}))
    answer = read_track(Parameters({"path": str(capture.folder / "track.npz")}, "track.read"))
    np.testing.assert_allclose(answer["times"], uneven - uneven[0])
    # In a damaged film the third frame claims to lie 5 s before the second.
    back = uneven.copy()
    back[2] = back[1] - 5
    np.savez(capture.folder / "landmarks.npz", **(landmarks | {"frame_times": back}))
    answer = read_track(Parameters({"path": str(capture.folder / "track.npz")}, "track.read"))
    assert answer["times"][2] == answer["times"][1] and (np.diff(answer["times"]) >= 0).all()
    # A track that does not lie in a capture follows its rate.
    save_track(replace(track, frame_times=None), path)
    answer = read_track(Parameters({"path": str(path)}, "track.read"))
    np.testing.assert_allclose(answer["times"], np.arange(count) / float(track.fps))


def test_a_transferred_performance_keeps_its_timing(tmp_path):
    """A smile half a second after a gap of three seconds is half a second after it on the other head too."""
    _, track, model = make_small_capture(tmp_path)
    expression = np.zeros((len(GAP), track.expression.shape[1]), np.float32)
    expression[30 + 8, 0] = 1
    still = {
        name: np.repeat(getattr(track, name)[:1], len(GAP), 0)
        for name in ("rotations", "head_to_camera", "residual", "flags")
    }
    performance = replace(
        track, expression=expression, fps=Fraction(30), frame_times=np.array(GAP), sigma=None, **still
    )
    made = retarget(performance, model, track, model, fps=Fraction(24))
    assert made.frame_count == round(GAP[-1] * 24) + 1
    assert abs(np.abs(made.expression[:, 0]).argmax() - GAP[38] * 24) <= 0.5
    assert made.uneven_times is None


def test_a_film_of_a_variable_rate_shows_its_frames_at_their_times(tmp_path):
    times = np.array(GAP)
    writer = Mp4(tmp_path / "film.mp4", 64, Fraction(30), times)
    for index in range(len(times)):
        writer.write(np.full((64, 64, 3), index / 60, np.float32), np.ones((64, 64), np.float32), np.empty(0), None)
    writer.close()
    np.testing.assert_allclose([frame.time for frame in read_frames(tmp_path / "film.mp4")], times, atol=2e-3)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert abs(container.duration / av.time_base - times[-1]) < 0.2
    assert probe(tmp_path / "film.mp4").width == 64
