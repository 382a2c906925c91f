"""Gaze, jaw and neck as angles, in place of the components of quaternions that the bones store.

`Object.effigy_face` on a rig's armature holds nothing itself: it reads the bones, and turns them when a value is set.
Gaze turns both eyes and sets the eyeLook sliders, which move only the lids. Blender cannot animate such a property;
keys lie on the bones and sliders (`key_part`), and Auto Keying inserts them here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import atan2, degrees, hypot, radians
from typing import Any, Final

import bpy
from bpy.props import FloatProperty, PointerProperty
from mathutils import Quaternion, Vector

from ..errors import EffigyError
from .joint_limits import GAZE_SIDEWAYS, GAZE_UP, JAW_OPEN, JAW_SIDEWAYS, LOOK_SIDEWAYS, LOOK_UP, NECK
from .rig_properties import Rig, find_rig

EYES: Final = ("eye_L", "eye_R")
PARTS: Final = {"gaze": EYES, "jaw": ("jaw",), "neck": ("neck",), "eye_L": ("eye_L",), "eye_R": ("eye_R",)}
"""What is keyed together -> its joints."""
LOOK: Final = "eyeLook"
"""What the names of the sliders begin with by which the lids follow the gaze."""
SIDE: Final = {"eye_L": "Left", "eye_R": "Right"}
_ORDERS: Final = {"jaw": "XYZ", "neck": "ZXY"}
"""The order in which a joint's angles apply: a jaw opens before it moves sideways, a head nods before it turns."""
_AXES: Final = {"open": 0, "sideways": 2, "nod": 0, "turn": 1, "tilt": 2}


def rotation_of(bone: bpy.types.PoseBone) -> Quaternion:
    """A bone's own rotation, whichever rotation mode the artist has chosen."""
    if bone.rotation_mode == "QUATERNION":
        return bone.rotation_quaternion.normalized()
    return bone.matrix_basis.to_quaternion()


def rotate(bone: bpy.types.PoseBone, rotation: Quaternion) -> None:
    """Sets a bone's own rotation in its rotation mode."""
    if bone.rotation_mode == "QUATERNION":
        bone.rotation_quaternion = rotation
    elif bone.rotation_mode == "AXIS_ANGLE":
        axis, angle = rotation.to_axis_angle()
        bone.rotation_axis_angle = (angle, *axis)
    else:
        bone.rotation_euler = rotation.to_euler(bone.rotation_mode, bone.rotation_euler)


def rotation_path(bone: bpy.types.PoseBone) -> str:
    """The property of a bone that holds its rotation."""
    names = {"QUATERNION": "rotation_quaternion", "AXIS_ANGLE": "rotation_axis_angle"}
    return names.get(bone.rotation_mode, "rotation_euler")


def gaze_of(bone: bpy.types.PoseBone) -> tuple[float, float]:
    """Where an eye looks, radians: towards the person's left, and up."""
    # At rest the bone points along its y axis out of the face, its x axis to the person's left, its z axis down.
    direction = rotation_of(bone) @ Vector((0, 1, 0))
    return atan2(direction.x, direction.y), atan2(-direction.z, hypot(direction.x, direction.y))


def turn_eye(bone: bpy.types.PoseBone, sideways: float, up: float) -> None:
    """Makes an eye look there, without roll; radians as in `gaze_of`."""
    rotate(bone, Quaternion((0, 0, 1), -sideways) @ Quaternion((1, 0, 0), -up))


def look(rig: Rig, sideways: float | None = None, up: float | None = None) -> None:
    """Turns both eyes so that their mean gaze is this, in radians as in `gaze_of`, and lets the lids follow. None
    leaves a direction as it is. What the eyes differ by, as when they look at something near, stays.
    """
    bones = {joint: rig.pose_bone(joint) for joint in EYES}
    angles = {joint: gaze_of(bone) for joint, bone in bones.items()}
    wanted = []
    for axis, (value, limit) in enumerate(((sideways, GAZE_SIDEWAYS), (up, GAZE_UP))):
        mean = sum(own[axis] for own in angles.values()) / len(angles)
        by = 0.0 if value is None else value - mean
        # An eye that is beyond the limit already, as in a track, is not moved back by a change of the other direction.
        furthest = {joint: max(radians(limit), abs(own[axis])) for joint, own in angles.items()}
        wanted.append({joint: _clamp(own[axis] + by, furthest[joint]) for joint, own in angles.items()})
    for joint, bone in bones.items():
        turn_eye(bone, wanted[0][joint], wanted[1][joint])
        _let_lids_follow(rig, joint, wanted[0][joint], wanted[1][joint])


def _let_lids_follow(rig: Rig, joint: str, sideways: float, up: float) -> None:
    """Sets the eyeLook sliders of one eye to its gaze, radians."""
    outwards = sideways if joint == "eye_L" else -sideways
    directions = {
        "Out": degrees(outwards) / LOOK_SIDEWAYS,
        "In": -degrees(outwards) / LOOK_SIDEWAYS,
        "Up": degrees(up) / LOOK_UP,
        "Down": -degrees(up) / LOOK_UP,
    }
    blocks = rig.key_blocks
    for direction, value in directions.items():
        name = f"{LOOK}{direction}{SIDE[joint]}"
        if name in rig.slider_names and (block := blocks.get(name)) is not None:
            block.value = min(max(0.0, value), block.slider_max)


