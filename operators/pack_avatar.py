"""Stores the avatar's file inside the .blend, so that there is only one file to pass on."""

from __future__ import annotations

import bpy

from ..blender_addon import active, avatars
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.viewport import cache


class EFFIGY_OT_pack_avatar(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.pack_avatar"
    bl_label = "Pack Avatar"
    bl_description = "Store the avatar inside this .blend file, so that there is only one file to pass on"
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        with cache.same_avatar(rig):
            avatars.pack(rig.armature)


classes = (EFFIGY_OT_pack_avatar,)
