"""Removes the gaze target, the blinks, the eye movements or the breathing of a rig."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty

from ..blender_addon import active
from ..blender_addon.life_operators import change_target
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import gaze_target, life

TARGET = "TARGET"


class EFFIGY_OT_remove_life(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.remove_life"
    bl_label = "Remove"
    bl_description = "Remove this from the rig. Other keys stay as they are"
    bl_options = {"REGISTER", "UNDO"}

    what: EnumProperty(
        name="What",
        items=(
            (TARGET, "Gaze Target", "The empty, and what follows it", 0),
            ("BLINKS", "Blinks", "", 1),
            ("SACCADES", "Eye Movements", "", 2),
            ("BREATHING", "Breathing", "", 3),
        ),
        options={"SKIP_SAVE"},
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and active.need_rig(context).is_editable

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        if self.what == TARGET:
            change_target(rig, lambda: gaze_target.remove_target(rig))
        else:
            life.remove_life(rig, getattr(life, self.what))


classes = (EFFIGY_OT_remove_life,)
