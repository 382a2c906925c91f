"""Where a rig's head is in Blender's world. Viewport, renders, bakes and exports ask here, through `pose.read_pose`.

Four things decide it: the transforms of the mesh and of the armature, with their parents, constraints and animation;
the armature's rest bones; the mesh's own vertices; and the posed bones. Blender deforms the mesh in the armature's
space: a vertex v of the mesh goes to W_a Σ w_b B_b W_a⁻¹ W_m v, with the world matrices W_a of the armature and W_m of
the mesh, the weights w_b and the motion B_b that a bone applies to points at rest. An artist may move either object, or
apply its transform to its data, which changes rest bones or vertices. The mesh that Blender draws is the truth: the
avatar lies where the mesh's vertices lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import bpy
import numpy as np
from mathutils import Matrix

from .conventions import HEAD_TO_BLENDER, points_to_blender, points_to_head
from .data import JOINT_NAMES, PARENTS
from .rig_properties import Rig
from .rotations import axis_angle_to_quaternion, quaternion_to_axis_angle, quaternion_to_matrix

ROUNDING: Final = 1e-5
"""Metres, of a head at its own size: differences of single precision."""

SAME_VERTICES: Final = 1e-4
"""Of the mesh's size: vertices that lie farther from where one transform takes them were moved otherwise."""

MOST_FITS: Final = 10
"""Of a transform to vertices, each to those that the last one fitted best."""

SAMPLES: Final = 200
"""Of four vertices each. Where half of the vertices were sculpted, one in sixteen has none of them."""

SMALLEST_SCALE: Final = 1e-5
"""Of a head that is drawn: below it the head is smaller than a hundredth of a millimetre."""

_NECK: Final = JOINT_NAMES.index("neck")


@dataclass(frozen=True)
class HeadPlace:
    """Where a head is in one frame, in Blender's axes."""

    world: np.ndarray
    """(4, 4) affine: the motion from the head at rest, in the head model's own size, to the head that Blender draws.
    Root, neck and both objects' transforms are part of it."""
    vertices: np.ndarray
    """(4, 4) affine: from the head at rest to the mesh's own space; the identity until a transform is applied to the
    mesh."""
    mesh: np.ndarray
    """(4, 4) affine: from the head at rest to the armature's space, by the mesh's vertices and both objects."""
    bones: np.ndarray
    """(4, 4) similarity: from the head at rest to the armature's space, by the armature's rest bones."""
    bones_misfit: float
    """Largest distance of a rest bone from its joint after `bones`, metres of the head's own size."""
    motions: np.ndarray
    """(5, 4, 4) the motion that each joint's bone applies to points at rest, armature space."""
    rotations: np.ndarray
    """(4, 3) axis-angle of neck, jaw and eyes relative to their parents, head space, radians."""
    torso_world: np.ndarray
    """(4, 4) affine: as `world`, of what follows the bone of the torso, or the root on a rig without it."""

    @property
    def is_finite(self) -> bool:
        return all(np.isfinite(each).all() for each in (self.world, self.motions, self.rotations, self.torso_world))

    @property
    def head_motion(self) -> np.ndarray:
        """(4, 4) `world` as the nearest similarity."""
        return nearest_similarity(self.world)

    def root(self, joints: np.ndarray) -> np.ndarray:
        """(4, 4) similarity that moves the head model, posed by `rotations` about its `joints` (5, 3) in head space, so
        that its head lies at `world`.
        """
        back, neck = np.eye(4), points_to_blender(joints[_NECK])
        axis_angle = -points_to_blender(self.rotations[_NECK - 1])
        back[:3, :3] = quaternion_to_matrix(axis_angle_to_quaternion(axis_angle)[None])[0]
        back[:3, 3] = neck - back[:3, :3] @ neck
        return self.head_motion @ back

    def torso(self, joints: np.ndarray) -> np.ndarray:
        """(4, 4): the rigid motion of the torso from its rest, below a head that `root` has not moved, in Blender's
        axes.
        """
        motion = nearest_similarity(np.linalg.inv(self.root(joints)) @ self.torso_world)
        motion[:3, :3] /= max(float(np.cbrt(np.linalg.det(motion[:3, :3]))), 1e-12)
        return motion


