"""The panel Live: where the performer's face comes from, what it does, and recording."""

from __future__ import annotations

import bpy

from ..live import session, settings
from ..live.session import Live
from ..wrapped_text import region_width, wrapped
from .base import RigPanel


class EFFIGY_PT_live(RigPanel, bpy.types.Panel):
    bl_idname = "EFFIGY_PT_live"
    bl_label = "Live"
    bl_order = 4
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context: bpy.types.Context) -> None:
        layout, chosen = self.layout, context.window_manager.effigy_live
        layout.use_property_split = True
        layout.use_property_decorate = False
        live = session.current()
        if live is None:
            layout.prop(chosen, "source")
            if chosen.source == settings.WEBCAM:
                layout.prop(chosen, "camera")
            else:
                layout.prop(chosen, "vmc_port" if chosen.source == settings.VMC else "live_link_port")
                layout.prop(chosen, "network")
            row = layout.row()
            row.scale_y = 1.3
            row.operator("effigy.live_start", icon="PLAY")
        else:
            self.draw_running(context, live)
        for name in ("intensity", "motion", "mirror"):
            layout.prop(chosen, name)

    def draw_running(self, context: bpy.types.Context, live: Live) -> None:
        layout, width = self.layout, region_width(context)
        if trouble := live.source.trouble:
            wrapped(layout, trouble, width, "ERROR")
        elif live.calibration.neutral is None:
            wrapped(layout, "Look straight ahead with a resting face, mouth closed…", width, "USER")
        else:
            wrapped(
                layout, f"“{live.rig_name}”: {live.source.figures}", width, "REC" if live.take is not None else "PLAY"
            )
        if live.take is not None:
            layout.label(text=f"{live.take.seconds:.1f} s recorded")
        row = layout.row(align=True)
        row.scale_y = 1.3
        row.operator("effigy.live_record", text="Record" if live.take is None else "End Recording", icon="REC")
        row.operator("effigy.live_stop", text="Stop", icon="CANCEL")
        layout.operator("effigy.live_neutral", icon="USER")


classes = (EFFIGY_PT_live,)
