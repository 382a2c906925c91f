"""Adds a floor that shows nothing but the shadow of the active head."""

from __future__ import annotations

import bpy

from ..blender_addon import active
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.shadow_catcher import add_shadow_catcher


class EFFIGY_OT_add_shadow_catcher(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.add_shadow_catcher"
    bl_label = "Add Shadow Catcher"
    bl_description = (
        "Add a floor below this head that Cycles renders as the head's shadow alone, and make the film transparent, to "
        "put the head over a plate. Lights of the scene throw the shadow"
    )
    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def run(self, context: bpy.types.Context) -> None:
        floor = add_shadow_catcher(active.need_rig(context), context.scene)
        others = "" if context.scene.render.engine == "CYCLES" else " Only Cycles renders it as a shadow."
        self.report({"INFO"}, f"“{floor.name}” catches the head's shadow.{others}")


classes = (EFFIGY_OT_add_shadow_catcher,)
