"""Stops a job. What it has finished is kept."""

from __future__ import annotations

import bpy
from bpy.props import IntProperty

from ..blender_addon import tasks


class EFFIGY_OT_cancel_job(bpy.types.Operator):
    bl_idname = "effigy.cancel_job"
    bl_label = "Stop"
    bl_description = "Stop this job. A training keeps its checkpoint and can be resumed"

    index: IntProperty(options={"HIDDEN", "SKIP_SAVE"}, description="Index of the job, oldest first")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return any(tasks.running())

    def execute(self, context: bpy.types.Context) -> set[str]:
        jobs = tasks.all_tasks()
        if not 0 <= self.index < len(jobs) or jobs[self.index].finished:
            self.report({"ERROR"}, "That job has ended already.")
            return {"CANCELLED"}
        jobs[self.index].cancel()
        return {"FINISHED"}


classes = (EFFIGY_OT_cancel_job,)
