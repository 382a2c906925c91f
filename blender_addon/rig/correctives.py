"""Pose correctives: shape keys whose values are driven by the rotations of the bones.

FLAME's pose correctives (Li et al. 2017, eq. 5) are vertex offsets, one for each entry of R - I of neck, jaw and both
eyes, and scaled by that entry. An entry of a rotation matrix is a polynomial in the bone's quaternion, so each shape
key gets a driver with a *simple expression*. Blender evaluates simple expressions without Python: fast, and without the
artist having to allow scripts.
"""

from __future__ import annotations

from typing import Final

import bpy

from .conventions import BONE_AXES
from .data import JOINT_NAMES
from .rig_properties import BONE_NAMES

_ENTRIES: Final = (
    "-2*(y*y+z*z)",
    "2*(x*y-w*z)",
    "2*(x*z+w*y)",
    "2*(x*y+w*z)",
    "-2*(x*x+z*z)",
    "2*(y*z-w*x)",
    "2*(x*z-w*y)",
    "2*(y*z+w*x)",
    "-2*(x*x+y*y)",
)
"""R - I of the unit quaternion w, x, y, z in head space, row-major."""


def corrective_name(feature: int) -> str:
    """Name of the shape key for one of the 36 entries: neck, jaw, eye_L and eye_R, nine entries each."""
    return f"corrective_{JOINT_NAMES[1 + feature // 9]}_{feature % 9}"


def drive_corrective(block: bpy.types.ShapeKey, feature: int, armature: bpy.types.Object) -> None:
    """Drives a shape key's value with entry `feature` (0 to 35) of R - I of the armature's neck, jaw and eye bones."""
    joint, entry = JOINT_NAMES[1 + feature // 9], feature % 9
    # No entry of R - I is greater than two in absolute value.
    block.slider_min, block.slider_max = -2, 2
    driver = block.driver_add("value").driver
    driver.type = "SCRIPTED"
    for name, channel, sign in _quaternion_channels(joint):
        variable = driver.variables.new()
        variable.name, variable.type = name if sign > 0 else f"n{name}", "TRANSFORMS"
        target = variable.targets[0]
        target.id, target.bone_target = armature, BONE_NAMES[joint]
        # The bone's own rotation after its constraints, relative to its parent and its rest orientation.
        target.transform_space, target.transform_type, target.rotation_mode = "LOCAL_SPACE", channel, "QUATERNION"
    expression = _ENTRIES[entry]
    for name, _, sign in _quaternion_channels(joint):
        if sign < 0:
            expression = expression.replace(name, f"(-n{name})")
    driver.expression = expression


def _quaternion_channels(joint: str) -> list[tuple[str, str, float]]:
    """For w, x, y and z in head space: the name, the channel of the bone's own quaternion that holds it, and its
    sign.
    """
    axes = BONE_AXES[joint]
    result = [("w", "ROT_W", 1.0)]
    for row, name in enumerate("xyz"):
        column = int(abs(axes[row]).argmax())
        result.append((name, f"ROT_{'XYZ'[column]}", float(axes[row, column])))
    return result
