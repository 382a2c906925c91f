"""A target that the eyes look at: an empty that the artist moves.

Constraints turn the eyes' bones to it, each on its own, so that they converge, within the limits of an eye. The neck
follows by a share. The lids follow the resulting gaze by drivers on the eyeLook sliders. How much of all three takes
effect is in custom properties of the empty, which can be keyed; drivers without scripts carry them to the constraints.
Everything remains on the rig as it is when the extension is missing, and is removed as a whole.

The eyes aim at a second, hidden empty that follows the first one and can wander around it (`life`), the neck at a third
one that lies below the target by as much as the neck's joint lies below the eyes.
"""

from __future__ import annotations

from math import radians
from typing import Any, Final

import bpy
import numpy as np
from mathutils import Vector

from ..errors import EffigyError
from .action import value_path
from .conventions import points_to_blender
from .data import JOINT_NAMES
from .face_angles import EYES, SIDE
from .joint_limits import GAZE_SIDEWAYS, GAZE_UP, LOOK_SIDEWAYS, LOOK_UP, NECK
from .placement import head_place
from .rig_properties import Rig

CONSTRAINT: Final = "Effigy Gaze"
"""What the names of the constraints begin with."""
SHARES: Final = {
    "eyes": ("Eyes", 1.0, "How much the eyes look at the target instead of where they look otherwise"),
    "lids": ("Lids", 1.0, "How far the lids follow the eyes"),
    "head": ("Head", 0.3, "How much of the turn the head makes"),
}
"""Custom property of the target -> its name, its first value and its description."""
_AXES: Final = {"eye_L": "TRACK_Y", "eye_R": "TRACK_Y", "neck": "TRACK_Z"}
"""The axis of each bone that points out of the face."""
_LIMITS: Final = {"eye_L": (GAZE_UP, None, GAZE_SIDEWAYS), "eye_R": (GAZE_UP, None, GAZE_SIDEWAYS), "neck": (NECK,) * 3}
"""Degrees about the bone's own x, y and z axis."""


def target_of(rig: Rig) -> bpy.types.Object | None:
    """The empty that the rig's eyes look at, or None."""
    aim = aim_of(rig)
    return None if aim is None else next((each.target for each in aim.constraints if each.target is not None), None)


def aim_of(rig: Rig) -> bpy.types.Object | None:
    """The hidden empty beside the target, at which the eyes' bones point; None without a target."""
    for joint in EYES:
        for constraint in rig.pose_bone(joint).constraints:
            if constraint.name.startswith(CONSTRAINT) and constraint.type == "DAMPED_TRACK" and constraint.target:
                return constraint.target
    return None


def add_target(rig: Rig, distance: float, depsgraph: bpy.types.Depsgraph) -> bpy.types.Object:
    """Adds a target `distance` metres, at the head's own size, before the eyes."""
    if target_of(rig) is not None:
        raise EffigyError(f"The eyes of “{rig.armature.name}” follow “{target_of(rig).name}” already.")
    remove_target(rig)
    motion = head_place(rig, depsgraph).head_motion
    eyes, axes = eyes_of(rig, depsgraph)
    size = float(np.linalg.norm(motion[:3, 0]))
    if not np.isfinite(eyes).all() or size <= 0:
        raise EffigyError(f"“{rig.armature.name}” has no size here: go to a frame in which the head can be seen.")
    collection = rig.mesh.users_collection[0]
    target = _empty(f"{rig.mesh.name} gaze", collection, "SPHERE", 0.03 * size)
    target.location = Vector(eyes + distance * size * axes[1])
    for name, (_, value, description) in SHARES.items():
        target[name] = value
        target.id_properties_ui(name).update(min=0.0, max=1.0, soft_min=0.0, soft_max=1.0, description=description)
    below = motion[:3, :3] @ points_to_blender(rig.joints)[JOINT_NAMES.index("neck")] + motion[:3, 3] - eyes
    aims = {}
    for part, offset in (("aim", np.zeros(3)), ("head aim", below)):
        aim = aims[part] = _empty(f"{rig.mesh.name} gaze {part}", collection, "PLAIN_AXES", 0.01 * size)
        aim.location = Vector(offset)
        follow = aim.constraints.new("COPY_LOCATION")
        follow.target, follow.use_offset = target, True
        aim.hide_viewport = aim.hide_select = True
    for joint, axis in _AXES.items():
        share = "head" if joint == "neck" else "eyes"
        _constrain(
            rig.pose_bone(joint), aims["head aim" if joint == "neck" else "aim"], axis, _LIMITS[joint], target, share
        )
    for joint in EYES:
        _drive_lids(rig, joint, target)
    return target


