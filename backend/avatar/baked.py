"""The baked model: what the extension needs to evaluate an avatar with numpy alone, in the avatar's own file.

An avatar of Gaussian blendshapes is a sum of products, except for its features, which a graph network makes once. The
tensors `baked.*` hold these features and what of the head model belongs to the person:

    features   (N, F)  float16, output of the graph network
    base_scale (N,)    metres
    vertices   (N, 3)  metres, at rest
    joints     (5, 3)  metres, at rest
    skinning   (N, 5)  weights
    jaw        (E, 3)  axis-angle by which an expression coefficient of 1 rotates the jaw instead of moving vertices

The player (`blender_addon/player`) reads mean, shapes, mixing network, positions and ranges from the tensors of the
networks themselves. Blender's rig has the deltas of expressions and pose correctives as shape keys: the file holds no
basis of the head model, which would triple its size, and which FLAME's licence does not let its user pass on. The
backend ignores the baked model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..head.jaw import jaw_rotations_of_shapes
from ..head.model import HeadModel

PREFIX: Final = "baked."
SCHEMA: Final = 1


def baked_tensors(
    features: Tensor, base_scale: Tensor, vertices: Tensor, joints: Tensor, model: HeadModel
) -> dict[str, Tensor]:
    """The tensors of a baked model by their names in the file; shapes as in this module's docstring."""
    jaw = np.zeros((len(model.expression_names), 3), np.float32)
    for name, rotation in jaw_rotations_of_shapes(model).items():
        if name in model.expression_names:
            jaw[model.expression_names.index(name)] = rotation
    parts = {
        "features": features.half(),
        "base_scale": base_scale,
        "vertices": vertices,
        "joints": joints,
        "skinning": torch.from_numpy(np.ascontiguousarray(model.skinning)),
        "jaw": torch.from_numpy(jaw),
    }
    return {f"{PREFIX}{name}": tensor.detach().cpu().contiguous() for name, tensor in parts.items()}


def without_baked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors without those of the baked model."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(PREFIX)}
