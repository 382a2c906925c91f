"""Resets the face to neutral."""

from __future__ import annotations

import bpy

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import sliders


class EFFIGY_OT_reset_expression(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.reset_expression"
    bl_label = "Reset Expression"
    bl_description = "Set all sliders to zero and neck, jaw and eyes to rest. The head keeps its position"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        sliders.reset(active.need_rig(context))


classes = (EFFIGY_OT_reset_expression,)
