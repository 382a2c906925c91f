"""Holds the lids shut for some frames."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty

from ..blender_addon.clean_up import CleanUpOperator
from ..blender_addon.rig.cleaning import hold_lids


class EFFIGY_OT_hold_lids(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.hold_lids"
    bl_label = "Hold Lids Shut"
    bl_description = "Keep both eyes shut in the preview range, where the tracked lids tremble or stay open a little"

    closed: FloatProperty(
        name="Closed", default=1.0, min=0.0, soft_max=1.0, max=2.0, subtype="FACTOR", description="1: shut"
    )
    ease: FloatProperty(
        name="Ease", default=3.0, min=0.0, soft_max=20.0, precision=1, description="Frames to shut, and to open"
    )
    has_parts = False

    def run(self, context: bpy.types.Context) -> None:
        rig, choice = self.choice(context)
        self.check_range(choice)
        hold_lids(rig, choice, self.closed, self.ease)


classes = (EFFIGY_OT_hold_lids,)
