"""Computes the avatars' splats for every frame of the playback range, so that it plays at the full frame rate."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import tasks
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.viewport import baking


class EFFIGY_OT_bake_playback(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.bake_playback"
    bl_label = "Bake Playback"
    bl_description = (
        "Compute the avatars for every frame of the playback range, so that it plays at the full frame rate"
    )

    wait: BoolProperty(
        name="Wait", options={"HIDDEN", "SKIP_SAVE"}, description="Return only when everything is done, for scripts"
    )

    def run(self, context: bpy.types.Context) -> None:
        scene = context.scene
        preview = scene.use_preview_range
        first = scene.frame_preview_start if preview else scene.frame_start
        last = scene.frame_preview_end if preview else scene.frame_end
        task = baking.bake(context, baking.rigs_with_avatars(context.view_layer), first, last)
        tasks.wait_if_asked(self, task)


classes = (EFFIGY_OT_bake_playback,)
