"""Put the performance as training has refined it on the rig, in the tracked one's place."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active, tasks, training
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_take_refined_track(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.take_refined_track"
    bl_label = "Take Refined Track"
    bl_description = (
        "Training also moves the tracked performance to where the pictures say: take that as keyframes, in the "
        "tracked performance's place. Keys of your own stay"
    )
    bl_options = {"REGISTER", "UNDO"}

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return when all is done, as a script wants it"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) and training.has_refined_track(active.need_rig(context))

    def run(self, context: bpy.types.Context) -> None:
        task = training.take_refined_track(active.need_rig(context))
        if self.wait or bpy.app.background:
            tasks.wait_for_success(task)
            self.report({"INFO"}, task.said)


classes = (EFFIGY_OT_take_refined_track,)
