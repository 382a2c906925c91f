"""Goes back to the head model that comes with Effigy."""

from __future__ import annotations

import bpy

from ..blender_addon import preferences


class EFFIGY_OT_use_open_head(bpy.types.Operator):
    bl_idname = "effigy.use_open_head"
    bl_label = "Use the Open Head"
    bl_description = "Make new rigs from the head that comes with Effigy, which is free to use for anything (CC0)"

    def execute(self, context: bpy.types.Context) -> set[str]:
        settings = preferences.get()
        settings.head_file = settings.head_said = ""
        return {"FINISHED"}


classes = (EFFIGY_OT_use_open_head,)
