"""Filters of densely sampled animation curves: smoothing, spikes, and weights with soft ends.

Values are (F, C): C numbers at F moments. The numbers of one channel, such as the four of a quaternion, are neighbours;
`starts` (G,) holds the first column of each of the G channels.

This module does not import bpy.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_SPEED_CUTOFF: Final = 1.0
"""Hz: of the speed by which One-Euro chooses its cutoff, as its authors recommend."""
_NOISE_WINDOW: Final = 15
"""Samples over which the usual change from one to the next is taken."""
_BEYOND_NOISE: Final = 4.0
"""How many times the usual change a spike is away."""
_RETURNS: Final = 0.5
"""Of a spike's height: the most by which the curve differs behind it."""


def soft_range(times: np.ndarray, first: float, last: float, fade: float) -> np.ndarray:
    """(F,) weights: 1 from `first` to `last`, 0 outside, with a smooth rise and fall of `fade` inside."""
    inside = (times >= first - 1e-6) & (times <= last + 1e-6)
    if fade <= 0:
        return inside.astype(np.float64)
    share = np.clip(np.minimum(times - first, last - times) / fade, 0, 1)
    return np.where(inside, smoothstep(share), 0)


def smoothstep(share: np.ndarray) -> np.ndarray:
    """0 to 1 as `share` goes from 0 to 1, level at both ends."""
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)


def one_euro(
    times: np.ndarray, values: np.ndarray, starts: np.ndarray, cutoff: float, speed_factor: float
) -> np.ndarray:
    """(F, C) values smoothed by the One-Euro filter (Casiez, Roussel and Vogel, CHI 2012): the faster a channel moves,
    the less it is smoothed.

    The filter runs forwards and backwards and the results are averaged, so that nothing lags.

    Args:
        times: (F,) seconds, ascending.
        values: (F, C)
        starts: (G,) first column of each channel; its speed is the norm over its columns.
        cutoff: Hz, of a channel at rest.
        speed_factor: Hz that the cutoff grows by for a speed of one unit a second.

    """
    if len(times) < 2:
        return values.copy()
    forwards = _one_euro(np.diff(times), values, starts, cutoff, speed_factor)
    backwards = _one_euro(np.diff(times)[::-1], values[::-1], starts, cutoff, speed_factor)[::-1]
    return (forwards + backwards) / 2


def _one_euro(steps: np.ndarray, values: np.ndarray, starts: np.ndarray, cutoff: float, factor: float) -> np.ndarray:
    widths = np.diff(np.r_[starts, values.shape[1]])
    result, speed = np.empty_like(values, np.float64), np.zeros(values.shape[1])
    result[0] = values[0]
    for index, step in enumerate(steps, 1):
        slow = _share(_SPEED_CUTOFF, step)
        speed += slow * ((values[index] - values[index - 1]) / step - speed)
        fast = np.sqrt(np.add.reduceat(speed * speed, starts))
        share = np.repeat(_share(cutoff + factor * fast, step), widths)
        result[index] = result[index - 1] + share * (values[index] - result[index - 1])
    return result


def _share(cutoff: np.ndarray | float, step: float) -> np.ndarray | float:
    """How much of the newest sample a low-pass filter of first order takes."""
    rate = 2 * np.pi * np.asarray(cutoff) * step
    return rate / (rate + 1)


def savitzky_golay(times: np.ndarray, values: np.ndarray, window: int, order: int) -> np.ndarray:
    """(F, C) values smoothed by polynomials of `order` that are fitted to the `window` nearest samples (Savitzky and
    Golay 1964). The samples may be unevenly spaced; at the ends the window does not reach beyond them.
    """
    count = len(times)
    window = min(window, count)
    order = min(order, window - 1)
    if window < 3:
        return values.copy()
    begin = np.clip(np.arange(count) - window // 2, 0, count - window)
    nearby = begin[:, None] + np.arange(window)
    offsets = times[nearby] - times[:, None]
    # Scaled to about one, so that the powers are comparable.
    offsets /= np.abs(offsets).max(1, keepdims=True)
    powers = offsets[..., None] ** np.arange(order + 1)
    normal = np.einsum("fwp,fwq->fpq", powers, powers)
    # The fitted polynomial at the sample itself, where all powers but the zeroth vanish.
    kernel = np.linalg.solve(normal, np.swapaxes(powers, 1, 2))[:, 0]
    return np.einsum("fw,fwc->fc", kernel, values[nearby])


def find_spikes(values: np.ndarray, starts: np.ndarray, longest: int, height: float) -> np.ndarray:
    """(F, G) bool: the samples of each channel that leave its course for at most `longest` samples and come back.

    A spike is further than `height` from the straight line between its neighbours, further than the channel usually
    moves from sample to sample, and the neighbours themselves differ by less than half as much.
    """
    count = len(values)
    found = np.zeros((count, len(starts)), bool)
    norm = lambda vectors: np.sqrt(np.add.reduceat(vectors * vectors, starts, axis=-1))
    steps = norm(np.diff(values, axis=0))
    if count < 5:
        return found
    reach = min(_NOISE_WINDOW, len(steps)) // 2
    padded = np.pad(steps, ((reach, reach), (0, 0)), mode="reflect")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0), -1)
    for length in range(1, longest + 1):
        before, after = values[: count - length - 1], values[length + 1 :]
        apart = norm(after - before)
        least = np.full(apart.shape, np.inf)
        for inside in range(1, length + 1):
            share = inside / (length + 1)
            line = before + share * (after - before)
            least = np.minimum(least, norm(values[inside : inside + len(before)] - line))
        noise = _BEYOND_NOISE * usual[: len(before)]
        spike = (least > height) & (least > noise) & (apart < _RETURNS * least)
        for inside in range(1, length + 1):
            found[inside : inside + len(before)] |= spike
    return found


def bridged(times: np.ndarray, values: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """(F, C) values with straight lines over the samples where `gaps` (F,) is true."""
    result, kept = values.copy(), ~gaps
    for column in range(values.shape[1]):
        result[gaps, column] = np.interp(times[gaps], times[kept], values[kept, column])
    return result
