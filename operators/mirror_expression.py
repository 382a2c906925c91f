"""Swaps the left and the right side of the face."""

from __future__ import annotations

import bpy

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import sliders


class EFFIGY_OT_mirror_expression(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.mirror_expression"
    bl_label = "Mirror Expression"
    bl_description = "Swap the left and the right side of the face, neck and eyes included"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        sliders.mirror(active.need_rig(context))


classes = (EFFIGY_OT_mirror_expression,)
