"""Expressions grouped by region of the face; keying, resetting and mirroring them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import bpy
from mathutils import Quaternion, Vector

from ..errors import EffigyError
from .data import JOINT_NAMES
from .face_angles import rotate, rotation_of, rotation_path
from .rig_properties import Rig

REGIONS: Final = ("brows", "eyes", "lids", "cheeks", "mouth", "jaw", "other")
"""From the top of the face down. `other` holds expressions whose names show no region, such as FLAME's coefficients."""

_PREFIXES: Final = (
    ("brow", "brows"),
    ("eyeLook", "eyes"),
    ("eye", "lids"),
    ("cheek", "cheeks"),
    ("noseSneer", "cheeks"),
    ("mouth", "mouth"),
    ("tongue", "mouth"),
    ("jaw", "jaw"),
)
REGION_LABELS: Final = {
    "brows": "Brows",
    "eyes": "Gaze",
    "lids": "Lids",
    "cheeks": "Cheeks and Nose",
    "mouth": "Mouth",
    "jaw": "Jaw",
    "other": "Others",
}
REGION_PARTS: Final = {"eyes": ("eye_L", "eye_R"), "jaw": ("jaw",), "other": ("neck",)}
"""Parts of the face (`face_angles.PARTS`) whose angles are shown with a region's sliders."""

GAZE_HANDLES: Final = ("face_gaze", "board_lids")
"""What the names of the handles begin with that move eyes and lids with the gaze."""
MOUTH_HANDLES: Final = (
    *("face_lip", "face_mouth", "face_jaw", "face_chin"),
    *(f"board_{name}" for name in ("tongue", "pucker", "funnel", "close", "jaw_forward")),
)
"""What the names of the handles begin with that move the sliders of mouth and jaw."""
MIRROR_JOINT: Final = {"neck": "neck", "jaw": "jaw", "eye_L": "eye_R", "eye_R": "eye_L"}


def region_of(name: str) -> str:
    return next((region for prefix, region in _PREFIXES if name.startswith(prefix)), "other")


def by_region(names: Iterable[str]) -> dict[str, list[str]]:
    """Groups expression names by region, from the top of the face down. Regions without expressions are left out."""
    grouped: dict[str, list[str]] = {region: [] for region in REGIONS}
    for name in names:
        grouped[region_of(name)].append(name)
    return {region: members for region, members in grouped.items() if members}


def mirror_name(name: str) -> str | None:
    """`mouthSmileLeft` -> `mouthSmileRight` and back; None for an expression without a side."""
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return None


def key_all(rig: Rig, frame: float, *, root: bool = False) -> None:
    """Keys all expressions, the handles, the neck, the jaw and the eyes at `frame`; with `root`, the place of
    the head and the torso's pose as well.
    """
    _require_editable(rig)
    for block in rig.slider_keys():
        block.keyframe_insert("value", frame=frame, group="Expressions")
    for joint in JOINT_NAMES if root else JOINT_NAMES[1:]:
        bone = rig.pose_bone(joint)
        bone.keyframe_insert(rotation_path(bone), frame=frame, group=bone.name)
    placed = list(rig.handle_bones().values()) + ([rig.pose_bone("root")] if root else [])
    if root and rig.torso_bone is not None:
        placed.append(rig.armature.pose.bones[rig.torso_bone])
        placed[-1].keyframe_insert(rotation_path(placed[-1]), frame=frame, group=placed[-1].name)
    for bone in placed:
        bone.keyframe_insert("location", frame=frame, group=bone.name)


def reset(rig: Rig) -> None:
    """Sets all expressions to zero and the handles, neck, jaw and eyes to rest. The head keeps its position."""
    _require_editable(rig)
    for block in rig.slider_keys():
        block.value = 0.0
    rest_handles(rig)
    for joint in JOINT_NAMES[1:]:
        rotate(rig.pose_bone(joint), Quaternion())
    refresh(rig)


def mirror(rig: Rig) -> None:
    """Swaps the left and the right side of the face: the expressions, and the rotations of neck, jaw and eyes."""
    _require_editable(rig)
    names = rig.slider_names
    if not any(mirror_name(name) in names for name in names):
        raise EffigyError(
            f'The expressions of "{rig.head_name}" have no left and right side, so they cannot be mirrored.'
        )
    keys = dict(zip(names, rig.slider_keys(), strict=True))
    values = {name: block.value for name, block in keys.items()}
    for name, block in keys.items():
        block.value = values.get(mirror_name(name) or name, values[name])
    bones = rig.handle_bones()
    places = {name: bone.location.copy() for name, bone in bones.items()}
    for name, bone in bones.items():
        bone.location = places.get(bpy.utils.flip_name(name), places[name]) * Vector((-1, 1, 1))
    rotations = {joint: rotation_of(rig.pose_bone(joint)) for joint in JOINT_NAMES[1:]}
    for joint, other in MIRROR_JOINT.items():
        # At rest the x axis of every bone is normal to the mirror plane. A reflection keeps rotation about that axis.
        rotation = rotations[other]
        rotate(rig.pose_bone(joint), Quaternion((rotation.w, rotation.x, -rotation.y, -rotation.z)))
    refresh(rig)


def rest_handles(rig: Rig, keep_gaze: bool = False) -> None:
    """Moves the handles of the face board to rest; with `keep_gaze`, all but those of the gaze."""
    for name, bone in rig.handle_bones().items():
        if not (keep_gaze and name.startswith(GAZE_HANDLES)):
            bone.location = (0, 0, 0)


def set_expressions(rig: Rig, values: dict[str, float], keep: str | None = None) -> None:
    """Sets these expressions, and all others to zero, except those whose names begin with `keep`. Names that the head
    does not have are ignored. Handles go to rest, except those of the gaze.
    """
    _require_editable(rig)
    rest_handles(rig, keep_gaze=True)
    for name, block in zip(rig.slider_names, rig.slider_keys(), strict=True):
        if keep is None or not name.startswith(keep):
            block.value = values.get(name, 0.0)
    refresh(rig)


def refresh(rig: Rig) -> None:
    """Makes Blender evaluate and redraw the rig after its values were set from Python."""
    rig.mesh.data.update_tag()
    rig.mesh.data.shape_keys.update_tag()
    rig.armature.update_tag()


def _require_editable(rig: Rig) -> None:
    if not rig.is_editable:
        raise EffigyError(
            f'"{rig.armature.name}" is linked from another file: make a library override of it, then pose that.'
        )
