"""Writes a packed avatar to a file beside the .blend, and uses that file."""

from __future__ import annotations

import bpy

from ..blender_addon import active, avatars
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_unpack_avatar(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.unpack_avatar"
    bl_label = "Unpack Avatar"
    bl_description = "Write the avatar that is stored in this .blend to a separate file again"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context)

    def run(self, context: bpy.types.Context) -> None:
        path = avatars.unpack(active.need_rig(context).armature)
        self.report({"INFO"}, f"The avatar is in {path}.")


classes = (EFFIGY_OT_unpack_avatar,)
