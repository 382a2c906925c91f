"""Lets a rig's resting eyes move, or makes these movements anew."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty

from ..blender_addon.life_operators import LifeOperator
from ..blender_addon.rig import life
from ..blender_addon.rig.rig_properties import Rig


class EFFIGY_OT_add_saccades(LifeOperator, bpy.types.Operator):
    bl_idname = "effigy.add_saccades"
    bl_label = "Eye Movements"
    bl_description = (
        "Let resting eyes make small jumps, as living ones do, in a strip above the performance or around the gaze "
        "target. Again, with other numbers, the strip is made anew"
    )
    kind = life.SACCADES

    jumps: FloatProperty(name="Jumps a Second", default=1.2, min=0.05, soft_max=3.0, max=5.0)
    size: FloatProperty(name="Size", default=0.6, min=0.0, soft_max=3.0, max=15.0, description="Degrees")

    def add(self, rig: Rig, frames: tuple[int, int], rate: float, depsgraph: bpy.types.Depsgraph) -> str:
        return life.add_saccades(rig, frames, rate, depsgraph, jumps=self.jumps, size=self.size, seed=self.seed)


classes = (EFFIGY_OT_add_saccades,)
