"""Resumes a training that was stopped, or that ended when Blender was closed."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active, tasks, training
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_resume_training(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.resume_training"
    bl_label = "Resume Training"
    bl_description = "Continue the stopped training from where it ended, with the settings that it was started with"

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        try:
            return active.poll(cls, context) and training.can_resume(active.need_rig(context))
        except EffigyError:
            return False

    def run(self, context: bpy.types.Context) -> None:
        task = training.resume(active.need_rig(context))
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_resume_training,)
