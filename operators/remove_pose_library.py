"""Removes the asset library of poses."""

from __future__ import annotations

import bpy

from ..blender_addon import pose_library
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_remove_pose_library(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.remove_pose_library"
    bl_label = "Remove Pose Library"
    bl_description = (
        "Take the asset library of poses out of Blender's preferences, and delete the poses that Make Pose Library has "
        "written, of all avatars. Poses in your own files stay"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return pose_library.is_registered()

    def run(self, context: bpy.types.Context) -> None:
        pose_library.remove()


classes = (EFFIGY_OT_remove_pose_library,)
