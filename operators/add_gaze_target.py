"""Adds a target that a rig's eyes look at."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty

from ..blender_addon import active
from ..blender_addon.life_operators import change_target
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import gaze_target


class EFFIGY_OT_add_gaze_target(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.add_gaze_target"
    bl_label = "Gaze Target"
    bl_description = (
        "Add an empty that the eyes look at: move and key it. The lids follow the eyes, and the head makes a share of "
        "the turn. Each of the three can be keyed"
    )
    bl_options = {"REGISTER", "UNDO"}

    distance: FloatProperty(
        name="Distance",
        default=1.0,
        min=0.05,
        soft_max=10.0,
        max=1000.0,
        subtype="DISTANCE",
        description="From the eyes, for a head of a person's size",
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and active.need_rig(context).is_editable

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        depsgraph = context.evaluated_depsgraph_get()
        change_target(rig, lambda: gaze_target.add_target(rig, self.distance, depsgraph))


classes = (EFFIGY_OT_add_gaze_target,)
