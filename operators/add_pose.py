"""Adds the face that is shown to this file's pose assets."""

from __future__ import annotations

import bpy
from bpy.props import StringProperty

from ..blender_addon import active, pose_library
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_add_pose(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.add_pose"
    bl_label = "Add to Pose Library"
    bl_description = (
        "Make a pose asset of the face that is shown, by bones, sliders or the performance, with a picture of the "
        "avatar. It is kept in this .blend"
    )
    bl_options = {"REGISTER", "UNDO"}

    name: StringProperty(name="Name", default="Face")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll_board(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_props_dialog(self)

    def run(self, context: bpy.types.Context) -> None:
        depsgraph = context.evaluated_depsgraph_get()
        if note := pose_library.add_pose(active.need_rig(context), depsgraph, self.name.strip() or "Face"):
            self.report({"INFO"}, note)


classes = (EFFIGY_OT_add_pose,)
