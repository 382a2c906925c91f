"""From phones to the curves of ARKit's channels.

Coarticulation after Cohen and Massaro (Modeling Coarticulation in Synthetic Visual Speech, 1993): each shape s has a
dominance D_s(t) = a_s exp(-d / r_s), d being the distance in time from the shape, and a channel is the mean of the
shapes' values, weighted by their dominances. Two things are not left to that mean. Where lips, or lips and teeth, must
touch (m, b, p; f, v), the mouth really gets there, for at least one frame. And the jaw opens with the loudness of the
sound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.ndimage import gaussian_filter1d

from ..footage.detector import SCORE_NAMES
from ..progress import SILENT, Progress
from .phones import Phones
from .sound import Sound
from .visemes import REST, VISEMES, Segment, segments_of, weights_of

JAW_OPEN: Final = SCORE_NAMES.index("jawOpen")
PLATEAU: Final = 0.6
"""Share of a phone's time, around its middle, in which its dominance is whole."""
CONTACT: Final = (0.0, 0.65)
"""Shares of a phone's time between which lips touch: the rest of a stop is its burst, with open lips."""
RAMP: Final = 0.06
"""Seconds in which lips close and open."""
QUIET, LOUD = -18.0, 8.0
"""dB from the usual level of speech at which the jaw opens least and most."""
LEAST, MOST = 0.55, 1.25
"""Factors on the jaw's opening there."""
LOUDNESS_WINDOW: Final = 0.05
"""Seconds, the standard deviation over which loudness is smoothed."""
_FAR: Final = 12.0
"""Distances, in units of a shape's reach, from which on its dominance counts as zero."""
_STEP: Final = 256
"""Segments between two looks at whether the user has stopped."""


@dataclass(frozen=True)
class Mouth:
    """F frames of a speaking mouth."""

    channels: np.ndarray
    """(F, 52) in the order of SCORE_NAMES."""
    closed: np.ndarray
    """(F,) from 0 to 1: how much the lips touch each other."""
    touching: np.ndarray
    """(F,) from 0 to 1: how much the lips touch each other or the teeth."""


def articulate(
    phones: Phones,
    sound: Sound,
    rate: float,
    *,
    intensity: float = 1.0,
    smoothing: float = 0.0,
    progress: Progress = SILENT,
) -> Mouth:
    """The curves of a mouth that speaks these phones, as long as the sound.

    Args:
        phones: The phones with their times.
        sound: The sound, for its loudness.
        rate: Frames a second.
        intensity: Factor on all shapes but those of contacts.
        smoothing: Seconds, the standard deviation of a Gaussian over time. Contacts are kept.
        progress: Told how far it is; stops where the user stops.

    """
    times = np.arange(max(2, round(sound.seconds * rate) + 1)) / rate
    segments = _without_gaps(segments_of(phones), sound.seconds)
    channels = blended(segments, times, progress)
    channels[:, JAW_OPEN] *= _jaw_by_loudness(sound, segments, times)
    channels *= intensity
    if smoothing * rate > 0.05:
        channels = gaussian_filter1d(channels, smoothing * rate, axis=0, mode="nearest")
    closed, touching = contacts(segments, times, "PP"), np.zeros(len(times))
    for viseme in (name for name, shape in VISEMES.items() if shape.touches):
        share = contacts(segments, times, viseme)
        channels = (1 - share)[:, None] * channels + share[:, None] * weights_of(viseme)
        touching = np.maximum(touching, share)
    return Mouth(np.clip(channels, 0, 1), closed, touching)


def _without_gaps(segments: list[Segment], seconds: float) -> list[Segment]:
    """The segments with silence where nothing is said."""
    filled, before = [], 0.0
    for segment in sorted(segments, key=lambda each: each.start):
        if segment.start > before + 0.05:
            filled.append(Segment(before, segment.start, REST))
        filled.append(segment)
        before = max(before, segment.end)
    if seconds > before:
        filled.append(Segment(before, seconds, REST))
    return filled


def blended(segments: list[Segment], times: np.ndarray, progress: Progress = SILENT) -> np.ndarray:
    """(F, 52): the mean of the segments' shapes at `times` (F,), in ascending order, weighted by their dominances."""
    total, weight = np.zeros((len(times), len(SCORE_NAMES))), np.zeros((len(times), len(SCORE_NAMES)))
    for index, segment in enumerate(segments):
        if index % _STEP == 0:
            progress.raise_if_cancelled()
        shape = VISEMES[segment.viseme]
        half = PLATEAU * (segment.end - segment.start) / 2
        middle = (segment.start + segment.end) / 2
        reach = _FAR * max(shape.reach)
        first, last = np.searchsorted(times, (middle - half - reach, middle + half + reach))
        away = times[first:last] - middle
        distance = np.maximum(np.abs(away) - half, 0) / np.where(away < 0, *shape.reach)
        fall = np.exp(-distance)[:, None]
        alpha = np.full(len(SCORE_NAMES), shape.lips)
        alpha[JAW_OPEN] = shape.jaw
        total[first:last] += fall * alpha * weights_of(segment.viseme)
        weight[first:last] += fall * alpha
    return total / np.maximum(weight, 1e-9)


def contacts(segments: list[Segment], times: np.ndarray, viseme: str) -> np.ndarray:
    """(F,) from 0 to 1: how much the mouth touches as `viseme` demands, at evenly spaced `times` (F,)."""
    closed, frame = np.zeros(len(times)), times[1] - times[0]
    for segment in segments:
        if segment.viseme != viseme:
            continue
        length = segment.end - segment.start
        start, end = (segment.start + share * length for share in CONTACT)
        # At least one frame lies within a contact, however short it is.
        missing = max(0.0, 1.01 * frame - (end - start)) / 2
        distance = np.maximum(np.maximum(start - missing - times, times - end - missing), 0)
        closed = np.maximum(closed, 0.5 + 0.5 * np.cos(np.pi * np.minimum(distance / RAMP, 1)))
    return closed


def _jaw_by_loudness(sound: Sound, segments: list[Segment], times: np.ndarray) -> np.ndarray:
    """(F,): the factor on the jaw's opening, 1 at the usual level of the speech."""
    at, levels = sound.levels()
    spoken = np.zeros(len(at), bool)
    for segment in segments:
        if segment.viseme != REST:
            spoken[slice(*np.searchsorted(at, (segment.start, segment.end)))] = True
    if not spoken.any():
        return np.ones(len(times))
    usual = np.median(levels[spoken])
    smooth = gaussian_filter1d(np.maximum(levels, usual - 40), LOUDNESS_WINDOW / (at[1] - at[0]), mode="nearest")
    return np.interp(np.interp(times, at, smooth) - usual, (QUIET, 0, LOUD), (LEAST, 1, MOST))
