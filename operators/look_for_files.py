"""Looks for the files that the rigs of this .blend name, although they were not used on this computer before."""

from __future__ import annotations

import bpy

from ..blender_addon import rig_files
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_look_for_files(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.look_for_files"
    bl_label = "Look for Its Files"
    bl_description = (
        "Let Effigy read the captures and avatars that this .blend names. Press it if you trust whoever made the .blend"
    )

    def run(self, context: bpy.types.Context) -> None:
        count = sum(rig_files.trust(obj) for obj in bpy.data.objects)
        what = "1 file or folder" if count == 1 else f"{count} files and folders"
        self.report({"INFO"}, f"Effigy may read {what} that this .blend names.")


classes = (EFFIGY_OT_look_for_files,)
