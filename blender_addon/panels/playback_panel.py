"""Baked playback of the scene's avatars: how much is baked and how much of it has changed since; and their export."""

from __future__ import annotations

import bpy

from ..avatars import has_avatar
from ..rig.rig_properties import find_rigs
from ..viewport import cache
from .base import EffigyPanel
from .text import region_width, wrapped


class EFFIGY_PT_playback(EffigyPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_playback"
    bl_label = "Playback and Export"
    bl_order = 5
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return any(has_avatar(rig.armature) for rig in find_rigs(context.scene.objects))

    def draw(self, context: bpy.types.Context) -> None:
        layout, settings = self.layout, context.scene.effigy
        row = layout.row()
        row.prop(settings, "bake_to", expand=True)
        layout.prop(settings, "bake_limit", text="Limit (MB)")
        row = layout.row(align=True)
        row.operator("effigy.bake_playback", icon="RENDER_ANIMATION")
        row.operator("effigy.clear_playback", text="", icon="TRASH")
        for rig in find_rigs(context.scene.objects):
            if bake := cache.bake_of(rig.armature):
                wrapped(layout, told(rig.armature, bake), region_width(context), "CHECKMARK")
        layout.operator("effigy.export_splats", icon="EXPORT")


def told(armature: bpy.types.Object, bake: cache.Bake) -> str:
    if bake.source != cache.source_of(armature):
        return f"“{armature.name}” has another avatar than the one that was baked: bake again."
    last = bake.first + len(bake.keys) - 1
    said = f"“{armature.name}”: {bake.count} of the frames {bake.first} to {last}, {bake.bytes / 1e6:.0f} MB."
    if changed := len(bake.changed):
        said += (" 1 frame has" if changed == 1 else f" {changed} frames have") + " changed since and plays live."
    return said


classes = (EFFIGY_PT_playback,)
