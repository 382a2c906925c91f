"""Sets the sliders to one of the starter expressions."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, EnumProperty, FloatProperty

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import presets, sliders


class EFFIGY_OT_apply_preset(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.apply_preset"
    bl_label = "Starter Expression"
    bl_description = (
        "Set the sliders to a ready-made expression as a starting point, and close the jaw. The neck does not change, "
        "and the gaze only in Sad and Sleepy, which look down"
    )
    bl_options = {"REGISTER", "UNDO"}

    preset: EnumProperty(name="Expression", items=[(name, name, "") for name in presets.PRESETS])
    strength: FloatProperty(
        name="Strength",
        default=1.0,
        min=0.0,
        soft_max=1.0,
        max=2.0,
        subtype="FACTOR",
        description="How strong the expression is",
    )
    key: BoolProperty(name="Key It", description="Also key the whole expression at the current frame")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        presets.apply_preset(rig, self.preset, self.strength)
        if self.key:
            sliders.key_all(rig, context.scene.frame_current)


classes = (EFFIGY_OT_apply_preset,)
