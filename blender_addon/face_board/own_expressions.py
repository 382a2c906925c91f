"""A face in a head's own coefficients, as FLAME's track has it, as ARKit's sliders, which have handles.

On such a head each of ARKit's channels stands for a sum of the head's own expressions (`Rig.arkit_expression`). The
channels that come nearest to a face, each between 0 and what is left of its range, are found by coordinate descent on
the bounded least squares (Wright 2015); the coefficients keep what the channels cannot show, so that the sum stays the
same. Channels that turn the jaw are left out: a track opens the mouth by the jaw's bone.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from ..rig.rig_properties import Rig

RIDGE: Final = 0.02
"""Of a channel's own weight: of two that can show the same, both show a half."""
SWEEPS: Final = 40


def taken_by_channels(rig: Rig, names: tuple[str, ...], values: np.ndarray, room: np.ndarray) -> np.ndarray:
    """How much of the faces with the head's own coefficients `values` (..., E) each of ARKit's channels `names` takes,
    at most `room` (..., K): (..., K).
    """
    rows = [rig.arkit_names.index(name) for name in names]
    weights = _sizes(rig)
    channels = rig.arkit_expression[rows] * weights
    by_jaw = np.abs(rig.arkit_jaw[rows]).max(1) > 0
    # How far it acts depends on the jaw (`rig.pose`).
    by_jaw |= np.array(names) == "mouthClose"
    gram, target = channels @ channels.T, (values * weights) @ channels.T
    scale = np.diag(gram) * (1 + RIDGE)
    taken = np.zeros(target.shape)
    for _ in range(SWEEPS):
        for index in np.flatnonzero((scale > 0) & ~by_jaw):
            wanted = target[..., index] - taken @ gram[:, index] + taken[..., index] * gram[index, index]
            taken[..., index] = np.clip(wanted / scale[index], 0, room[..., index])
    return taken


def given_by_channels(rig: Rig, names: tuple[str, ...], taken: np.ndarray) -> np.ndarray:
    """The head's own coefficients (..., E) for which channels (..., K) stand."""
    return taken @ rig.arkit_expression[[rig.arkit_names.index(name) for name in names]]


def _sizes(rig: Rig) -> np.ndarray:
    """(E,) how far each of the head's own expressions moves its vertices."""
    blocks = rig.key_blocks
    basis = np.empty(3 * len(blocks[0].points), np.float32)
    moved = np.empty_like(basis)
    blocks[0].points.foreach_get("co", basis)
    sizes = []
    for block in rig.expression_keys():
        block.points.foreach_get("co", moved)
        sizes.append(float(np.linalg.norm(moved - basis)))
    return np.array(sizes)
