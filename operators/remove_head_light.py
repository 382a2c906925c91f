"""Removes the suns that light objects as the active head was lit in its footage."""

from __future__ import annotations

import bpy

from ..blender_addon import active, head_light
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_remove_head_light(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.remove_head_light"
    bl_label = "Remove Head Light"
    bl_description = "Remove the suns that Head Light from Footage has added for this head"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and bool(head_light.head_light_of(active.need_rig(context)))

    def run(self, context: bpy.types.Context) -> None:
        head_light.remove_head_light(active.need_rig(context))


classes = (EFFIGY_OT_remove_head_light,)
