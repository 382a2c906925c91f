"""Removes spikes of a few frames from a performance."""

from __future__ import annotations

import bpy
from bpy.props import FloatProperty, IntProperty

from ..blender_addon.clean_up import CleanUpOperator, parts_property
from ..blender_addon.rig.cleaning import remove_spikes
from ..blender_addon.rig.takes import PARTS

SHOWN = 3
"""Spikes that are named in the report."""


class EFFIGY_OT_remove_spikes(CleanUpOperator, bpy.types.Operator):
    bl_idname = "effigy.remove_spikes"
    bl_label = "Remove Spikes"
    bl_description = (
        "Replace sudden jumps of a few frames, as after a wrong detection, by a straight line between its neighbours"
    )

    longest: IntProperty(name="Longest", default=2, min=1, max=5, description="Frames of a spike")
    height: FloatProperty(
        name="Height",
        default=1.0,
        min=0.05,
        soft_max=10.0,
        max=1000.0,
        precision=2,
        description="Millimetres on the face: smaller jumps stay",
    )
    parts: parts_property(set(PARTS) - {"lids"})

    def run(self, context: bpy.types.Context) -> None:
        spikes = remove_spikes(*self.choice(context), self.longest, self.height)
        if not spikes:
            self.report({"INFO"}, "There are no such spikes.")
            return
        shown = ", ".join(f"{name} at frame {frame:g}" for name, frame in spikes[:SHOWN])
        more = f", and {len(spikes) - SHOWN} more" if len(spikes) > SHOWN else ""
        self.report({"INFO"}, f"Removed: {shown}{more}.")


classes = (EFFIGY_OT_remove_spikes,)
