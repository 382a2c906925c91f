"""Adds the face board: bones on and beside the face that move the sliders."""

from __future__ import annotations

import bpy

from ..blender_addon import active
from ..blender_addon.face_board import build
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_add_face_controls(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.add_face_controls"
    bl_label = "Add Face Controls"
    bl_description = (
        "Add bones on and beside the face that move the sliders, to be posed in Pose Mode. Sliders and their keys stay "
        "as they are; the bones add to them"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if not active.poll(cls, context):
            return False
        if build.has_board(active.need_rig(context)):
            cls.poll_message_set("The rig has face controls")
            return False
        return True

    def run(self, context: bpy.types.Context) -> None:
        build.add_board(active.need_rig(context), context.evaluated_depsgraph_get())


classes = (EFFIGY_OT_add_face_controls,)
