"""The panel Playback and Export: baking the avatars, what is baked and has changed since, and exporting them."""

from __future__ import annotations

import bpy

from ..avatars import has_avatar
from ..rig.rig_properties import find_rigs
from ..viewport import cache
from ..wrapped_text import region_width, wrapped
from .base import EffigyPanel


class EFFIGY_PT_playback(EffigyPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_playback"
    bl_label = "Playback and Export"
    bl_order = 7
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
            if bake := cache.bake_of(rig):
                whole = bake.source == cache.source_of(rig.armature) and not bake.changed
                wrapped(layout, describe(rig.armature, bake), region_width(context), "CHECKMARK" if whole else "INFO")
        layout.operator("effigy.export_splats", icon="EXPORT")
        layout.operator("effigy.export_web_page", icon="URL")
        row = layout.row(align=True)
        row.operator("effigy.export_textures", text="Export Textures", icon="TEXTURE")
        row.operator("effigy.import_texture", text="Import Painted", icon="BRUSH_DATA")


def describe(armature: bpy.types.Object, bake: cache.Bake) -> str:
    """What is baked of an avatar, and how many of those frames have changed since."""
    if bake.source != cache.source_of(armature):
        return f"“{armature.name}” has a different avatar now: bake again."
    last = bake.first + len(bake.keys) - 1
    text = f"“{armature.name}”: {bake.count} frames between {bake.first} and {last}, {bake.bytes / 1e6:.0f} MB."
    if changed := len(bake.changed):
        text += (
            " 1 frame has changed since and is computed again during playback."
            if changed == 1
            else f" {changed} frames have changed since and are computed again during playback."
        )
    return text


classes = (EFFIGY_PT_playback,)
