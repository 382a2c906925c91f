"""Blender's evaluated pose as the worker's `pose`.

Everything is read from the dependency graph, so that keys, NLA strips, drivers, constraints and parents count, and so
that a render reads the frame that it renders. Bones are read by what they do to the mesh, which no change of their rest
orientation alters.
"""

from __future__ import annotations

from typing import Any, Final

import bpy
import numpy as np
from mathutils import Matrix

from .conventions import points_to_head, quaternion_to_axis_angle, transform_to_head
from .data import JOINT_NAMES, PARENTS
from .rig_properties import Rig, lost_expression

UNEVEN: Final = 1e-3
"""Share by which scales may differ before an artist is told that the avatar cannot follow."""


def read_pose(rig: Rig, depsgraph: bpy.types.Depsgraph) -> dict[str, Any]:
    """The protocol's `pose` of an evaluated rig.

    expression (E,) in the head model's order, neck, jaw, eye_L, eye_R (3,) axis-angle in head space, root (4, 4) world
    from head in head-space axes with a uniform scale. Where the objects are scaled unevenly the root has the mean scale
    (see `transform_warning`).
    """
    expression, jaw = _read_expression(rig, depsgraph)
    armature = rig.armature.evaluated_get(depsgraph)
    motions = _bone_motions(rig, armature)
    turns = []
    for index in range(1, len(JOINT_NAMES)):
        relative = motions[PARENTS[index]].inverted_safe() @ motions[index]
        turns.append(relative.to_quaternion())
    vectors = points_to_head(quaternion_to_axis_angle(np.array(turns)))
    pose: dict[str, Any] = {"expression": expression}
    vectors[JOINT_NAMES.index("jaw") - 1] += jaw
    pose.update(zip(JOINT_NAMES[1:], vectors.astype(np.float32)))
    pose["root"] = transform_to_head(_similarity(armature.matrix_world @ motions[0]))
    return pose


def head_motion(rig: Rig, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """(4, 4) similarity of Blender's world: what root and neck together do to the head at rest."""
    armature = rig.armature.evaluated_get(depsgraph)
    return _similarity(armature.matrix_world @ _bone_motions(rig, armature)[JOINT_NAMES.index("neck")])


def transform_warning(rig: Rig, depsgraph: bpy.types.Depsgraph) -> str | None:
    """A sentence where the rig is scaled as an avatar cannot be, else None."""
    armature = rig.armature.evaluated_get(depsgraph)
    matrix = armature.matrix_world @ _bone_motions(rig, armature)[0]
    if matrix.to_3x3().determinant() < 0:
        return (
            f'"{rig.armature.name}" is mirrored by a negative scale, which an avatar cannot be: it is shown '
            "unmirrored. Make the scale positive."
        )
    scales = np.linalg.svd(np.array(matrix.to_3x3()), compute_uv=False)
    if scales.max() > scales.min() * (1 + UNEVEN):
        return (
            f'"{rig.armature.name}" or one of its parents is scaled by different amounts along its axes: the '
            "avatar takes the mean. Scale all axes alike."
        )
    return None


def _read_expression(rig: Rig, depsgraph: bpy.types.Depsgraph) -> tuple[np.ndarray, np.ndarray]:
    """Expression (E,) and what ARKit's channels turn the jaw by (3,), on a head to which they are put."""
    blocks = rig.mesh.data.shape_keys.evaluated_get(depsgraph).key_blocks
    # A property at a time, in bulk: a head has some hundred keys and this is called for every redraw.
    values, muted = np.empty(len(blocks), np.float32), np.empty(len(blocks), bool)
    blocks.foreach_get("value", values)
    blocks.foreach_get("mute", muted)
    values[muted] = 0
    place = {name: index for index, name in enumerate(blocks.keys())}
    try:
        expression = values[[place[name] for name in rig.expression_names]]
        channels = values[[place[name] for name in rig.arkit_names]]
    except KeyError as error:
        raise lost_expression(rig, str(error.args[0])) from None
    if not channels.any():
        return expression, np.zeros(3)
    return (expression + channels @ rig.arkit_expression).astype(np.float32), channels @ rig.arkit_jaw


def _bone_motions(rig: Rig, armature: bpy.types.Object) -> list[Matrix]:
    """What each joint's bone does to points at rest, in the armature's space; `armature` is evaluated."""
    bones = armature.pose.bones
    motions = []
    for joint in JOINT_NAMES:
        bone = bones[rig.bone_name(joint)]
        motions.append(bone.matrix @ bone.bone.matrix_local.inverted_safe())
    return motions


def _similarity(matrix: Matrix) -> np.ndarray:
    """(4, 4) float64: the nearest rotation, the mean scale and the translation of an affine matrix."""
    affine = np.array(matrix, np.float64)
    u, scales, vt = np.linalg.svd(affine[:3, :3])
    turn = u @ np.diag((1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt
    result = np.eye(4)
    result[:3, :3] = turn * scales.mean()
    result[:3, 3] = affine[:3, 3]
    return result
