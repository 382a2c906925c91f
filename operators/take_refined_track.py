"""Replaces the tracked performance on the rig with the one that the avatar has refined."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active, tasks, training
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_take_refined_track(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.take_refined_track"
    bl_label = "Take Refined Track"
    bl_description = (
        "Replace the tracked performance with the one that Refine Track with Avatar has found. Your own keys stay"
    )
    bl_options = {"REGISTER", "UNDO"}

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and training.has_refined_track(active.need_rig(context))

    def run(self, context: bpy.types.Context) -> None:
        task = training.take_refined_track(active.need_rig(context))
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_take_refined_track,)
