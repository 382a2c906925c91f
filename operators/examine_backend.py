"""Asks the backend what this machine can do and what is missing. The preferences page shows the table."""

from __future__ import annotations

import bpy

from ..blender_addon import backend_setup
from ..blender_addon.reporting import ReportingOperator


class EFFIGY_OT_examine_backend(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.examine_backend"
    bl_label = "Examine"
    bl_description = "Test everything that the backend needs, and show what works and what is missing"

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return not backend_setup.is_examining()

    def run(self, context: bpy.types.Context) -> None:
        backend_setup.examine()


classes = (EFFIGY_OT_examine_backend,)
