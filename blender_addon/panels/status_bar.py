"""The running job in Blender's status bar, for when the Effigy tab is not in sight."""

from __future__ import annotations

import bpy

from .. import tasks
from .jobs_panel import told


def draw(self: bpy.types.Header, context: bpy.types.Context) -> None:
    running = list(tasks.running())
    if running:
        newest = running[-1]
        others = f" (and {len(running) - 1} more)" if len(running) > 1 else ""
        row = self.layout.row()
        row.ui_units_x = 18
        row.progress(factor=newest.share, text=f"{newest.title}: {told(newest)}{others}")


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(draw)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(draw)
