"""Reads the evaluated pose of a rig in the form that the worker takes.

Everything is read from Blender's dependency graph, so keyframes, NLA strips, drivers, constraints and parents all
count, and a render reads the frame that it renders. A bone is read as the motion that it applies to the skinned mesh,
which does not depend on the bone's rest orientation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np
from mathutils import Matrix

from ..errors import EffigyError
from .conventions import points_to_head, transform_to_head
from .data import JOINT_NAMES, PARENTS
from .rig_properties import Rig, lost_expression
from .rotations import quaternion_to_axis_angle

SCALE_TOLERANCE: Final = 1e-3
"""Relative difference between the scales along the axes above which the artist is warned."""

SMALLEST_SCALE: Final = 1e-5
"""Of a head that is drawn: below it the head is smaller than a hundredth of a millimetre."""

_NECK: Final = JOINT_NAMES.index("neck")
_JAW: Final = JOINT_NAMES.index("jaw")


@dataclass(frozen=True)
class RigPose:
    """The pose of a rig in one frame. Joint rotations are axis-angle vectors in head space, radians."""

    expression: np.ndarray
    """(E,) float32 coefficients in the head model's order."""
    neck: np.ndarray
    """(3,) float32"""
    jaw: np.ndarray
    """(3,) float32"""
    eye_L: np.ndarray
    """(3,) float32"""
    eye_R: np.ndarray
    """(3,) float32"""
    root: np.ndarray
    """(4, 4) world from head in head-space axes, with a uniform scale. Where the objects are scaled unevenly this is
    the mean scale (see `transform_warning`)."""
    head_motion: np.ndarray
    """(4, 4) similarity in Blender's world: the motion that root and neck together apply to the head at rest."""

    @property
    def has_size(self) -> bool:
        """Whether there is anything to draw: false for a head that is scaled to nothing, as to make it appear."""
        return abs(float(np.linalg.det(self.root[:3, :3]))) > SMALLEST_SCALE**3

    def message(self) -> dict[str, Any]:
        """The worker protocol's `pose`."""
        return {
            "expression": self.expression,
            "neck": self.neck,
            "jaw": self.jaw,
            "eye_L": self.eye_L,
            "eye_R": self.eye_R,
            "root": self.root,
        }


def read_pose(rig: Rig, depsgraph: bpy.types.Depsgraph) -> RigPose:
    """The evaluated pose of a rig. Raises an `EffigyError` where the rig has lost a bone or a shape key, and where a
    slider or a transform is no finite number.
    """
    expression, jaw = _read_expression(rig, depsgraph)
    armature = rig.armature.evaluated_get(depsgraph)
    motions = _bone_motions(rig, armature)
    if not (np.isfinite(expression).all() and np.isfinite(np.array([armature.matrix_world, *motions])).all()):
        raise EffigyError(
            f'A slider, a bone or the transform of "{rig.armature.name}" is no finite number: reset the expression and '
            "clear the transforms of the rig and its parents."
        )
    local_rotations = []
    for index in range(1, len(JOINT_NAMES)):
        relative = motions[PARENTS[index]].inverted_safe() @ motions[index]
        local_rotations.append(relative.to_quaternion())
    vectors = points_to_head(quaternion_to_axis_angle(np.array(local_rotations)))
    vectors[_JAW - 1] += jaw
    world = armature.matrix_world
    return RigPose(
        expression,
        *vectors.astype(np.float32),
        root=transform_to_head(_similarity(world @ motions[0])),
        head_motion=_similarity(world @ motions[_NECK]),
    )


def transform_warning(rig: Rig, depsgraph: bpy.types.Depsgraph) -> str | None:
    """A sentence where the rig is mirrored or unevenly scaled, which an avatar cannot follow; otherwise None."""
    armature = rig.armature.evaluated_get(depsgraph)
    matrix = armature.matrix_world @ _bone_motions(rig, armature)[0]
    if not np.isfinite(np.array(matrix)).all():
        # `read_pose` refuses it.
        return None
    if matrix.to_3x3().determinant() < 0:
        return (
            f'"{rig.armature.name}" is mirrored by a negative scale. An avatar cannot be mirrored, so it is shown '
            "unmirrored. Make the scale positive."
        )
    scales = np.linalg.svd(np.array(matrix.to_3x3()), compute_uv=False)
    if scales.max() > scales.min() * (1 + SCALE_TOLERANCE):
        return (
            f'"{rig.armature.name}" or one of its parents is scaled by different amounts along its axes. The '
            "avatar uses the mean of the three. Use the same scale on all axes."
        )
    return None


def _read_expression(rig: Rig, depsgraph: bpy.types.Depsgraph) -> tuple[np.ndarray, np.ndarray]:
    """Expression coefficients (E,) and the jaw rotation (3,) that ARKit's channels add on a head that has them beside
    its own expressions.
    """
    blocks = rig.mesh.data.shape_keys.evaluated_get(depsgraph).key_blocks
    # Each property is read in bulk: a head has several hundred shape keys and this runs at every redraw.
    values, muted = np.empty(len(blocks), np.float32), np.empty(len(blocks), bool)
    blocks.foreach_get("value", values)
    blocks.foreach_get("mute", muted)
    values[muted] = 0
    index_of = {name: index for index, name in enumerate(blocks.keys())}
    try:
        expression = values[[index_of[name] for name in rig.expression_names]]
        channels = values[[index_of[name] for name in rig.arkit_names]]
    except KeyError as error:
        raise lost_expression(rig, str(error.args[0])) from None
    if not channels.any():
        return expression, np.zeros(3)
    return (expression + channels @ rig.arkit_expression).astype(np.float32), channels @ rig.arkit_jaw


def _bone_motions(rig: Rig, armature: bpy.types.Object) -> list[Matrix]:
    """The motion (4, 4) that each joint's bone applies to points at rest, in armature space; `armature` is
    evaluated.
    """
    bones = armature.pose.bones
    motions = []
    for joint in JOINT_NAMES:
        bone = bones[rig.bone_name(joint)]
        motions.append(bone.matrix @ bone.bone.matrix_local.inverted_safe())
    return motions


def _similarity(matrix: Matrix) -> np.ndarray:
    """(4, 4) float64: nearest rotation (by singular value decomposition), mean scale and translation of an affine
    matrix.
    """
    affine = np.array(matrix, np.float64)
    u, scales, vt = np.linalg.svd(affine[:3, :3])
    rotation = u @ np.diag((1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt
    result = np.eye(4)
    result[:3, :3] = rotation * scales.mean()
    result[:3, 3] = affine[:3, 3]
    return result
