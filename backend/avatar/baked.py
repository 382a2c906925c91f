"""The baked model: what is needed to evaluate an avatar with numpy alone, in the avatar's own file (docs/format.md).

An avatar of Gaussian blendshapes is a sum of products, except for its features, which a graph network makes once. The
tensors `baked.*` hold these features and what of the head model belongs to the person:

    features   (N, F)  float16, output of the graph network
    base_scale (N,)    metres
    vertices   (N, 3)  metres, at rest
    joints     (5, 3)  metres, at rest
    skinning   (N, 5)  weights
    jaw        (E, 3)  axis-angle by which an expression coefficient of 1 rotates the jaw instead of moving vertices
    turning    (M, 1 + J) int32: a vertex that turns with the mesh around it (`surface_turns`), and its neighbours, the
                       vertex itself in place of those that it lacks; not in files from before lips did

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
from ..head.model import HeadModel
from ..head_motion import delta_arrays, slider_arrays

PREFIX: Final = "baked."
SCHEMA: Final = 1


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


def turning_tensors(vertices: Tensor, neighbours: Tensor) -> dict[str, Tensor]:
    """The tensor of M vertices that turn with the mesh around them, and their (M, J) neighbours."""
    return {f"{PREFIX}turning": torch.cat((vertices[:, None], neighbours), 1).int().cpu().contiguous()}


def motion_arrays(model: HeadModel, sliders: Sliders) -> dict[str, np.ndarray]:
    """How the head moves (`head_motion`), by the names in the file without `PREFIX`."""
    expression, correctives = (basis.transpose(2, 0, 1) for basis in (model.expression_basis, model.pose_basis))
    return slider_arrays(sliders.names, sliders.expression, sliders.jaw, gaze_rotations_of_shapes()) | delta_arrays(
        expression, correctives, _jaw_of_expressions(model)
    )


def motion_tensors(model: HeadModel, sliders: Sliders) -> dict[str, Tensor]:
    """`motion_arrays` as tensors by their names in the file."""
    return {
        f"{PREFIX}{name}": torch.from_numpy(np.ascontiguousarray(part))
        for name, part in motion_arrays(model, sliders).items()
    }


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
