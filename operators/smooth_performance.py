"""Smooths a performance by One-Euro or Savitzky–Golay."""

from __future__ import annotations

import bpy
from bpy.props import EnumProperty, FloatProperty, IntProperty

from ..blender_addon.clean_up import CleanUpOperator, parts_property
from ..blender_addon.rig.camera import rate_of
from ..blender_addon.rig.cleaning import smooth_one_euro, smooth_savitzky_golay
from ..blender_addon.rig.takes import PARTS


class EFFIGY_OT_smooth_performance(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.smooth_performance"
    bl_label = "Smooth"
    bl_description = (
        "Smooth the performance where it trembles. Lids and gaze, which really are abrupt, are left out unless you "
        "choose them"
    )

    method: EnumProperty(
        name="Method",
        items=(
            ("ONE_EURO", "One-Euro", "Smooths a face at rest much and a moving one little", 0),
            ("SAVITZKY_GOLAY", "Savitzky–Golay", "Fits polynomials; keeps the height of peaks", 1),
        ),
    )
    cutoff: FloatProperty(
        name="Cutoff", default=2.0, min=0.05, soft_max=10.0, max=100.0, description="One-Euro: hertz at rest"
    )
    speed_factor: FloatProperty(
        name="Speed Factor",
        default=0.5,
        min=0.0,
        soft_max=2.0,
        max=100.0,
        description="One-Euro: hertz that the cutoff gains for each millimetre a second by which the face moves",
    )
    window: IntProperty(
        name="Window", default=7, min=3, soft_max=31, max=999, description="Savitzky–Golay: frames, an odd number"
    )
    order: IntProperty(name="Order", default=2, min=0, max=6, description="Savitzky–Golay: degree of the polynomials")
    fade: IntProperty(
        name="Fade", default=4, min=0, soft_max=50, description="Frames in which the change begins and ends in a range"
    )
    parts: parts_property(set(PARTS) - {"lids", "eyes"})

    def run(self, context: bpy.types.Context) -> None:
        rig, choice = self.choice(context)
        if self.method == "ONE_EURO":
            rate = rate_of(context.scene)
            count = smooth_one_euro(rig, choice, self.cutoff, self.speed_factor, self.fade, rate)
        else:
            count = smooth_savitzky_golay(rig, choice, self.window, self.order, self.fade)
        self.report({"INFO"}, f"{count} channels are smooth.")


classes = (EFFIGY_OT_smooth_performance,)
