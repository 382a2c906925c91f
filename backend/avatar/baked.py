"""The baked model: what is needed to evaluate an avatar with numpy alone, in the avatar's own file (docs/format.md).

An avatar of Gaussian blendshapes is a sum of products, except for its features, which a graph network makes once. The
tensors `baked.*` hold these features and what of the head model belongs to the person:

    features   (N, F)  float16, output of the graph network
    base_scale (N,)    metres
    vertices   (N, 3)  metres, at rest
    joints     (5, 3)  metres, at rest
    skinning   (N, 5)  weights
    jaw        (E, 3)  axis-angle by which an expression coefficient of 1 rotates the jaw instead of moving vertices

The player (`blender_addon/player`) reads mean, shapes, mixing network, positions and ranges from the tensors of the
networks themselves. Blender's rig has the deltas of expressions and pose correctives as shape keys.

Programs without such a rig need these deltas too, and ARKit's sliders in terms of the expressions:

    slider_expression (K, E)     coefficients of each slider at 1
    slider_rotations  (K, 3, 3)  axis-angle by which each slider at 1 rotates jaw, left eye and right eye
    delta_starts      (E + 37,)  int32: the entries of row r, an expression or one of 36 pose correctives after them,
                                 are those from delta_starts[r] to delta_starts[r + 1]
    delta_vertices    (M,)       int16 or int32: the vertex that each entry moves
    delta_steps       (M, 3)     int16: by how much, in steps
    delta_units       (E + 36,)  metres in a step of each row

They are 0.5 MB on the open head, where few vertices move in each expression. Files on a head whose expressions are
statistical components lack them: they would triple the size, and FLAME's licence does not let its user pass its bases
on. The names of the K sliders are in the file's header. The backend ignores the baked model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..head.jaw import JAW_SHAPES, gaze_rotations_of_shapes, jaw_rotations_of_shapes
from ..head.model import JAW, HeadModel

PREFIX: Final = "baked."
SCHEMA: Final = 1
STEPS: Final = 32767
"""In the largest number of a row of deltas: at most 1 µm each."""
STILL: Final = 1e-6
"""Metres: a vertex that a row moves by less is not listed in it."""


@dataclass(frozen=True)
class Sliders:
    """K sliders on a head model with E expressions."""

    names: tuple[str, ...]
    expression: np.ndarray
    """(K, E)"""
    jaw: np.ndarray
    """(K, 3) axis-angle."""


def own_sliders(model: HeadModel) -> Sliders | None:
    """The expressions of a head that has ARKit's names itself; None for another head."""
    names = model.expression_names
    if not set(JAW_SHAPES) <= set(names):
        return None
    jaw = _jaw_of_expressions(model)
    return Sliders(names, np.diag((~jaw.any(1)).astype(np.float32)), jaw)


def baked_tensors(
    features: Tensor, base_scale: Tensor, vertices: Tensor, joints: Tensor, model: HeadModel
) -> dict[str, Tensor]:
    """The tensors of a baked model by their names in the file, without sliders and deltas; shapes as in this module's
    docstring.
    """
    parts = {
        "features": features.half(),
        "base_scale": base_scale,
        "vertices": vertices,
        "joints": joints,
        "skinning": torch.from_numpy(np.ascontiguousarray(model.skinning)),
        "jaw": torch.from_numpy(_jaw_of_expressions(model)),
    }
    return {f"{PREFIX}{name}": tensor.detach().cpu().contiguous() for name, tensor in parts.items()}


def motion_tensors(model: HeadModel, sliders: Sliders) -> dict[str, Tensor]:
    """The tensors of sliders and deltas by their names in the file."""
    rotations = np.zeros((len(sliders.names), 3, 3), np.float32)
    rotations[:, 0] = sliders.jaw
    for name, (joint, rotation) in gaze_rotations_of_shapes().items():
        if name in sliders.names:
            rotations[sliders.names.index(name), joint - JAW] = rotation
    rows = np.concatenate((model.expression_basis, model.pose_basis), 2).transpose(2, 0, 1)
    # The jaw's shapes are a rotation of its joint.
    rows[np.flatnonzero(_jaw_of_expressions(model).any(1))] = 0
    moved = [np.flatnonzero(np.abs(row).max(1) > STILL) for row in rows]
    units = np.abs(rows).max((1, 2)) / STEPS
    steps = [np.round(row[index] / max(unit, 1e-12)) for row, index, unit in zip(rows, moved, units, strict=True)]
    small = len(model.template) <= STEPS
    parts = {
        "slider_expression": sliders.expression.astype(np.float32),
        "slider_rotations": rotations,
        "delta_starts": np.cumsum([0, *map(len, moved)]).astype(np.int32),
        "delta_vertices": np.concatenate(moved).astype(np.int16 if small else np.int32),
        "delta_steps": np.concatenate(steps).astype(np.int16),
        "delta_units": units.astype(np.float32),
    }
    return {f"{PREFIX}{name}": torch.from_numpy(np.ascontiguousarray(part)) for name, part in parts.items()}


def without_baked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors without those of the baked model."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}


def _jaw_of_expressions(model: HeadModel) -> np.ndarray:
    """(E, 3) float32: how each expression rotates the jaw."""
    jaw = np.zeros((len(model.expression_names), 3), np.float32)
    for name, rotation in jaw_rotations_of_shapes(model).items():
        if name in model.expression_names:
            jaw[model.expression_names.index(name)] = rotation
    return jaw