def head_place(rig: Rig, depsgraph: bpy.types.Depsgraph) -> HeadPlace:
    """Where the head of a rig is. The matrices may be infinite or no numbers where a transform is (`is_finite`)."""
    armature = rig.armature.evaluated_get(depsgraph)
    motions = _bone_motions(rig, armature)
    bones, misfit = head_by_bones(rig, armature)
    world_of_armature = np.array(armature.matrix_world, np.float64)
    to_armature = np.array(armature.matrix_world.inverted_safe(), np.float64)
    mesh_object = to_armature @ _world_of_mesh(rig, armature, depsgraph)
    vertices = _by_vertices(rig)
    if vertices is None:
        vertices = _by_eyes(rig, mesh_object, bones)
    mesh = mesh_object @ vertices
    return HeadPlace(
        world_of_armature @ motions[_NECK] @ mesh,
        vertices,
        mesh,
        bones,
        misfit,
        motions,
        _relative_rotations(motions, bones),
        world_of_armature @ _torso_motion(rig, armature, motions) @ mesh,
    )


def has_size(world: np.ndarray) -> bool:
    """Whether a head that (4, 4) moves can be seen: not one that is scaled to nothing, as to make it appear."""
    return abs(float(np.linalg.det(world[:3, :3]))) > SMALLEST_SCALE**3