def remove_target(rig: Rig) -> None:
    """Removes the target with everything that follows it; the sliders and bones get back their own keys. A target that
    another rig follows as well stays.
    """
    target, helpers = target_of(rig), set()
    for joint in _AXES:
        bone = rig.pose_bone(joint)
        for constraint in [each for each in bone.constraints if each.name.startswith(CONSTRAINT)]:
            if constraint.type == "DAMPED_TRACK" and constraint.target is not None:
                helpers.add(constraint.target)
            constraint.driver_remove("influence")
            bone.constraints.remove(constraint)
    key = rig.mesh.data.shape_keys
    if key.animation_data is not None and target is not None:
        for driver in list(key.animation_data.drivers):
            if any(each.id == target for variable in driver.driver.variables for each in variable.targets):
                key.driver_remove(driver.data_path)
    removed = {each for each in (*helpers, target) if each is not None}
    users = bpy.data.user_map(subset=removed, key_types={"OBJECT"}, value_types={"OBJECT"})
    # A copy of the rig looks at the same target, which then stays for the other one.
    if not any(user.type == "ARMATURE" for each in users.values() for user in each):
        bpy.data.batch_remove(removed)


def eyes_of(rig: Rig, depsgraph: bpy.types.Depsgraph) -> tuple[np.ndarray, np.ndarray]:
    """(3,) the middle of the eyes in the world, and (3, 3) the head's directions to its left, forwards and up, rows."""
    motion = head_place(rig, depsgraph).head_motion
    eyes = points_to_blender(rig.joints)[[JOINT_NAMES.index(joint) for joint in EYES]].mean(0)
    axes = motion[:3, :3] @ np.array(((1, 0, 0), (0, -1, 0), (0, 0, 1))).T
    return motion[:3, :3] @ eyes + motion[:3, 3], (axes / np.linalg.norm(axes, axis=0)).T


def _empty(name: str, collection: bpy.types.Collection, shape: str, size: float) -> bpy.types.Object:
    made = bpy.data.objects.new(name, None)
    made.empty_display_type, made.empty_display_size = shape, size
    collection.objects.link(made)
    return made


def _constrain(
    bone: bpy.types.PoseBone,
    aim: bpy.types.Object,
    axis: str,
    limits: tuple[float | None, ...],
    target: bpy.types.Object,
    share: str,
) -> None:
    track, limit = bone.constraints.new("DAMPED_TRACK"), bone.constraints.new("LIMIT_ROTATION")
    track.name, limit.name = CONSTRAINT, f"{CONSTRAINT} Limit"
    track.target, track.track_axis = aim, axis
    limit.owner_space = "LOCAL"
    for name, degrees in zip("xyz", limits, strict=True):
        if degrees is not None:
            setattr(limit, f"use_limit_{name}", True)
            setattr(limit, f"min_{name}", -radians(degrees))
            setattr(limit, f"max_{name}", radians(degrees))
    for constraint in (track, limit):
        driver = constraint.driver_add("influence").driver
        driver.type = "SUM"
        _variable(driver, "share", target, share)


def _variable(driver: bpy.types.Driver, name: str, target: bpy.types.Object, share: str) -> None:
    variable = driver.variables.new()
    variable.name = name
    variable.targets[0].id, variable.targets[0].data_path = target, f'["{share}"]'


def _drive_lids(rig: Rig, joint: str, target: bpy.types.Object) -> None:
    """Lets the eyeLook sliders of one eye follow its bone as it is after the constraints (see `face_angles.look`)."""
    key = rig.mesh.data.shape_keys
    out = 1 if joint == "eye_L" else -1
    # A bone's positive rotation about its x axis turns the eye down, about its z axis to the person's right.
    directions = {
        "Up": ("ROT_X", -1, LOOK_UP),
        "Down": ("ROT_X", 1, LOOK_UP),
        "Out": ("ROT_Z", -out, LOOK_SIDEWAYS),
        "In": ("ROT_Z", out, LOOK_SIDEWAYS),
    }
    for direction, (channel, sign, at_one) in directions.items():
        name = f"eyeLook{direction}{SIDE[joint]}"
        path = value_path(name)
        if name not in rig.slider_names or rig.key_blocks.get(name) is None or is_driven(key, path):
            continue
        driver: Any = key.driver_add(path).driver
        driver.type = "SCRIPTED"
        turn = driver.variables.new()
        turn.name, turn.type = "turn", "TRANSFORMS"
        turn.targets[0].id, turn.targets[0].bone_target = rig.armature, rig.bone_name(joint)
        turn.targets[0].transform_space, turn.targets[0].transform_type = "LOCAL_SPACE", channel
        turn.targets[0].rotation_mode = "XYZ"
        _variable(driver, "share", target, "lids")
        driver.expression = f"share*min(1,max(0,{sign / radians(at_one):.4f}*turn))"


def is_driven(key: bpy.types.Key, path: str) -> bool:
    """Whether a driver gives a property of the shape keys its value."""
    return key.animation_data is not None and key.animation_data.drivers.find(path) is not None
