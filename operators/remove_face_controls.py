"""Removes the face board."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.face_board import build, keys, values
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_remove_face_controls(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.remove_face_controls"
    bl_label = "Remove Face Controls"
    bl_description = "Remove the bones that move the sliders. Keys of these bones stay in their actions, muted"
    bl_options = {"REGISTER", "UNDO"}

    keep: BoolProperty(
        name="Keep the Face",
        default=True,
        description="Give what the bones do to the sliders, so that the face looks as before. Gaze bones are not kept",
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll_board(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        build.check_own(rig)
        if self.keep and keys.moves_performance(rig):
            self.report({"INFO"}, keys.move_performance(rig, context.scene, 0.0, with_handle_keys=True))
        elif self.keep:
            values.move(rig, 0.0)
        keys.mute_handle_keys(rig)
        build.remove_board(rig)
        context.scene.frame_set(context.scene.frame_current, subframe=context.scene.frame_subframe)


classes = (EFFIGY_OT_remove_face_controls,)
