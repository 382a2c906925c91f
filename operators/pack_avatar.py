"""Keep the avatar's file inside the .blend, so that one file is all there is to pass on."""

from __future__ import annotations

import bpy

from ..blender_addon import active, avatars
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_pack_avatar(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.pack_avatar"
    bl_label = "Pack Avatar"
    bl_description = "Keep the avatar's file inside this .blend"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context)

    def run(self, context: bpy.types.Context) -> None:
        avatars.pack(active.need_rig(context).armature)


classes = (EFFIGY_OT_pack_avatar,)
