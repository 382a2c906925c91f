"""Leaves only the keys that a performance needs to stay within a tolerance."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty

from ..blender_addon.clean_up import CleanUpOperator
from ..blender_addon.rig.cleaning import simplify


class EFFIGY_OT_simplify_performance(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.simplify_performance"
    bl_label = "Simplify"
    bl_description = (
        "Make curves with few keys of the performance, which has one in every frame, so that it can be edited. Says "
        "how many keys are left, and by how much the face moves at most"
    )

    tolerance: FloatProperty(
        name="Tolerance",
        default=0.2,
        min=0.001,
        soft_max=2.0,
        max=100.0,
        precision=2,
        description="Millimetres on the face by which each slider or bone may differ from the performance",
    )

    def run(self, context: bpy.types.Context) -> None:
        manager = context.window_manager
        manager.progress_begin(0, 1)
        try:
            done = simplify(*self.choice(context), self.tolerance, manager.progress_update)
        finally:
            manager.progress_end()
        self.report(
            {"INFO"},
            f"{done.after} of {done.before} keys are left. The largest error is {done.error:.2f} mm: {done.channel} at "
            f"frame {done.frame:g}.",
        )


classes = (EFFIGY_OT_simplify_performance,)
