"""The panel Train: the settings of the active rig's training, and its buttons."""

from __future__ import annotations

import bpy

from .. import active, avatars, backend_setup, rig_files, training
from ..training_choices import PRESETS
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
        layout.enabled = backend_setup.state().ready
        layout.prop(settings, "capture")
        others, joined = active.other_selected_rigs(context), active.selected_of_same_head(context)
        if joined:
            layout.label(text=f"And {len(joined)} more, selected", icon="PLUS")
        if len(joined) < len(others):
            layout.operator("effigy.track_together", icon="LINKED")
        column = layout.column()
        column.prop(settings, "preset")
        # A damaged .blend may hold a number that stands for no preset; Blender then gives an empty name.
        preset = PRESETS.get(settings.preset, PRESETS["draft"])
        _draw_override(column, settings, "size", f"{preset.size} px (preset)")
        _draw_override(column, settings, "minutes", f"{preset.steps:,} steps (preset)")
        column.prop(settings, "device")
        if training.task_of(rig):
            layout.label(text="Training: see Jobs", icon="SORTTIME")
            return
        if rig_files.unknown(rig.armature):
            # Panel Import asks whether to look for them.
            return
        buttons = layout.column(align=True)
        buttons.scale_y = 1.3
        if training.can_resume(rig):
            buttons.operator("effigy.resume_training", icon="PLAY")
        buttons.operator("effigy.train_avatar", icon="MOD_ARMATURE")
        if avatars.has_avatar(rig.armature):
            layout.operator("effigy.refine_track", icon="TRACKER")
        if training.has_refined_track(rig):
            layout.operator("effigy.take_refined_track", icon="ACTION")


def _draw_override(layout: bpy.types.UILayout, settings: bpy.types.PropertyGroup, name: str, preset_value: str) -> None:
    """A tick box that overrides a value of the preset, and beside it the artist's value or that of the preset."""
    row = layout.row(heading=settings.bl_rna.properties[name].name)
    row.prop(settings, f"own_{name}", text="")
    if getattr(settings, f"own_{name}"):
        row.prop(settings, name, text="")
    else:
        row.label(text=preset_value)


classes = (EFFIGY_PT_train,)
