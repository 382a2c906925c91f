"""Goes to a frame at which the tracked head fits its film badly."""

from __future__ import annotations

import bpy

from ..blender_addon import active
from ..blender_addon.errors import EffigyError
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.rig import fit


class EFFIGY_OT_show_worst_frame(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.show_worst_frame"
    bl_label = "Worst Frame"
    bl_description = (
        "Go to the frame whose landmarks lie furthest from the tracked head. Press again for the next worst"
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        fit.need_errors(rig)
        frame = fit.next_worst(rig, context.scene.frame_current)
        if frame is None:
            raise EffigyError("The track has found no face.")
        context.scene.frame_set(frame)


classes = (EFFIGY_OT_show_worst_frame,)
