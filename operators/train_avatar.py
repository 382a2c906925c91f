"""Trains an avatar on the capture of the active rig, and on those of other selected rigs that were tracked together."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active, tasks, training
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_train_avatar(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.train_avatar"
    bl_label = "Train Avatar"
    bl_description = (
        "Train an avatar on this rig's footage in the background, and on that of the other selected rigs if they were "
        "tracked together with it"
    )

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        task = training.train(active.need_rig(context), active.selected_of_same_head(context))
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_train_avatar,)
