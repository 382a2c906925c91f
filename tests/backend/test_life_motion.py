"""The moments of blinks, eye movements and breaths, which are drawn in Blender's Python."""

from __future__ import annotations

import numpy as np
import pytest

from blender_addon.rig import life_motion as life

RATE = 24.0


def test_blinks_come_as_often_as_asked_and_the_same_for_the_same_seed():
    times = life.blink_times(0, 600, 15, 0.0, 3)
    assert len(times) == pytest.approx(150, rel=0.15) and (np.diff(times) >= 0.6).all()
    assert np.array_equal(times, life.blink_times(0, 600, 15, 0.0, 3))
    assert not np.array_equal(times, life.blink_times(0, 600, 15, 0.0, 4))
    # No beat: people do not blink like a clock.
    assert np.diff(times).std() > 1
    double = life.blink_times(0, 600, 15, 0.2, 3)
    assert ((np.diff(double) < 0.5).sum()) == pytest.approx(30, abs=12)
    assert len(life.blink_times(0, 600, 0, 0.0, 3)) == 0


def test_a_blink_belongs_to_each_jump_of_the_gaze_and_none_to_lids_that_are_shut_already():
    jumps, busy = np.array((3.0, 9.5)), np.array(((5.0, 8.0),))
    times = life.blink_times(0, 20, 30, 0.0, 1, jumps, busy)
    assert set(jumps) <= set(times)
    assert not ((times + 0.35 > 5) & (times < 8)).any()
    assert list(life.blink_times(0, 20, 0, 0.0, 1, jumps)) == [3.0, 9.5]


@pytest.mark.parametrize("rate", [12.0, 24.0, 60.0])
def test_every_blink_is_shut_in_a_whole_frame(rate):
    times = life.blink_times(0, 60, 20, 0.3, 2)
    frames, shut = life.blink_keys(times, rate)
    assert (np.diff(frames) > 0).all() and shut[0] == shut[-1] == 0
    seen = np.interp(np.arange(60 * rate), frames, shut)
    for time in times:
        assert seen[int(time * rate) : int((time + 0.5) * rate) + 1].max() == pytest.approx(1)


def test_jumps_of_the_gaze_are_found_and_slow_turns_are_not():
    times = np.arange(0, 10, 1 / RATE)
    gaze = np.zeros((len(times), 2))
    gaze[times >= 4, 0] = 0.3
    gaze[:, 1] = 0.1 * times
    found = life.gaze_jumps(times, gaze, np.radians(10))
    assert len(found) == 1 and found[0] == pytest.approx(4, abs=0.1)
    assert len(life.gaze_jumps(times[:1], gaze[:1], 0.1)) == 0


def test_shut_lids_are_found_with_a_margin():
    times = np.arange(0, 4, 1 / RATE)
    shut = np.where((times > 1) & (times < 1.5), 0.8, 0.1)
    ((begin, end),) = life.shut_intervals(times, shut)
    assert begin == pytest.approx(0.7, abs=0.06) and end == pytest.approx(1.8, abs=0.06)
    # Lids that always hang are no blink.
    assert len(life.shut_intervals(times, np.full(len(times), 0.55))) == 0


def test_resting_eyes_jump_about_their_place_and_come_back():
    times, places = life.saccades(0, 200, 1.2, np.radians(0.6), 5)
    assert len(times) == pytest.approx(240, rel=0.2) and (np.diff(times) >= 0.14).all() and np.diff(times).max() < 4
    assert (places[[0, -1]] == 0).all() and (times[0], times[-1]) == (0, 200)
    assert (
        np.degrees(places[:, 0]).std() == pytest.approx(0.6, rel=0.2) and np.abs(np.degrees(places.mean(0))).max() < 0.2
    )


def test_a_breath_rises_faster_than_it_falls_and_both_ends_are_empty():
    times, full = life.breaths(1, 61, 15, 3)
    assert (times[0], times[-1], full[0], full[-1]) == (1, 61, 0, 0)
    assert (full > 0).sum() == pytest.approx(14, abs=2)
    rises = np.diff(times)[np.diff(full) > 0]
    falls = np.diff(times)[np.diff(full) < 0]
    assert rises.mean() < 0.8 * falls.mean() and rises.std() > 0.05
    assert len(life.breaths(1, 2, 15, 3)[0]) == 2


def test_a_short_clip_whose_own_blinks_leave_no_random_moment_free_gets_one_in_its_longest_gap():
    busy = np.array([[1.0, 2.0], [6.0, 9.5]])
    (time,) = life.blink_in_longest_gap(0.0, 10.0, busy)
    length = life.SHUT + life.HELD + life.OPENS
    assert time > 2.0 and time + length < 6.0 and abs(time + length / 2 - 4.0) < 1e-9
    (alone,) = life.blink_in_longest_gap(0.0, 10.0, np.zeros((0, 2)))
    assert abs(alone + length / 2 - 5.0) < 1e-9
    assert not len(life.blink_in_longest_gap(0.0, 1.0, np.array([[0.2, 0.8]])))
