"""Records what Live shows as keyframes, and ends the recording."""

from __future__ import annotations

import bpy

from ..blender_addon.live import session
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_live_record(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.live_record"
    bl_label = "Record"
    bl_description = (
        "Record what the rig shows, from the current frame on. Pressed again, the take is added as strips above the "
        "rig's performance; your own keys stay as they are"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return session.current() is not None

    def run(self, context: bpy.types.Context) -> None:
        live = session.current()
        if live is not None and live.take is not None:
            self.report({"INFO"}, session.end_take())
        else:
            session.begin_take(context.scene)


classes = (EFFIGY_OT_live_record,)
