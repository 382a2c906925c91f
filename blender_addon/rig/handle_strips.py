"""The handles of the face board in strips, and other performances above these.

*Controls from Sliders* makes strips that move the handles. Handles add to the sliders, so that a performance above
these strips, which replaces the sliders, would be seen twice. Its own strips therefore hold the handles at rest for as
long as they last.
"""

from __future__ import annotations

import bpy
import numpy as np

from .action import Curve, add_curve, bone_path, curves_of, strips_of
from .performance import CONTROLS, layer_of
from .rig_properties import Rig


def handles_in_strips(rig: Rig) -> dict[str, bpy.types.PoseBone]:
    """The handles that strips of *Controls from Sliders* move, by their names."""
    moving = {
        curve.data_path
        for _, strip in strips_of(rig.armature)
        if layer_of(strip) == CONTROLS and not strip.mute
        for curve in curves_of(strip.action)
        if len(curve.keyframe_points) > 1 or any(point.co[1] for point in curve.keyframe_points)
    }
    return {name: bone for name, bone in rig.handle_bones().items() if f"{bone_path(bone.name)}.location" in moving}


def add_rest(rig: Rig, action: bpy.types.Action, names: tuple[str, ...] = ("",)) -> None:
    """Holds the handles that strips move, and whose names begin with one of `names`, at rest in an action of the
    armature.
    """
    frame = np.array((action.frame_range[0],))
    for name, bone in handles_in_strips(rig).items():
        if name.startswith(names):
            for axis in range(3):
                add_curve(action, Curve(f"{bone_path(bone.name)}.location", axis, bone.name, frame, np.zeros(1)))
