"""Fitting few keys to a curve, and the filters of a performance's clean-up, which run in Blender's Python."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import savgol_filter

from blender_addon.rig.curve_filters import bridged, find_spikes, one_euro, savitzky_golay, soft_range
from blender_addon.rig.curve_fit import fit_keys, handles_of

FRAMES = np.arange(200.0)


def speech(columns: int = 1, noise: float = 0.0) -> np.ndarray:
    """(200, C) curves as those of a mouth that talks, in millimetres."""
    random = np.random.default_rng(3)
    phases = random.uniform(0, 6, columns)
    curves = 4 * np.sin(FRAMES[:, None] / 9 + phases) * np.sin(FRAMES[:, None] / 31 + phases)
    return curves + random.normal(0, noise, curves.shape)


def bezier(frames: np.ndarray, values: np.ndarray, slopes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(F,) a Bézier curve with the handles of `handles_of`, by de Casteljau's algorithm."""
    left, right = handles_of(frames, values, slopes)
    points = np.stack((frames, values), 1)
    result = []
    for moment in at:
        index = min(int(np.searchsorted(frames, moment, side="right")) - 1, len(frames) - 2)
        polygon = np.array((points[index], right[index], left[index + 1], points[index + 1]))
        share = (moment - frames[index]) / (frames[index + 1] - frames[index])
        while len(polygon) > 1:
            polygon = polygon[:-1] + share * (polygon[1:] - polygon[:-1])
        assert polygon[0, 0] == pytest.approx(moment)
        result.append(polygon[0, 1])
    return np.array(result)


@pytest.mark.parametrize("tolerance", [0.02, 0.2])
def test_few_keys_stay_within_the_tolerance_of_all(tolerance):
    values = speech(4)
    fit = fit_keys(FRAMES, values, tolerance)
    assert fit.kept[0] == 0 and fit.kept[-1] == 199 and len(fit.kept) < 200 / 5
    assert fit.errors.max() <= tolerance
    # What the report says is what Blender's curves do.
    kept = FRAMES[fit.kept]
    drawn = [bezier(kept, values[fit.kept, c], fit.slopes[:, c], FRAMES) for c in range(4)]
    assert np.allclose(np.linalg.norm(np.stack(drawn, 1) - values, axis=1), fit.errors, atol=1e-9)


def test_keys_that_the_tolerance_does_not_need_are_removed():
    """A cubic needs none but its ends; a larger tolerance never needs more keys."""
    cubic = (FRAMES[:, None] / 100 - 1) ** 3
    assert len(fit_keys(FRAMES, cubic, 1e-6).kept) == 2
    noisy = speech(1, 0.05)
    counts = [len(fit_keys(FRAMES, noisy, tolerance).kept) for tolerance in (0.05, 0.1, 0.2, 0.4)]
    assert counts == sorted(counts, reverse=True) and counts[0] > 3 * counts[-1]


def test_a_curve_of_one_or_two_keys_stays():
    for count in (1, 2):
        assert len(fit_keys(FRAMES[:count], speech()[:count], 1.0).kept) == count
        assert len(handles_of(FRAMES[:count], np.zeros(count), np.zeros(count))[0]) == count


def test_savitzky_golay_is_that_of_scipy_and_takes_uneven_times():
    values = speech(3, 0.3)
    for window, order in ((7, 2), (11, 3)):
        ours = savitzky_golay(FRAMES, values, window, order)
        assert np.allclose(ours, savgol_filter(values, window, order, axis=0), atol=1e-9)
    uneven = np.sort(np.random.default_rng(1).uniform(0, 100, 60))
    parabola = (0.01 * uneven**2 - uneven)[:, None]
    assert np.allclose(savitzky_golay(uneven, parabola, 9, 2), parabola, atol=1e-8)


def test_one_euro_smooths_a_face_at_rest_keeps_a_fast_one_and_lags_nowhere():
    random = np.random.default_rng(2)
    still = random.normal(0, 0.3, (200, 1))
    step = np.where(FRAMES < 100, 0.0, 20.0)[:, None] + random.normal(0, 0.3, (200, 1))
    starts = np.array((0, 1))
    smooth = one_euro(FRAMES / 25, np.c_[still, step], starts, 1.0, 0.2)
    assert np.diff(smooth[:, 0]).std() < 0.35 * np.diff(still[:, 0]).std()
    assert abs(smooth[102, 1] - 20) < 3 and abs(smooth[97, 1]) < 3
    # The same backwards: a causal filter would be late.
    assert np.allclose(one_euro(FRAMES / 25, step[::-1], starts[:1], 1.0, 0.2)[::-1, 0], smooth[:, 1], atol=1e-9)


def test_a_planted_spike_is_found_and_bridged_and_a_blink_is_not():
    values = speech(5, 0.05)
    truth = values.copy()
    values[60, 0] += 4
    values[120:122, 2:5] += (2, -2, 2)
    blink = np.zeros(200)
    blink[30:36] = 3, 8, 8, 6, 4, 2
    values = np.c_[values, blink]
    starts = np.array((0, 1, 2, 5))
    found = find_spikes(values, starts, 2, 1.0)
    planted = np.zeros((200, 4), bool)
    planted[60, 0] = planted[120:122, 2] = True
    assert (found == planted).all()
    mended = bridged(FRAMES, values[:, :1], found[:, 0])
    assert np.abs(mended - truth[:, :1]).max() < 0.3
    assert not find_spikes(values, starts, 1, 1.0)[120:122].any()
    assert not find_spikes(values[:4], starts, 2, 1.0).any()


def test_a_range_begins_and_ends_softly():
    weights = soft_range(FRAMES, 50, 90, 10)
    assert weights[:51].max() == 0 and weights[90:].max() == 0 and (weights[60:81] == 1).all()
    assert weights[55] == pytest.approx(0.5)
    assert soft_range(FRAMES, 50, 90, 0).sum() == 41
