"""Requests redraws of single regions: redrawing the 3D scene costs much more than redrawing a panel beside it."""

from __future__ import annotations

from typing import Final

import bpy

REGIONS: Final = {"VIEW_3D": "UI", "PREFERENCES": "WINDOW"}
"""Type of an area -> type of its region with panels of the extension."""


def redraw_panels() -> None:
    """Redraws the regions that show jobs, without the 3D scene."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if region.type == REGIONS.get(area.type):
                    region.tag_redraw()


def redraw_views() -> None:
    """Redraws the 3D scene in every 3D View."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "WINDOW":
                        region.tag_redraw()
