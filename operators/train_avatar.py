"""Trains an avatar on the capture of the active rig."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active, tasks, training
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_train_avatar(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.train_avatar"
    bl_label = "Train Avatar"
    bl_description = "Train an avatar on this rig's footage in the background"

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        task = training.train(active.need_rig(context))
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_train_avatar,)
