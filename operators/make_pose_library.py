"""Writes pose assets of the face with pictures of the avatar, and registers them as an asset library."""

from __future__ import annotations

import bpy

from ..blender_addon import active, pose_library
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_make_pose_library(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.make_pose_library"
    bl_label = "Make Pose Library"
    bl_description = (
        "Write expressions, visemes and action units with pictures of this avatar into the extension's own folder, and "
        "name it as an asset library in Blender's preferences. The poses are then in the asset shelf of Pose Mode"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll_board(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        manager = context.window_manager
        manager.progress_begin(0, 100)
        try:
            place = pose_library.make(
                active.need_rig(context),
                context.evaluated_depsgraph_get(),
                lambda share: manager.progress_update(100 * share),
            )
        finally:
            manager.progress_end()
        self.report({"INFO"}, f"The poses are in the asset library “{pose_library.NAME}”: {place}.")


classes = (EFFIGY_OT_make_pose_library,)
