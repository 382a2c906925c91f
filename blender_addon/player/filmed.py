"""What faces an avatar's clip has filmed, as in `backend.avatar.filmed`, whose formulas and numbers these are."""

from __future__ import annotations

from typing import Final

import numpy as np

EXPRESSION_MARGIN: Final = 0.1
FAR: Final = (1.25, 2.0)
PULL: Final = 0.4
NEWTON_STEPS: Final = 12


def beyond_limits(face: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """A face (D,) and limits (2, D) -> (D,) in [0, 1]: how much of the upper margin each number takes."""
    return np.clip((face - limits[1]) / EXPRESSION_MARGIN + 1, 0, 1)


def distance(face: np.ndarray, filmed: np.ndarray) -> float:
    """Of a face (D,) from those of the clip, whose furthest is at 1. `filmed` (2 + D, D): centre, semi-axes, their
    directions.
    """
    return float(np.linalg.norm(filmed[2:] @ (face - filmed[0]) / filmed[1]))


def nearest_filmed(face: np.ndarray, filmed: np.ndarray) -> np.ndarray:
    """A face (D,) as it is within a distance of 1, and the nearest of the clip's otherwise, drawn to their mean."""
    offsets, axes = filmed[2:] @ (face - filmed[0]), filmed[1]
    units = offsets / axes
    away = float(np.linalg.norm(units))
    if away <= 1:
        return face
    curvature, shift = 1 / np.square(axes), 0.0
    for _ in range(NEWTON_STEPS):
        found = units / (1 + shift * curvature)
        length = np.linalg.norm(found)
        slope = (np.square(found) * curvature / (1 + shift * curvature)).sum()
        shift += length**2 / max(slope, 1e-12) * max(length - 1, 0)
    share = np.clip((away - FAR[0]) / (FAR[1] - FAR[0]), 0, 1)
    kept = (1 - PULL * share**2 * (3 - 2 * share)) / (1 + shift * curvature)
    return face - ((1 - kept) * offsets) @ filmed[2:]
