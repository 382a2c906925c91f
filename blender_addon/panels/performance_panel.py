"""The panel Performance: cleaning up its curves."""

from __future__ import annotations

import bpy

from .. import active
from ..rig.takes import takes_of
from .base import RigPanel


class EFFIGY_PT_performance(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_performance"
    bl_label = "Performance"
    bl_order = 3
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) and active.need_rig(context).is_editable

    def draw(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        heading, body = self.layout.panel("effigy_clean_up", default_closed=True)
        heading.label(text="Clean Up")
        if body is not None:
            _draw_clean_up(body, is_possible=bool(takes_of(rig)))


def _draw_clean_up(layout: bpy.types.UILayout, *, is_possible: bool) -> None:
    if not is_possible:
        layout.label(text="This rig has no performance", icon="INFO")
        return
    for names in (
        ("simplify_performance", "smooth_performance"),
        ("remove_spikes", "hold_lids"),
        ("scale_performance", "offset_neutral"),
        ("mirror_performance", "loop_range"),
        ("blend_takes",),
    ):
        row = layout.row(align=True)
        for name in names:
            row.operator(f"effigy.{name}")


classes = (EFFIGY_PT_performance,)
