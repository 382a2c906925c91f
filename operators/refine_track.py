"""Tracks the footage of the active rig again through its avatar, and keys the result in place of the performance."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active, avatars, tasks, training
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_refine_track(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.refine_track"
    bl_label = "Refine Track with Avatar"
    bl_description = (
        "Fit the performance to its footage once more, now with the avatar, which is more accurate than landmarks, "
        "and replace the tracked performance with the result. Your own keys stay"
    )

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context) and avatars.has_avatar(active.need_rig(context).armature)

    def run(self, context: bpy.types.Context) -> None:
        task = training.refine_track(active.need_rig(context))
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_refine_track,)
