"""Swaps left and right of a whole performance."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty

from ..blender_addon.clean_up import CleanUpOperator
from ..blender_addon.rig.reshaping import mirror_take


class EFFIGY_OT_mirror_performance(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.mirror_performance"
    bl_label = "Mirror Performance"
    bl_description = "Swap the left and the right side of the performance, gaze and turns of the head included"

    fade: IntProperty(
        name="Fade", default=8, min=0, soft_max=50, description="Frames in which the change begins and ends in a range"
    )
    has_parts = False

    def run(self, context: bpy.types.Context) -> None:
        mirror_take(*self.choice(context), self.fade)


classes = (EFFIGY_OT_mirror_performance,)
