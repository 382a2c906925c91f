"""Makes a loop of a range of a performance."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty

from ..blender_addon.clean_up import CleanUpOperator
from ..blender_addon.rig.looping import loop_range


class EFFIGY_OT_loop_range(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.loop_range"
    bl_label = "Loop Range"
    bl_description = (
        "Play the preview range again and again without a seam, in strips above the performance. Its last frames go "
        "over into those before the range"
    )

    count: IntProperty(name="Times", default=4, min=1, soft_max=100, max=1000, description="How often it plays")
    fade: IntProperty(
        name="Fade", default=8, min=1, soft_max=50, description="Frames in which the end goes over into the begin"
    )

    def run(self, context: bpy.types.Context) -> None:
        rig, choice = self.choice(context)
        self.check_range(choice)
        name, note = loop_range(rig, choice, self.count, self.fade)
        self.report({"INFO"}, f"“{name}” plays the range {self.count} times. {note}".rstrip())


classes = (EFFIGY_OT_loop_range,)
