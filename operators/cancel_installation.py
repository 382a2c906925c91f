"""Stops the installation of the backend."""

from __future__ import annotations

import bpy

from ..blender_addon import backend_setup


class EFFIGY_OT_cancel_installation(bpy.types.Operator):
    bl_idname = "effigy.cancel_installation"
    bl_label = "Stop"
    bl_description = "Stop installing. Incomplete files are removed; downloads are kept for the next time"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        installation = backend_setup.current()
        return installation is not None and not installation.finished

    def execute(self, context: bpy.types.Context) -> set[str]:
        backend_setup.current().cancel()
        return {"FINISHED"}


classes = (EFFIGY_OT_cancel_installation,)
