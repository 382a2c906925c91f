"""Makes the pose at the current frame the neutral face of a performance."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty

from ..blender_addon.clean_up import CleanUpOperator, parts_property
from ..blender_addon.rig.reshaping import offset_neutral


class EFFIGY_OT_offset_neutral(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.offset_neutral"
    bl_label = "Offset Neutral"
    bl_description = (
        "Take the pose of the performance at the current frame off all its frames, so that this face becomes the "
        "neutral one: for brows or a mouth that never rest. Lids and gaze are left out unless you choose them"
    )

    amount: FloatProperty(
        name="Amount", default=1.0, min=0.0, max=1.0, subtype="FACTOR", description="How much of the pose is taken off"
    )
    parts: parts_property({"brows", "cheeks", "mouth", "jaw", "other"})

    def run(self, context: bpy.types.Context) -> None:
        count = offset_neutral(*self.choice(context), context.scene.frame_current, self.amount)
        self.report({"INFO"}, f"{count} channels rest at frame {context.scene.frame_current} now.")


classes = (EFFIGY_OT_offset_neutral,)
