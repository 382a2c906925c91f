"""Deletes the baked playback of the scene."""

from __future__ import annotations

import bpy

from ..blender_addon.rig.rig_properties import find_rigs
from ..blender_addon.viewport import cache


class EFFIGY_OT_clear_playback(bpy.types.Operator):
    bl_idname = "effigy.clear_playback"
    bl_label = "Clear Bake"
    bl_description = "Free the memory or disk space that the baked playback of this scene uses"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return any(cache.bake_of(rig) for rig in find_rigs(context.scene.objects))

    def execute(self, context: bpy.types.Context) -> set[str]:
        for rig in find_rigs(context.scene.objects):
            cache.clear(rig)
        cache.clear_deleted()
        return {"FINISHED"}


classes = (EFFIGY_OT_clear_playback,)