def look_keys(rig: Rig) -> list[bpy.types.ShapeKey]:
    """The shape keys by which the lids follow the gaze; none on a head without ARKit's names."""
    blocks = rig.key_blocks
    return [blocks[name] for name in rig.slider_names if name.startswith(LOOK) and name in blocks]


def key_part(rig: Rig, part: str, frame: float) -> None:
    """Keys the bones of a part of the face (`PARTS`) at `frame`, and with the gaze the lids."""
    for joint in PARTS[part]:
        bone = rig.pose_bone(joint)
        bone.keyframe_insert(rotation_path(bone), frame=frame, group=bone.name)
    for block in look_keys(rig) if part == "gaze" else ():
        block.keyframe_insert("value", frame=frame, group="Expressions")


def _clamp(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


def _angle(part: str, read: Callable[[Rig], float], write: Callable[[Rig, float], None]) -> dict[str, Any]:
    """The functions of a property: `read` and `write` take the rig; radians."""

    def get(face: EffigyFace) -> float:
        with suppress(EffigyError):
            if (rig := find_rig(face.id_data)) is not None:
                return read(rig)
        return 0.0

    def put(face: EffigyFace, value: float) -> None:
        with suppress(EffigyError):
            rig = find_rig(face.id_data)
            if rig is None or not rig.is_editable:
                return
            write(rig, value)
            scene = bpy.context.scene
            if scene is not None and scene.tool_settings.use_keyframe_insert_auto:
                key_part(rig, part, scene.frame_current)

    return {"get": get, "set": put}


def _joint_angle(joint: str, name: str) -> dict[str, Any]:
    """One of the angles of a jaw or a neck; the others stay."""

    def read(rig: Rig) -> float:
        return rotation_of(rig.pose_bone(joint)).to_euler(_ORDERS[joint])[_AXES[name]]

    def write(rig: Rig, value: float) -> None:
        bone = rig.pose_bone(joint)
        euler = rotation_of(bone).to_euler(_ORDERS[joint])
        euler[_AXES[name]] = value
        rotate(bone, euler.to_quaternion())

    return _angle(joint, read, write)


def _eye_angle(joint: str, axis: int) -> dict[str, Any]:
    def write(rig: Rig, value: float) -> None:
        bone = rig.pose_bone(joint)
        own = gaze_of(bone)
        turn_eye(bone, *((value, own[1]) if axis == 0 else (own[0], value)))

    return _angle(joint, lambda rig: gaze_of(rig.pose_bone(joint))[axis], write)


def _gaze_angle(axis: int) -> dict[str, Any]:
    def read(rig: Rig) -> float:
        return sum(gaze_of(rig.pose_bone(joint))[axis] for joint in EYES) / len(EYES)

    return _angle("gaze", read, lambda rig, value: look(rig, **{("sideways", "up")[axis]: value}))


def _property(name: str, limits: tuple[float, float], description: str, functions: dict[str, Any]) -> Any:
    low, high = (radians(limit) for limit in limits)
    put = functions["set"]
    # Blender passes what a script sets to the function as it is. It cannot animate a value that other properties hold.
    return FloatProperty(
        name=name,
        subtype="ANGLE",
        min=low,
        max=high,
        precision=1,
        step=100,
        options=set(),
        description=description,
        get=functions["get"],
        set=lambda face, value: put(face, min(max(value, low), high)),
    )


_SIDEWAYS: Final = "Turn to the person's left (positive) or right"


class EffigyFace(bpy.types.PropertyGroup):
    """The angles of a rig's joints, radians."""

    gaze_sideways: _property(
        "Sideways",
        (-GAZE_SIDEWAYS, GAZE_SIDEWAYS),
        "Turn both eyes to the person's left (positive) or right, and move the lids with them",
        _gaze_angle(0),
    )
    gaze_up: _property(
        "Up", (-GAZE_UP, GAZE_UP), "Turn both eyes up (positive) or down, and move the lids with them", _gaze_angle(1)
    )
    left_eye_sideways: _property("Sideways", (-GAZE_SIDEWAYS, GAZE_SIDEWAYS), _SIDEWAYS, _eye_angle("eye_L", 0))
    left_eye_up: _property("Up", (-GAZE_UP, GAZE_UP), "Turn up (positive) or down", _eye_angle("eye_L", 1))
    right_eye_sideways: _property("Sideways", (-GAZE_SIDEWAYS, GAZE_SIDEWAYS), _SIDEWAYS, _eye_angle("eye_R", 0))
    right_eye_up: _property("Up", (-GAZE_UP, GAZE_UP), "Turn up (positive) or down", _eye_angle("eye_R", 1))
    jaw_open: _property("Open", JAW_OPEN, "Open the mouth by turning the jaw bone", _joint_angle("jaw", "open"))
    jaw_sideways: _property(
        "Sideways", JAW_SIDEWAYS, "Move the chin sideways by turning the jaw bone", _joint_angle("jaw", "sideways")
    )
    neck_nod: _property("Nod", (-NECK, NECK), "Nod down (positive) or up", _joint_angle("neck", "nod"))
    neck_turn: _property("Turn", (-NECK, NECK), _SIDEWAYS, _joint_angle("neck", "turn"))
    neck_tilt: _property(
        "Tilt", (-NECK, NECK), "Tilt to the person's right (positive) or left", _joint_angle("neck", "tilt")
    )


classes = (EffigyFace,)


def register() -> None:
    bpy.types.Object.effigy_face = PointerProperty(type=EffigyFace)


def unregister() -> None:
    if hasattr(bpy.types.Object, "effigy_face"):
        del bpy.types.Object.effigy_face
