"""Adds blinks to a rig, or makes them anew."""

from __future__ import annotations

import bpy
from bpy.props import BoolProperty, FloatProperty

from ..blender_addon.face_board.shown import shown_with_handles
from ..blender_addon.life_operators import LifeOperator
from ..blender_addon.rig import life
from ..blender_addon.rig.rig_properties import Rig


class EFFIGY_OT_add_blinks(LifeOperator, bpy.types.Operator):
    bl_idname = "effigy.add_blinks"
    bl_label = "Blinks"
    bl_description = (
        "Let the face blink at random moments, in a strip above the performance, which keeps its own blinks. Again, "
        "with other numbers, the strip is made anew"
    )
    kind = life.BLINKS

    blinks: FloatProperty(name="Blinks a Minute", default=15.0, min=0.0, soft_max=40.0, max=100.0)
    doubles: FloatProperty(
        name="Double", default=0.1, min=0.0, max=1.0, subtype="FACTOR", description="Share of blinks that come in twos"
    )
    jumps: BoolProperty(
        name="On Gaze Jumps", default=True, description="Blink as well where the gaze, or its target, jumps"
    )

    def add(self, rig: Rig, frames: tuple[int, int], rate: float, depsgraph: bpy.types.Depsgraph) -> str:
        return life.add_blinks(
            rig,
            frames,
            rate,
            depsgraph,
            blinks=self.blinks,
            doubles=self.doubles,
            jumps=self.jumps,
            seed=self.seed,
            shown=shown_with_handles(rig, life.LIDS),
        )


classes = (EFFIGY_OT_add_blinks,)