def nearest_similarity(matrix: np.ndarray) -> np.ndarray:
    """(4, 4) float64: nearest rotation (by singular value decomposition), mean scale and translation of an affine
    matrix (4, 4).
    """
    affine = np.array(matrix, np.float64)
    u, scales, vt = np.linalg.svd(affine[:3, :3])
    rotation = u @ np.diag((1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt
    result = np.eye(4)
    result[:3, :3] = rotation * scales.mean()
    result[:3, 3] = affine[:3, 3]
    return result


def _by_vertices(rig: Rig) -> np.ndarray | None:
    """`HeadPlace.vertices` by those vertices that were noted when the rig was made; None if none were, or if vertices
    have other numbers since or most were sculpted, so that no one transform has taken them where they are.
    """
    noted = rig.noted_vertices
    if noted is None:
        return None
    indices, points = noted
    basis = rig.mesh.data.shape_keys.reference_key.data
    if indices[-1] >= len(basis):
        return None
    now = np.array([basis[index].co for index in indices], np.float64)
    if np.count_nonzero(np.abs(now - points).max(1) < ROUNDING) > len(points) / 2:
        # Some may have been sculpted.
        return np.eye(4)
    return _fit_affine(points, now)


def _by_eyes(rig: Rig, mesh_object: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """`HeadPlace.vertices` where vertices do not tell it, as on a rig of an earlier version: either nothing was applied
    to the mesh, or what was applied to the armature as well, whichever puts the eyes' joints nearer to the eyeballs.

    `mesh_object` (4, 4) is the mesh object in the armature's space, `bones` that of `HeadPlace`, which is what was
    applied to the armature.
    """
    if np.abs(mesh_object - bones).max() < ROUNDING:
        return np.eye(4)
    eyeballs = _eyeballs(rig)
    eyes = points_to_blender(rig.base_joints[-2:])
    if eyeballs is None:
        return np.eye(4)
    moved = eyes @ bones[:3, :3].T + bones[:3, 3]
    return bones if np.abs(moved - eyeballs).sum() < np.abs(eyes - eyeballs).sum() else np.eye(4)


_eye_vertices: Final[dict[tuple[int, int], list[np.ndarray]]] = {}
"""By a mesh's `session_uid` and its number of vertices: those that follow the bone of the left and of the right eye."""


def _eyeballs(rig: Rig) -> np.ndarray | None:
    """(2, 3) centres of the left and the right eyeball in the mesh's space; None if its vertex groups are gone."""
    mesh = rig.mesh.data
    key = mesh.session_uid, len(mesh.vertices)
    if key not in _eye_vertices:
        groups = [rig.mesh.vertex_groups.get(rig.bone_name(joint)) for joint in JOINT_NAMES[-2:]]
        _eye_vertices[key] = [
            np.array([v.index for v in mesh.vertices if group and any(g.group == group.index for g in v.groups)], int)
            for group in groups
        ]
    points = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.shape_keys.reference_key.data.foreach_get("co", points)
    found = _eye_vertices[key]
    return np.array([points.reshape(-1, 3)[each].mean(0) for each in found]) if all(map(len, found)) else None


def head_by_bones(rig: Rig, armature: bpy.types.Object) -> tuple[np.ndarray, float]:
    """(4, 4) similarity from the head at rest to the armature's space that fits the rest bones, and the largest
    distance that remains, in metres of the head's own size.
    """
    bones = armature.data.bones
    heads = np.array([bones[rig.bone_name(joint)].head_local for joint in JOINT_NAMES], np.float64)
    joints = points_to_blender(rig.base_joints)
    if not np.isfinite((heads, joints, points_to_blender(rig.joints))).all():
        # The bones' motions are no numbers either (`HeadPlace.is_finite`).
        return np.eye(4), np.inf
    if np.abs(heads - joints).max() < ROUNDING:
        return np.eye(4), 0.0
    fitted, misfit = _fit_similarity(joints, heads)
    if misfit > ROUNDING:
        # The bones may have been refreshed for a changed identity, whose joints lie elsewhere.
        changed = points_to_blender(rig.joints)
        other, left = _fit_similarity(changed, heads)
        if left < misfit:
            fitted, misfit = other, left
            if np.abs(heads - changed).max() < ROUNDING:
                fitted = np.eye(4)
    return fitted, misfit


def joint_axes(rig: Rig, joint: str) -> np.ndarray:
    """(3, 3): an axis-angle vector in head space, multiplied from the left, becomes that of the joint's bone."""
    # An artist may have applied a transform to the armature, which moves its rest bones.
    head = head_by_bones(rig, rig.armature)[0]
    turn = head[:3, :3] / np.cbrt(np.linalg.det(head[:3, :3]))
    rest = np.array(rig.pose_bone(joint).bone.matrix_local, np.float64)
    # A change of axes rotates the axis of a rotation and keeps its angle.
    return HEAD_TO_BLENDER[:3, :3].T @ turn.T @ rest[:3, :3]


def _world_of_mesh(rig: Rig, armature: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """(4, 4) world matrix of the mesh object; `armature` is evaluated."""
    mesh = rig.mesh.evaluated_get(depsgraph)
    if mesh.is_evaluated or rig.mesh.parent != rig.armature or rig.mesh.parent_type not in ("OBJECT", "ARMATURE"):
        return np.array(mesh.matrix_world, np.float64)
    # Blender does not evaluate a mesh that is hidden everywhere.
    local = rig.mesh.matrix_parent_inverse @ rig.mesh.matrix_basis
    return np.array(armature.matrix_world @ local, np.float64)


def _bone_motions(rig: Rig, armature: bpy.types.Object) -> np.ndarray:
    """(5, 4, 4) the motion that each joint's bone applies to points at rest, in the evaluated `armature`'s space."""
    bones = armature.pose.bones
    motions = []
    for joint in JOINT_NAMES:
        bone = bones[rig.bone_name(joint)]
        motions.append(bone.matrix @ bone.bone.matrix_local.inverted_safe())
    return np.array(motions, np.float64)


def _torso_motion(rig: Rig, armature: bpy.types.Object, motions: np.ndarray) -> np.ndarray:
    """(4, 4) the motion that the bone of the torso, or the root, applies to points at rest, armature space."""
    name = rig.torso_bone
    if name is None:
        return motions[0]
    bone = armature.pose.bones[name]
    return np.array(bone.matrix @ bone.bone.matrix_local.inverted_safe(), np.float64)


def _relative_rotations(motions: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """(4, 3) axis-angle in head space of each joint's motion relative to its parent's."""
    quaternions = []
    for index in range(1, len(JOINT_NAMES)):
        relative = Matrix(motions[PARENTS[index]]).inverted_safe() @ Matrix(motions[index])
        quaternions.append(relative.to_quaternion())
    vectors = quaternion_to_axis_angle(np.array(quaternions))
    rotation = nearest_similarity(bones)[:3, :3]
    # Bones that lie in one point have no size to divide by: the result is no number, which `is_finite` tells.
    with np.errstate(invalid="ignore", divide="ignore"):
        return points_to_head(vectors @ (rotation / np.cbrt(np.linalg.det(rotation))))


def _fit_similarity(points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, float]:
    """The similarity (4, 4) that brings points (N, 3) nearest to targets (N, 3), and the largest distance that remains,
    divided by its scale (Umeyama 1991, eq. 34-43).
    """
    result = np.eye(4)
    center, target_center = points.mean(0), targets.mean(0)
    u, values, vt = np.linalg.svd((targets - target_center).T @ (points - center))
    signs = np.array((1, 1, np.sign(np.linalg.det(u @ vt))))
    scale = (values * signs).sum() / ((points - center) ** 2).sum()
    result[:3, :3] = scale * (u * signs) @ vt
    result[:3, 3] = target_center - result[:3, :3] @ center
    left = np.linalg.norm(points @ result[:3, :3].T + result[:3, 3] - targets, axis=1).max()
    return result, float(left / max(scale, 1e-12))


def _fit_affine(points: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
    """The affine transformation (4, 4) that brings at least half of points (N, 3) to their targets (N, 3); the others
    may have been sculpted. None if there is none.

    It is searched by least trimmed squares (Rousseeuw and Van Driessen 2006), from all points, and where sculpted ones
    mislead that, from the best of random samples of four.
    """
    finite = np.isfinite(targets).all(1)
    points, targets = points[finite], targets[finite]
    count = max(len(points) // 2, 8)
    if len(points) < count:
        return None
    homogeneous = np.c_[points, np.ones(len(points))]
    tolerance = SAME_VERTICES * np.ptp(targets, axis=0).max()
    for start in (lambda: np.arange(len(points)), lambda: _best_sample(homogeneous, targets, count)):
        kept, solved, distances = start(), np.zeros((4, 3)), np.zeros(len(points))
        for _ in range(MOST_FITS):
            solved = np.linalg.lstsq(homogeneous[kept], targets[kept], rcond=None)[0]
            distances = np.linalg.norm(homogeneous @ solved - targets, axis=1)
            before, kept = kept, np.sort(np.argsort(distances)[:count])
            if np.array_equal(before, kept):
                break
        if distances[kept].max() <= tolerance:
            result = np.eye(4)
            result[:3] = solved.T
            return result
    return None


def _best_sample(homogeneous: np.ndarray, targets: np.ndarray, count: int) -> np.ndarray:
    """The indices (count,) of those of N points that the affine transformation of four of them brings nearest to their
    targets (N, 3), for that one of `SAMPLES` fours which brings them there best (RANSAC). `homogeneous`: (N, 4).
    """
    order = np.random.default_rng(0).random((SAMPLES, len(homogeneous)))
    chosen = np.argpartition(order, 4, axis=1)[:, :4]
    # The pseudo-inverse, because four points in one plane have no inverse.
    solved = np.linalg.pinv(homogeneous[chosen]) @ targets[chosen]
    distances = np.linalg.norm(homogeneous @ solved - targets, axis=2)
    nearest = np.argpartition(distances, count - 1, axis=1)[:, :count]
    best = np.take_along_axis(distances, nearest, 1).max(1).argmin()
    return nearest[best]
