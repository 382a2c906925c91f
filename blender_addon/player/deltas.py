"""What expressions and pose correctives add to a head's vertices, from the shape keys of its rig."""

from __future__ import annotations

import bpy
import numpy as np

from ..rig.conventions import points_to_head
from ..rig.correctives import corrective_name
from ..rig.rig_properties import Rig
from .head import HeadDeltas

CORRECTIVES = 36
"""Entries of R - I of neck, jaw and both eyes."""


def read_deltas(rig: Rig, vertices: np.ndarray) -> HeadDeltas:
    """The deltas of a rig's shape keys in head space. `vertices` (4, 4) is `HeadPlace.vertices`: what was applied to
    the mesh since the rig was made. Raises an `EffigyError` if a shape key of an expression is gone.
    """
    to_rest = np.linalg.inv(vertices[:3, :3])
    correctives = [
        (index, block)
        for index in range(CORRECTIVES)
        if (block := rig.key_blocks.get(corrective_name(index))) is not None
    ]
    return HeadDeltas(
        np.array([_delta(block, to_rest) for block in rig.expression_keys()]),
        np.array([_delta(block, to_rest) for _, block in correctives], np.float32).reshape(
            len(correctives), 3, len(rig.mesh.data.vertices)
        ),
        np.array([index for index, _ in correctives], np.int64),
    )


def _delta(block: bpy.types.ShapeKey, to_rest: np.ndarray) -> np.ndarray:
    """(3, N) float32: what a shape key at 1 adds to the key that it is relative to."""
    offsets = _points(block) - _points(block.relative_key)
    return np.ascontiguousarray(points_to_head(offsets @ to_rest.T).T, np.float32)


def _points(block: bpy.types.ShapeKey) -> np.ndarray:
    values = np.empty(3 * len(block.data), np.float32)
    block.data.foreach_get("co", values)
    return values.reshape(-1, 3)
