"""Training the active rig's avatar: how, and going on where it stopped."""

from __future__ import annotations

import bpy

from .. import active, backend_setup, training
from ..properties import PRESET_SIZES, PRESET_STEPS
from .base import RigPanel


class EFFIGY_PT_train(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_train"
    bl_label = "Train"
    bl_order = 1

    def draw(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        settings = rig.armature.effigy
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.enabled = backend_setup.state()[0]
        layout.prop(settings, "capture")
        column = layout.column()
        column.prop(settings, "preset")
        _draw_own(column, settings, "size", f"{PRESET_SIZES[settings.preset]} px (preset)")
        _draw_own(column, settings, "minutes", f"{PRESET_STEPS[settings.preset]:,} steps (preset)")
        column.prop(settings, "device")
        if training.task_of(rig):
            layout.label(text="Training: see Jobs", icon="SORTTIME")
            return
        buttons = layout.column(align=True)
        buttons.scale_y = 1.3
        if training.can_resume(rig):
            buttons.operator("effigy.resume_training", icon="PLAY")
        buttons.operator("effigy.train_avatar", icon="MOD_ARMATURE")
        if training.has_refined_track(rig):
            layout.operator("effigy.take_refined_track", icon="ACTION")


def _draw_own(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, name: str, presets: str) -> None:
    """A box to tick for a number of one's own, and beside it that number, or what the preset means."""
    row = layout.row(heading="Time" if name == "minutes" else settings.bl_rna.properties[name].name)
    row.prop(settings, f"own_{name}", text="")
    if getattr(settings, f"own_{name}"):
        row.prop(settings, name, text="")
    else:
        row.label(text=presets)


classes = (EFFIGY_PT_train,)
