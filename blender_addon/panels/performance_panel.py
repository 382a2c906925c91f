"""The panel Performance: adding one from a sound or from another person, cleaning up its curves, and the life that is
added to it: gaze, blinks and breath.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import bpy

from .. import active, backend_setup
from ..rig import gaze_target, life
from ..rig.rig_properties import Rig
from ..rig.takes import takes_of
from .base import RigPanel

LIFE: Final = {life.BLINKS: "BLINKS", life.SACCADES: "SACCADES", life.BREATHING: "BREATHING"}
"""The kinds of strips -> what their operators call them."""


class EFFIGY_PT_performance(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_performance"
    bl_label = "Performance"
    bl_order = 3

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.has_rig(context) and active.need_rig(context).is_editable

    def draw(self, context: bpy.types.Context) -> None:
        rig = active.need_rig(context)
        column = self.layout.column(align=True)
        column.enabled = backend_setup.state().ready
        column.operator("effigy.lip_sync", icon="SPEAKER")
        column.operator("effigy.retarget_performance", icon="MOD_MESHDEFORM")
        heading, body = self.layout.panel("effigy_clean_up", default_closed=True)
        heading.label(text="Clean Up")
        if body is not None:
            _draw_clean_up(body, is_possible=bool(takes_of(rig)))
        heading, body = self.layout.panel("effigy_life", default_closed=True)
        heading.label(text="Eyes and Life")
        if body is not None:
            _draw_gaze(body, rig)
            _draw_life(body, rig)


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


def _draw_gaze(layout: bpy.types.UILayout, rig: Rig) -> None:
    target = gaze_target.target_of(rig)
    if target is None:
        layout.operator("effigy.add_gaze_target", icon="HIDE_OFF")
        return
    row = layout.row(align=True)
    row.label(text=target.name, icon="HIDE_OFF", translate=False)
    row.operator("effigy.remove_life", text="", icon="X").what = "TARGET"
    column = layout.column(align=True)
    for name, (label, _, _) in gaze_target.SHARES.items():
        if name in target:
            column.prop(target, f'["{name}"]', text=label, slider=True)


def _draw_life(layout: bpy.types.UILayout, rig: Rig) -> None:
    """Each kind's strip: its influence, which can be keyed; made anew; removed."""
    strips, column = life.life_of(rig), layout.column(align=True)
    for kind, name in LIFE.items():
        row = column.row(align=True)
        strip = strips.get(kind)
        if strip is None:
            row.operator(f"effigy.add_{name.lower()}", icon="ADD")
            continue
        row.prop(strip, "influence", text=kind, slider=True)
        again = row.operator(f"effigy.add_{name.lower()}", text="", icon="FILE_REFRESH")
        for setting, value in life.settings_of(strip).items():
            # A .blend of a stranger may have others.
            with suppress(AttributeError, TypeError, ValueError, OverflowError):
                setattr(again, setting, value)
        row.operator("effigy.remove_life", text="", icon="X").what = name


classes = (EFFIGY_PT_performance,)
