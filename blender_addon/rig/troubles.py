"""What an artist has done to a rig that its avatar cannot follow, as sentences, and how each is mended.

An avatar can be moved, turned and scaled as a whole, and its joints turn about their own centres. Everything that a rig
can express by these it follows (`placement`); for the rest there is a sentence, in the panel and in a render's report,
and where possible a function that mends it (`mending`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import bpy
import numpy as np
from mathutils import Matrix

from .conventions import points_to_blender
from .data import JOINT_NAMES, PARENTS
from .placement import HeadPlace, has_size, head_place
from .rig_properties import Rig

SCALE_TOLERANCE: Final = 1e-3
"""Relative difference between the scales along the axes above which the artist is warned."""
LENGTH_TOLERANCE: Final = 5e-4
"""Metres, of a head at its own size, by which a joint may lie elsewhere before the artist is warned."""
OTHER_DEFORMERS: Final = frozenset(
    (
        "CAST",
        "CURVE",
        "DISPLACE",
        "HOOK",
        "LAPLACIANDEFORM",
        "LATTICE",
        "MESH_CACHE",
        "MESH_DEFORM",
        "MESH_SEQUENCE_CACHE",
        "SHRINKWRAP",
        "SIMPLE_DEFORM",
        "SMOOTH",
        "SURFACE_DEFORM",
        "WARP",
        "WAVE",
        "CLOTH",
        "SOFT_BODY",
        "CORRECTIVE_SMOOTH",
        "LAPLACIANSMOOTH",
    )
)
"""Types of modifiers that move a mesh's vertices, besides Armature."""


class Kind(Enum):
    """What is wrong. `mending` has a cure for each that can be mended."""

    NOT_DEFORMED = auto()
    DEFORMED_OTHERWISE = auto()
    MIRRORED = auto()
    UNEVEN = auto()
    REST_POSE = auto()
    BESIDE = auto()
    JOINT_MOVED = auto()
    OTHER_KEYS = auto()
    NO_GROUP = auto()
    OTHER_DEFORMER = auto()


@dataclass(frozen=True)
class Trouble:
    """One thing that the avatar cannot follow."""

    kind: Kind
    sentence: str
    source: bpy.types.Object | bpy.types.PoseBone | None = None
    """What has to be changed: of the kinds MIRRORED and UNEVEN the object or bone whose own scale it is, or None if it
    is that of the mesh's vertices; of JOINT_MOVED the bone."""
    mendable: bool = True


def find_trouble(rig: Rig, depsgraph: bpy.types.Depsgraph) -> Trouble | None:
    """The first thing that the avatar of a rig cannot follow in this frame; None if it follows everything."""
    place = head_place(rig, depsgraph)
    if not place.is_finite or not has_size(place.head_motion):
        # `read_pose` refuses the first, and there is nothing to see of the second.
        return None
    return next(_troubles(rig, place, depsgraph), None)


def sentence_of(rig: Rig, depsgraph: bpy.types.Depsgraph) -> str | None:
    """`find_trouble` as a sentence for a render's report."""
    trouble = find_trouble(rig, depsgraph)
    return None if trouble is None else trouble.sentence


def deformers(rig: Rig, depsgraph: bpy.types.Depsgraph | None) -> list[bpy.types.Modifier | None]:
    """Everything by which an armature deforms the rig's mesh, in a render or in the viewport: modifiers, and None for
    the parent that deforms without one.
    """
    rendering = depsgraph is not None and depsgraph.mode == "RENDER"
    shown = [modifier for modifier in rig.mesh.modifiers if modifier.type == "ARMATURE" and modifier.object is not None]
    effective = [modifier for modifier in shown if (modifier.show_render if rendering else modifier.show_viewport)]
    by_parent = rig.mesh.parent == rig.armature and rig.mesh.parent_type == "ARMATURE"
    return [*([None] if by_parent else []), *effective]


def differs(modifier: bpy.types.Modifier | None) -> bool:
    """Whether an Armature modifier deforms the mesh otherwise than the head model does."""
    return modifier is not None and bool(
        modifier.use_deform_preserve_volume
        or modifier.use_bone_envelopes
        or not modifier.use_vertex_groups
        or modifier.use_multi_modifier
        or modifier.vertex_group
    )


def _troubles(rig: Rig, place: HeadPlace, depsgraph: bpy.types.Depsgraph) -> Iterator[Trouble]:
    yield from _of_modifiers(rig, depsgraph)
    yield from _of_vertices(rig)
    yield from _of_scale(rig, place)
    size = np.cbrt(abs(np.linalg.det(place.bones[:3, :3])))
    if place.bones_misfit > LENGTH_TOLERANCE:
        yield Trouble(
            Kind.REST_POSE,
            f"The rest pose of “{rig.armature.name}” was edited: its bones no longer lie at the joints of the head, so "
            "the mesh moves otherwise than the avatar.",
        )
    joints = points_to_blender(rig.base_joints)
    apart = _moved(place.mesh, joints) - _moved(place.bones, joints)
    if np.linalg.norm(apart, axis=1).max() > LENGTH_TOLERANCE * size:
        yield Trouble(
            Kind.BESIDE,
            f"“{rig.mesh.name}” was moved without its armature “{rig.armature.name}”. The avatar follows it, but its "
            "neck, jaw and eyes would turn about points beside the head.",
        )
    yield from _of_joints(rig, place, size)
    for modifier in rig.mesh.modifiers:
        if modifier.type in OTHER_DEFORMERS and (modifier.show_viewport or modifier.show_render):
            yield Trouble(
                Kind.OTHER_DEFORMER,
                f"The modifier “{modifier.name}” changes the shape of “{rig.mesh.name}” and not of its avatar: remove "
                "it, or let it change other meshes only.",
                mendable=False,
            )


