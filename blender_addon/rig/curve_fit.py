"""Few keyframes for a densely keyed curve: a piecewise cubic that stays within a tolerance of the keys.

A curve is fitted by cubic Hermite segments between some of its keys. The values at these are the curve's own; the
slopes are those of the least squares over all keys. As in Schneider's algorithm ("An algorithm for automatically
fitting digitized curves", Graphics Gems, 1990), a segment is split at the key that lies furthest from it, if that is
further than the tolerance; afterwards every key that the tolerance does not need is removed. Handles at a third of a
segment make a Bézier curve of Blender such a cubic, because its time is then linear in its parameter.

A channel of several numbers, such as a rotation, is fitted as one curve with the distance of all, so that its keys lie
at the same frames.

This module does not import bpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

_PULL: Final = 1e-3
"""Weight, beside the squares of the least squares, of a slope's distance from that of the curve's neighbouring keys:
without a key inside a segment nothing else decides it."""


@dataclass(frozen=True)
class Fit:
    """K of the F keys of a channel of C numbers."""

    kept: np.ndarray
    """(K,) ascending indices of the keys; the first and the last are always kept."""
    slopes: np.ndarray
    """(K, C) change in a frame."""
    errors: np.ndarray
    """(F,) distance of each key from the fitted curve."""


def fit_keys(frames: np.ndarray, values: np.ndarray, tolerance: float) -> Fit:
    """Fits `values` (F, C) at `frames` (F,), ascending, so that no key lies further than `tolerance` from the fit."""
    values = np.asarray(values, np.float64)
    if len(frames) < 3:
        slopes = _gradient(frames, values)
        return Fit(np.arange(len(frames)), slopes, np.zeros(len(frames)))
    gradient = _gradient(frames, values)
    kept = np.array((0, len(frames) - 1))
    while True:
        slopes = _slopes(frames, values, kept, gradient)
        errors = _errors(frames, values, kept, slopes)
        worst = [
            first + int(np.argmax(errors[first : last + 1]))
            for first, last in pairwise(kept.tolist())
            if last - first > 1 and errors[first : last + 1].max() > tolerance
        ]
        if not worst:
            break
        kept = np.union1d(kept, worst)
    kept, slopes = _pruned(frames, values, kept, slopes, gradient, tolerance)
    return Fit(kept, slopes, _errors(frames, values, kept, slopes))


def handles_of(frames: np.ndarray, values: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, 2) left and (K, 2) right handles of a curve with `values` (K,) and `slopes` (K,) at `frames` (K,)."""
    spans = np.diff(frames) / 3
    if not len(spans):
        spans = np.ones(1)
    before, after = np.r_[spans[:1], spans][: len(frames)], np.r_[spans, spans[-1:]][: len(frames)]
    left = np.stack((frames - before, values - before * slopes), 1)
    return left, np.stack((frames + after, values + after * slopes), 1)


def _gradient(frames: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.gradient(values, frames, axis=0) if len(frames) > 1 else np.zeros_like(values)


def _weights(frames: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(F,) the segment between `knots` (K,) in which each of `frames` (F,) lies; (F,) how much the value at its end
    counts; (F,) and (F,) how much the slopes at its begin and its end do.
    """
    segment = np.clip(np.searchsorted(knots, frames, side="right") - 1, 0, len(knots) - 2)
    span = knots[segment + 1] - knots[segment]
    u = (frames - knots[segment]) / span
    return segment, u * u * (3 - 2 * u), span * u * (1 - u) ** 2, -span * u * u * (1 - u)


def _errors(frames: np.ndarray, values: np.ndarray, kept: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    segment, end, first, last = _weights(frames, frames[kept])
    below, above = values[kept[segment]], values[kept[segment + 1]]
    fitted = below + end[:, None] * (above - below) + first[:, None] * slopes[segment]
    return np.linalg.norm(fitted + last[:, None] * slopes[segment + 1] - values, axis=1)


def _slopes(
    frames: np.ndarray,
    values: np.ndarray,
    kept: np.ndarray,
    gradient: np.ndarray,
    fixed: dict[int, np.ndarray] | None = None,
) -> np.ndarray:
    """(K, C) the slopes at the keys `kept` of the least squares over all keys; `fixed`: those that are given."""
    segment, end, first, last = _weights(frames, frames[kept])
    below, above = values[kept[segment]], values[kept[segment + 1]]
    rest = values - below - end[:, None] * (above - below)
    count = len(kept)
    system, right = np.eye(count) * _PULL, _PULL * gradient[kept]
    np.add.at(system, (segment, segment), first * first)
    np.add.at(system, (segment + 1, segment + 1), last * last)
    np.add.at(system, (segment, segment + 1), first * last)
    np.add.at(system, (segment + 1, segment), first * last)
    np.add.at(right, segment, first[:, None] * rest)
    np.add.at(right, segment + 1, last[:, None] * rest)
    for index, slope in (fixed or {}).items():
        system[index], system[index, index] = 0.0, 1.0
        right[index] = slope
    return np.linalg.solve(system, right)


_REACH: Final = 3
"""Kept keys on either side of a removed one whose slopes are solved again; those beyond keep theirs."""


def _pruned(
    frames: np.ndarray,
    values: np.ndarray,
    kept: np.ndarray,
    slopes: np.ndarray,
    gradient: np.ndarray,
    tolerance: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The kept keys and slopes without those that the tolerance does not need, the least needed first."""
    keys, tangents = kept.tolist(), list(slopes)
    inner = np.array(kept[1:-1], int)
    before, after = np.array(kept[:-2], int), np.array(kept[2:], int)
    share = ((frames[inner] - frames[before]) / (frames[after] - frames[before]))[:, None]
    straight = values[before] + share * (values[after] - values[before])
    needed = np.linalg.norm(values[inner] - straight, axis=1)
    for index in inner[np.argsort(needed, kind="stable")].tolist():
        place = keys.index(index)
        low, high = max(place - _REACH, 0), min(place + _REACH, len(keys) - 1)
        trial = np.array([*keys[low:place], *keys[place + 1 : high + 1]])
        part = slice(trial[0], trial[-1] + 1)
        # What lies beyond the trial's ends keeps its shape, and so must the slopes there.
        ends = {0: tangents[low]} if low > 0 else {}
        if high < len(keys) - 1:
            ends[len(trial) - 1] = tangents[high]
        local = trial - trial[0]
        solved = _slopes(frames[part], values[part], local, gradient[part], ends)
        if _errors(frames[part], values[part], local, solved).max() <= tolerance:
            keys[low : high + 1] = trial.tolist()
            tangents[low : high + 1] = list(solved)
    return np.array(keys), np.array(tangents)
