"""Goes to the next frame of which the track is unsure, or to the one before."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty

from ..blender_addon import active
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import fit


class EFFIGY_OT_show_unsure_frame(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.show_unsure_frame"
    bl_label = "Unsure Frame"
    bl_description = "Go to the next place where the track is unsure"

    backwards: BoolProperty(name="Backwards", options={"HIDDEN", "SKIP_SAVE"}, description="Go to the one before")

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    @classmethod
    def description(cls, context: bpy.types.Context, properties: bpy.types.OperatorProperties) -> str:
        return f"Go to the {'last' if properties.backwards else 'next'} place where the track is unsure"

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        fit.need_errors(rig)
        frame = fit.next_unsure(rig, context.scene.frame_current, backwards=self.backwards)
        if frame is None:
            raise EffigyError("The track is sure of all frames.")
        context.scene.frame_set(frame)


classes = (EFFIGY_OT_show_unsure_frame,)
