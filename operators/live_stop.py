"""Ends Live."""

from __future__ import annotations

import bpy

from ..blender_addon.live import session
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_live_stop(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.live_stop"
    bl_label = "Stop Live"
    bl_description = "End Live. The rig is as it was before; a take that is being recorded is kept"
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return session.current() is not None

    def run(self, context: bpy.types.Context) -> None:
        if said := session.stop():
            self.report({"INFO"}, said)


classes = (EFFIGY_OT_live_stop,)
