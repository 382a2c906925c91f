"""Adds a row to the shared folders in the preferences."""

from __future__ import annotations

import bpy

from ..blender_addon import preferences
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_add_shared_folder(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.add_shared_folder"
    bl_label = "Add Shared Folder"
    bl_description = "Add a folder that both this machine and the worker's machine reach"
    bl_options = {"INTERNAL"}

    def run(self, context: bpy.types.Context) -> None:
        preferences.get().shared.add()
        context.preferences.is_dirty = True


classes = (EFFIGY_OT_add_shared_folder,)
