"""Makes a part of a performance stronger or weaker."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty, IntProperty

from ..blender_addon.clean_up import CleanUpOperator, parts_property
from ..blender_addon.rig.reshaping import scale_parts


class EFFIGY_OT_scale_performance(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.scale_performance"
    bl_label = "Scale"
    bl_description = "Make a part of the performance stronger or weaker: the mouth and the jaw unless you choose others"

    factor: FloatProperty(
        name="Factor",
        default=1.2,
        min=-2.0,
        soft_min=0.0,
        soft_max=2.0,
        max=10.0,
        description="On sliders and on the angles of bones; head and gaze are scaled about their mean",
    )
    fade: IntProperty(
        name="Fade", default=4, min=0, soft_max=50, description="Frames in which the change begins and ends in a range"
    )
    parts: parts_property({"mouth", "jaw"})

    def run(self, context: bpy.types.Context) -> None:
        count = scale_parts(*self.choice(context), self.factor, self.fade)
        self.report({"INFO"}, f"{count} channels are scaled by {self.factor:g}.")


classes = (EFFIGY_OT_scale_performance,)