def _of_modifiers(rig: Rig, depsgraph: bpy.types.Depsgraph) -> Iterator[Trouble]:
    found = deformers(rig, depsgraph)
    if not any(modifier is None or modifier.object == rig.armature for modifier in found):
        yield Trouble(
            Kind.NOT_DEFORMED,
            f"“{rig.mesh.name}” is not deformed by “{rig.armature.name}”: its Armature modifier is missing, switched "
            "off or of another armature. The avatar follows the bones, the mesh does not.",
        )
    elif len(found) > 1 or differs(found[0]):
        yield Trouble(
            Kind.DEFORMED_OTHERWISE,
            f"The Armature modifiers of “{rig.mesh.name}” deform it otherwise than its avatar: an avatar needs one, by "
            "vertex groups and without Preserve Volume.",
        )


def _of_vertices(rig: Rig) -> Iterator[Trouble]:
    if rig.mesh.show_only_shape_key or not rig.mesh.data.shape_keys.use_relative:
        yield Trouble(
            Kind.OTHER_KEYS,
            f"“{rig.mesh.name}” shows one shape key alone, or its keys are not relative, so its face is not that of "
            "the avatar, which follows the sliders.",
        )
    # The root bone moves no vertex directly.
    lost = [name for name in map(rig.bone_name, JOINT_NAMES[1:]) if name not in rig.mesh.vertex_groups]
    if lost:
        yield Trouble(
            Kind.NO_GROUP,
            f"“{rig.mesh.name}” has no vertex group “{lost[0]}” any more, so that bone turns the avatar and not the "
            "mesh: give the group its name back, or undo its deletion.",
            mendable=False,
        )


def _of_scale(rig: Rig, place: HeadPlace) -> Iterator[Trouble]:
    # The sign of a flattened head's determinant is that of its rounding.
    mirrored = has_size(place.world) and np.linalg.det(place.world[:3, :3]) < 0
    uneven = _is_uneven(place.world)
    if not (uneven or mirrored):
        return
    source, name, own = _source_of_scale(rig, place, mirrored)
    if mirrored:
        yield Trouble(
            Kind.MIRRORED,
            f"“{name}” is mirrored by a negative scale. An avatar cannot be mirrored, so it is shown unmirrored. Make "
            "the scale positive.",
            source,
            own,
        )
    yield Trouble(
        Kind.UNEVEN,
        f"“{name}” is scaled by different amounts along its axes. The avatar uses the mean of the three. Use the same "
        "scale on all axes.",
        source,
        own,
    )


def _source_of_scale(
    rig: Rig, place: HeadPlace, mirrored: bool
) -> tuple[bpy.types.Object | bpy.types.PoseBone | None, str, bool]:
    """What is scaled so: an object or a bone, or None for the mesh's vertices; its name; and whether it is the rig's
    own, which may be changed.
    """

    def is_it(matrix: object) -> bool:
        values = np.array(matrix, np.float64)
        return np.linalg.det(values[:3, :3]) < 0 if mirrored else _is_uneven(values)

    if is_it(place.vertices):
        return None, rig.mesh.name, True
    for part in (rig.mesh, rig.armature):
        if is_it(part.matrix_basis):
            return part, part.name, True
    for joint in ("root", "neck"):
        bone = rig.pose_bone(joint)
        if is_it(bone.matrix_basis):
            return bone, bone.name, True
    parent = rig.armature.parent or rig.mesh.parent
    while parent is not None and not is_it(parent.matrix_basis) and parent.parent is not None:
        parent = parent.parent
    named = parent if parent is not None and parent != rig.armature else rig.armature
    return named, named.name, False


def _of_joints(rig: Rig, place: HeadPlace, size: float) -> Iterator[Trouble]:
    for index in range(1, len(JOINT_NAMES)):
        bone = rig.pose_bone(JOINT_NAMES[index])
        center = np.array(bone.bone.head_local, np.float64)
        of_parent = Matrix(place.motions[PARENTS[index]])
        relative = np.array(of_parent.inverted_safe() @ Matrix(place.motions[index]), np.float64)
        moved = np.linalg.norm(_moved(relative, center) - center)
        scales = np.linalg.svd(relative[:3, :3], compute_uv=False)
        if moved > LENGTH_TOLERANCE * size or np.abs(scales - 1).max() > SCALE_TOLERANCE:
            yield Trouble(
                Kind.JOINT_MOVED,
                f"The bone “{bone.name}” of “{rig.armature.name}” is moved or scaled. An avatar's neck, jaw and eyes "
                "only turn.",
                bone,
            )


def _is_uneven(matrix: np.ndarray) -> bool:
    scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
    return bool(scales.max() > scales.min() * (1 + SCALE_TOLERANCE))


def _moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]
