"""Goes back from a chosen Python to the backend that Effigy installs itself."""

from __future__ import annotations

import bpy

from ..blender_addon import preferences


class EFFIGY_OT_use_own_backend(bpy.types.Operator):
    bl_idname = "effigy.use_own_backend"
    bl_label = "Use Effigy's Own"
    bl_description = "Stop using the chosen Python, and use the backend that Install Backend installs"

    def execute(self, context: bpy.types.Context) -> set[str]:
        preferences.get().backend_python = ""
        return {"FINISHED"}


classes = (EFFIGY_OT_use_own_backend,)
