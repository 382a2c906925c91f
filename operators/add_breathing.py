"""Lets a rig breathe, or makes its breaths anew."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty

from ..blender_addon.life_operators import LifeOperator
from ..blender_addon.rig import life
from ..blender_addon.rig.rig_properties import Rig


class EFFIGY_OT_add_breathing(LifeOperator, bpy.types.Operator):
    bl_idname = "effigy.add_breathing"
    bl_label = "Breathing"
    bl_description = (
        "Let the head rise and nod a little with each breath, in a strip above the performance. Again, with other "
        "numbers, the strip is made anew"
    )
    kind = life.BREATHING

    breaths_a_minute: FloatProperty(name="Breaths a Minute", default=14.0, min=2.0, soft_max=40.0, max=80.0)
    depth: FloatProperty(name="Depth", default=1.0, min=0.0, soft_max=3.0, max=20.0, description="1: at rest")

    def add(self, rig: Rig, frames: tuple[int, int], rate: float, depsgraph: bpy.types.Depsgraph) -> str:
        return life.add_breathing(
            rig, frames, rate, breaths_a_minute=self.breaths_a_minute, depth=self.depth, seed=self.seed
        )


classes = (EFFIGY_OT_add_breathing,)
