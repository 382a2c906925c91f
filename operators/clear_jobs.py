"""Removes finished jobs from the list."""

from __future__ import annotations

import bpy

from ..blender_addon import tasks
from ..blender_addon.panels import previews


class EFFIGY_OT_clear_jobs(bpy.types.Operator):
    bl_idname = "effigy.clear_jobs"
    bl_label = "Clear Finished"
    bl_description = "Remove finished jobs from the list. Their files stay"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return any(task.finished for task in tasks.all_tasks())

    def execute(self, context: bpy.types.Context) -> set[str]:
        tasks.clear_finished()
        previews.remove_finished()
        return {"FINISHED"}


classes = (EFFIGY_OT_clear_jobs,)
