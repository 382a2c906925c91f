"""How the channels of one person's face change those of another, whose neutral face is different.

    target = target's neutral + intensity * (performer - performer's neutral)

Blinks and gaze are not scaled. The way from the performer's neutral eyelids to closed ones becomes the way from the
target's, so that closed stays closed.

The extension has this same file, because it does not import the backend; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

UNSCALED: Final = ("eyeBlink", "eyeLook")
"""Prefixes of the channels that the intensity does not scale."""
MAX_VALUES: Final = {"brow": 1.6}
"""Upper bounds of named channels by prefix, as in tracks; all others end at 1."""
REST_QUANTILE: Final = 0.1
"""Quantile of a named channel over a performance that is its resting value in a first guess."""
MAX_NEUTRAL_JAW: Final = np.radians(1.0)
"""The neutral jaw is closed within this angle. Three degrees part the lips by three millimetres, which is more than
tracks err."""
MIN_LID_WAY: Final = 0.2
"""Of a performer's eyelids from neutral to closed, in eyeBlink: less is not measured."""


def scales_of(names: Sequence[str], intensity: float) -> np.ndarray:
    """Factors (C,) on the changes of the channels `names`."""
    return np.array([1.0 if name.startswith(UNSCALED) else intensity for name in names])


def opening_gains(names: Sequence[str], performer: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Factors (C,) on positive changes of the channels `names`, of which (C,) are the neutral values of both: other
    than 1 for blinks.
    """
    ways = (1 - target) / np.maximum(1 - performer, MIN_LID_WAY)
    return np.where([name.startswith("eyeBlink") for name in names], ways, 1.0)


def bounds_of(names: Sequence[str], high: float | np.ndarray, target: np.ndarray) -> np.ndarray:
    """The largest values (C,) of the channels `names`; `high` where `MAX_VALUES` has none. `target` (C,): the neutral
    values, which are never cut off.
    """
    bounds = np.broadcast_to(np.asarray(high, np.float64), (len(names),)).copy()
    for index, name in enumerate(names):
        bounds[index] = next((value for prefix, value in MAX_VALUES.items() if name.startswith(prefix)), bounds[index])
    return np.maximum(bounds, target)
