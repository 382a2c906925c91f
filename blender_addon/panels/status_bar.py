"""The running job in Blender's status bar, for when the Effigy tab is not in sight."""

from __future__ import annotations

from typing import Final

import bpy

from .. import tasks
from .jobs_panel import told

SECONDS: Final = 1.0
"""Between two looks."""

_shown = False


def draw(self: bpy.types.Header, context: bpy.types.Context) -> None:
    running = list(tasks.running())
    if running:
        newest = running[-1]
        others = f" (and {len(running) - 1} more)" if len(running) > 1 else ""
        row = self.layout.row()
        row.ui_units_x = 18
        row.progress(factor=newest.share, text=f"{newest.title}: {told(newest)}{others}")


def _redraw() -> float:
    """A status bar is no area of a screen, so nothing but its text being set has Blender draw it again."""
    global _shown
    shown = any(tasks.running())
    if shown or _shown:
        for window in bpy.context.window_manager.windows:
            # After a file was loaded a timer's context has no window, and Blender looks for the status bar in that one: it
            # would read from nowhere and crash.
            with bpy.context.temp_override(window=window):
                window.workspace.status_text_set_internal(None)
    _shown = shown
    return SECONDS


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(draw)
    bpy.app.timers.register(_redraw, first_interval=SECONDS, persistent=True)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(draw)
    if bpy.app.timers.is_registered(_redraw):
        bpy.app.timers.unregister(_redraw)
