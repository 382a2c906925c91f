"""Bake the avatars' splats of the playback range, so that it plays at full rate."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import tasks
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.viewport import baking


class EFFIGY_OT_bake_playback(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.bake_playback"
    bl_label = "Bake Playback"
    bl_description = "Compute the avatars of every frame of the playback range, so that it plays at full rate"

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return when all is done, as a script wants it"
    )

    def run(self, context: bpy.types.Context) -> None:
        scene = context.scene
        preview = scene.use_preview_range
        first = scene.frame_preview_start if preview else scene.frame_start
        last = scene.frame_preview_end if preview else scene.frame_end
        task = baking.bake(context, baking.shown_rigs(scene, context.view_layer), first, last)
        if self.wait or bpy.app.background:
            tasks.wait_for_success(task)
            self.report({"INFO"}, task.said)


classes = (EFFIGY_OT_bake_playback,)
