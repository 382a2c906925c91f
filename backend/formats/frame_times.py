"""When the frames of a clip were taken.

Telephones lower their frame rate in dim light, and screen recorders leave frames out, so the index of a frame is not
its time.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np

TOLERANCE: Final = 0.25
"""Frames by which the time of a frame may differ from its index divided by the rate before the rate counts as
variable. Containers round times to milliseconds, which is 0.06 frames at 60 frames a second."""
SEQUENCE_RATE: Final = Fraction(24)
"""Of numbered images for which no rate is given: that of cinema film."""
STANDARD_RATES: Final = (
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
    *(Fraction(rate) for rate in (10, 12, 15, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
)


def in_order(times: np.ndarray) -> np.ndarray:
    """The times (F,) of frames in the order in which they are shown. A damaged film may have time stamps that go back
    or lie before its start; such a frame gets the time of the one before it.
    """
    return np.maximum.accumulate(np.maximum(times, 0))


def are_even(times: np.ndarray, rate: Fraction) -> bool:
    """Whether the times (F,), in seconds, are those of a constant frame rate."""
    if len(times) < 2:
        return True
    expected = times[0] + np.arange(len(times)) / float(rate)
    return bool(np.abs(times - expected).max() * float(rate) <= TOLERANCE)


def nominal_rate(times: np.ndarray, average: Fraction) -> Fraction:
    """The rate at which a clip of a variable frame rate was meant to be taken: that of its short intervals.

    `times` (F,) are in seconds. A telephone in dim light drops from its nominal rate, so the rate is read from the
    interval that a tenth of all intervals do not exceed, and rounded to a standard rate that lies within 2 %. A clip
    whose rate is constant keeps `average`.
    """
    if are_even(times, average):
        return average
    intervals = np.diff(times)
    measured = 1 / float(np.quantile(intervals[intervals > 0], 0.1)) if (intervals > 0).any() else float(average)
    closest = min(STANDARD_RATES, key=lambda rate: abs(float(rate) - measured))
    if abs(float(closest) / measured - 1) < 0.02:
        return closest
    return Fraction(measured).limit_denominator(1001)
