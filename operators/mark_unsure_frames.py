"""Marks on the timeline where the track is unsure, or removes these markers."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import fit


class EFFIGY_OT_mark_unsure_frames(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.mark_unsure_frames"
    bl_label = "Mark Unsure Frames"
    bl_description = (
        "Put markers on the timeline where the track is unsure: no face was found, or the landmarks lie far from the "
        "tracked head"
    )
    bl_options = {"REGISTER", "UNDO"}

    clear: BoolProperty(name="Clear", options={"HIDDEN", "SKIP_SAVE"}, description="Remove this rig's markers instead")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        if self.clear:
            fit.clear_marks(rig, context.scene)
            return
        fit.need_errors(rig)
        count = fit.mark_unsure(rig, context.scene)
        self.report({"INFO"}, f"{count} places are marked." if count else "The track is sure of all frames.")


classes = (EFFIGY_OT_mark_unsure_frames,)
