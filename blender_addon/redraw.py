"""Have Blender draw what shows jobs again, and nothing else: the 3D scene beside a panel costs much more than the
panel.
"""

from __future__ import annotations

from typing import Final

import bpy

REGIONS: Final = {"VIEW_3D": "UI", "PREFERENCES": "WINDOW"}
"""Area -> its region with panels of ours."""


def redraw_panels() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if region.type == REGIONS.get(area.type):
                    region.tag_redraw()


def redraw_views() -> None:
    """Have the 3D scene itself drawn again, in every 3D View."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "WINDOW":
                        region.tag_redraw()
