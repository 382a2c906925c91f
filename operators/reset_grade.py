"""Gives the active avatar the colours of its footage again."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.grade import NEUTRAL
from ..blender_addon.grading import set_grade
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_reset_grade(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.reset_grade"
    bl_label = "Reset"
    bl_description = (
        "Set exposure, white balance and black level back, so that the avatar has the colours of its footage"
    )
    bl_options = {"REGISTER", "UNDO"}

    key: BoolProperty(name="Key It", description="Also key the four values at the current frame")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        set_grade(active.need_rig(context).armature, NEUTRAL, self.key)


classes = (EFFIGY_OT_reset_grade,)
