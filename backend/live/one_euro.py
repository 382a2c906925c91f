"""The One-Euro filter: a low-pass filter whose cutoff rises with the signal's speed, so that a still face is steady and
a fast one does not lag (Casiez, Roussel and Vogel, CHI 2012, equations 1 to 3).
"""

from __future__ import annotations

import numpy as np


class OneEuro:
    """Filters an array, each number by itself."""

    def __init__(self, cutoff: float, slope: float, speed_cutoff: float = 1.0) -> None:
        """`cutoff`: hertz, of a signal that does not move. `slope`: hertz for each unit a second. `speed_cutoff`:
        hertz, of the speed.
        """
        self._cutoff, self._slope, self._speed_cutoff = cutoff, slope, speed_cutoff
        self._time: float | None = None
        self._value = self._speed = np.zeros(0)

    def __call__(self, value: np.ndarray, time: float) -> np.ndarray:
        """The filtered value at `time`, seconds, which must not fall."""
        if self._time is None or value.shape != self._value.shape:
            self._value, self._speed, self._time = value, np.zeros_like(value), time
            return value
        step = max(time - self._time, 1e-4)
        speed = (value - self._value) / step
        self._speed = self._speed + _share(self._speed_cutoff, step) * (speed - self._speed)
        self._value = self._value + _share(self._cutoff + self._slope * np.abs(self._speed), step) * (
            value - self._value
        )
        self._time = time
        return self._value

    def forget(self) -> None:
        """Begins anew with the next value."""
        self._time = None


def _share(cutoff: float | np.ndarray, step: float) -> float | np.ndarray:
    """The share of a new value in the filtered one."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))
