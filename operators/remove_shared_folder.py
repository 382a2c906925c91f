"""Removes a row from the shared folders in the preferences."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty

from ..blender_addon import preferences
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_remove_shared_folder(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.remove_shared_folder"
    bl_label = "Remove Shared Folder"
    bl_description = "Remove this row. The folder itself stays as it is"
    bl_options = {"INTERNAL"}

    index: IntProperty(options={"HIDDEN", "SKIP_SAVE"})

    def run(self, context: bpy.types.Context) -> None:
        preferences.get().shared.remove(self.index)
        context.preferences.is_dirty = True


classes = (EFFIGY_OT_remove_shared_folder,)
