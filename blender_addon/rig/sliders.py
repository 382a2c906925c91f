"""The expressions as an artist thinks of them: by region, with a left and a right, to be keyed, reset and mirrored."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mathutils import Quaternion

from ..errors import EffigyError
from .data import JOINT_NAMES
from .rig_properties import Rig

REGIONS: Final = ("brows", "eyes", "lids", "cheeks", "mouth", "jaw", "other")
"""In the order of the face, from above. `other` holds what has no name by region, such as FLAME's coefficients."""

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
REGION_JOINTS: Final = {"eyes": ("eye_L", "eye_R"), "jaw": ("jaw",), "other": ("neck",)}
"""Bones that belong beside a region's sliders."""

_MIRROR_JOINT: Final = {"neck": "neck", "jaw": "jaw", "eye_L": "eye_R", "eye_R": "eye_L"}


def region_of(name: str) -> str:
    return next((region for prefix, region in _PREFIXES if name.startswith(prefix)), "other")


def by_region(names: Iterable[str]) -> dict[str, list[str]]:
    """Expression names grouped, regions from above; those without any name are left out."""
    grouped: dict[str, list[str]] = {region: [] for region in REGIONS}
    for name in names:
        grouped[region_of(name)].append(name)
    return {region: members for region, members in grouped.items() if members}


def mirror_name(name: str) -> str | None:
    """`mouthSmileLeft` -> `mouthSmileRight` and back; None where an expression has no side."""
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return None


def key_all(rig: Rig, frame: float, *, root: bool = False) -> None:
    """Key every expression, neck, jaw and eyes at `frame`, and with `root` the head's place."""
    _refuse_linked(rig)
    for block in rig.slider_keys():
        block.keyframe_insert("value", frame=frame, group="Expressions")
    for joint in JOINT_NAMES if root else JOINT_NAMES[1:]:
        bone = rig.pose_bone(joint)
        bone.keyframe_insert("rotation_quaternion", frame=frame, group=bone.name)
    if root:
        bone = rig.pose_bone("root")
        bone.keyframe_insert("location", frame=frame, group=bone.name)


def reset(rig: Rig) -> None:
    """The neutral face: expressions at zero, neck, jaw and eyes at rest. The head stays where it is."""
    _refuse_linked(rig)
    for block in rig.slider_keys():
        block.value = 0.0
    for joint in JOINT_NAMES[1:]:
        rig.pose_bone(joint).rotation_quaternion = Quaternion()
    refresh(rig)


def mirror(rig: Rig) -> None:
    """Swap the left and the right side of the face: expressions, and the turns of neck, jaw and eyes."""
    _refuse_linked(rig)
    names = rig.slider_names
    if not any(mirror_name(name) in names for name in names):
        raise EffigyError(
            f'The expressions of "{rig.head_name}" have no left and right side, so they cannot be mirrored.'
        )
    keys = dict(zip(names, rig.slider_keys()))
    values = {name: block.value for name, block in keys.items()}
    for name, block in keys.items():
        block.value = values.get(mirror_name(name), values[name])
    turns = {joint: rig.pose_bone(joint).rotation_quaternion.copy() for joint in JOINT_NAMES[1:]}
    for joint, other in _MIRROR_JOINT.items():
        # All bones have the mirror's axis for their x axis, at rest: a reflection keeps that part of a turn.
        turn = turns[other]
        rig.pose_bone(joint).rotation_quaternion = Quaternion((turn.w, turn.x, -turn.y, -turn.z))
    refresh(rig)


def set_expressions(rig: Rig, values: dict[str, float]) -> None:
    """Set these expressions and put all others to zero; names that the head does not have are passed over."""
    _refuse_linked(rig)
    for name, block in zip(rig.slider_names, rig.slider_keys()):
        block.value = values.get(name, 0.0)
    refresh(rig)


def refresh(rig: Rig) -> None:
    """Have Blender evaluate and redraw the rig after values were set by a program."""
    rig.mesh.data.update_tag()
    rig.mesh.data.shape_keys.update_tag()
    rig.armature.update_tag()


def _refuse_linked(rig: Rig) -> None:
    if not rig.is_editable:
        raise EffigyError(
            f'"{rig.armature.name}" is linked from another file: make a library override of it, then pose it.'
        )
