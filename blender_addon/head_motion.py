"""How a head moves, as the arrays that an avatar's file holds (docs/format.md): ARKit's sliders in terms of the head
model's expressions, and what expressions and pose correctives add to the vertices.

The extension has this same file, because it does not import the backend; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

JAW: Final = 2
EYES: Final = (("Left", 3, 1.0), ("Right", 4, -1.0))
"""Side, joint, and the sign of a turn outwards about the vertical axis."""
CORRECTIVES: Final = 36
"""Entries of R - I of neck, jaw and both eyes."""
STEPS: Final = 32767
"""In the largest number of a row of deltas: at most 1 µm each."""
STILL: Final = 1e-6
"""Metres: a vertex that a row moves by less is not listed in it."""


def gaze_rotations(sideways: float, upwards: float) -> dict[str, tuple[int, np.ndarray]]:
    """The eye that each eyeLook channel turns (its joint), and the axis-angle (3,) at 1. Angles in radians."""
    found = {}
    for side, joint, outwards in EYES:
        # About x, positive is down; about y, positive is to the person's left.
        turns = {
            "Out": (0, outwards * sideways),
            "In": (0, -outwards * sideways),
            "Up": (-upwards, 0),
            "Down": (upwards, 0),
        }
        found |= {f"eyeLook{way}{side}": (joint, np.array([*turn, 0.0])) for way, turn in turns.items()}
    return found


def slider_arrays(
    names: Sequence[str], expression: np.ndarray, jaw: np.ndarray, gaze: dict[str, tuple[int, np.ndarray]]
) -> dict[str, np.ndarray]:
    """K sliders as coefficients (K, E) and rotations of the jaw (K, 3), with the gaze that `gaze_rotations` gives."""
    rotations = np.zeros((len(names), 3, 3), np.float32)
    rotations[:, 0] = jaw
    for name, (joint, rotation) in gaze.items():
        if name in names:
            rotations[list(names).index(name), joint - JAW] = rotation
    return {"slider_expression": expression.astype(np.float32), "slider_rotations": rotations}


def delta_arrays(expression: np.ndarray, correctives: np.ndarray, jaw: np.ndarray) -> dict[str, np.ndarray]:
    """Deltas of the expressions (E, N, 3) and of the pose correctives (36, N, 3), metres, without the vertices that a
    row does not move. Expressions that rotate the jaw, by `jaw` (E, 3), move none.
    """
    rows = np.concatenate((np.where(np.any(jaw, 1)[:, None, None], 0, expression), correctives))
    moved = [np.flatnonzero(np.abs(row).max(1) > STILL) for row in rows]
    units = np.abs(rows).max((1, 2)) / STEPS
    steps = [np.round(row[index] / max(unit, 1e-12)) for row, index, unit in zip(rows, moved, units, strict=True)]
    return {
        "delta_starts": np.cumsum([0, *map(len, moved)]).astype(np.int32),
        "delta_vertices": np.concatenate(moved).astype(np.int16 if rows.shape[1] <= STEPS else np.int32),
        "delta_steps": np.concatenate(steps).astype(np.int16),
        "delta_units": units.astype(np.float32),
    }
