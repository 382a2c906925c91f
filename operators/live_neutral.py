"""Takes the performer's neutral face anew."""

from __future__ import annotations

import bpy

from ..blender_addon.live import session
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_live_neutral(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.live_neutral"
    bl_label = "Set Neutral"
    bl_description = (
        "Take the performer's face of the next second as the neutral one, from which the rig's face changes: look "
        "straight ahead, rest, and close the mouth"
    )
    bl_options = {"REGISTER"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return session.current() is not None

    def run(self, context: bpy.types.Context) -> None:
        session.calibrate()


classes = (EFFIGY_OT_live_neutral,)
