"""Shows the progress of the newest running job in Blender's status bar, where it is visible without the Effigy tab."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import bpy

from .. import tasks
from .jobs_panel import progress_text

INTERVAL: Final = 1.0
"""Seconds between two redraws."""


@dataclass
class _StatusBar:
    """The module's state."""

    shows_job: bool = False
    """Whether the status bar showed a job when it was last redrawn."""


_status_bar = _StatusBar()


def draw(self: bpy.types.Header, context: bpy.types.Context) -> None:
    running = list(tasks.running())
    if running:
        newest = running[-1]
        others = f" (and {len(running) - 1} more)" if len(running) > 1 else ""
        row = self.layout.row()
        row.ui_units_x = 18
        row.progress(factor=newest.fraction, text=f"{newest.title}: {progress_text(newest)}{others}")


def _redraw() -> float:
    """The timer that redraws the status bar. The bar is not an area of a screen, so Blender redraws it only when its
    text is set.
    """
    running = any(tasks.running())
    if running or _status_bar.shows_job:
        for window in bpy.context.window_manager.windows:
            # After a file was loaded, the context of a timer has no window. Setting the text would then crash Blender,
            # because it searches the context's window for the status bar.
            with bpy.context.temp_override(window=window):
                window.workspace.status_text_set_internal(None)
    _status_bar.shows_job = running
    return INTERVAL


def register() -> None:
    bpy.types.STATUSBAR_HT_header.append(draw)
    bpy.app.timers.register(_redraw, first_interval=INTERVAL, persistent=True)


def unregister() -> None:
    bpy.types.STATUSBAR_HT_header.remove(draw)
    if bpy.app.timers.is_registered(_redraw):
        bpy.app.timers.unregister(_redraw)
