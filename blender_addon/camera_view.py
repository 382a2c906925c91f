"""Looking through the footage's camera, with the whole frame in the part of the 3D View that nothing covers.

Blender draws the sidebar, the toolbar and the headers over the 3D View, and fits a camera's frame to all of it. How it
fits: the frame's larger side is the region's larger side times (√2 + zoom / 50)² / 4, with zoom the `view_camera_zoom`
from -30 to 600, and an offset of 1 moves the frame by twice that share of the region.
"""

from __future__ import annotations

import math
from typing import Final

import bpy

MARGIN: Final = 0.94
"""Share of the free part that the frame fills."""
LEAST_ZOOM: Final = -30.0


def look_through_camera(scene: bpy.types.Scene) -> None:
    """Show the footage's view in the 3D Views of this scene: a head is small in Blender's usual view, and easily
    missed.
    """
    for window in bpy.context.window_manager.windows:
        if window.scene == scene:
            for area in window.screen.areas:
                if area.type == "VIEW_3D":
                    view = area.spaces.active.region_3d
                    view.view_perspective = "CAMERA"
                    _fit(view, area, scene.render)


def _fit(view: bpy.types.RegionView3D, area: bpy.types.Area, render: bpy.types.RenderSettings) -> None:
    region = next(region for region in area.regions if region.type == "WINDOW")
    left, right, low, high = _free_part(area, region)
    width, height = render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y
    # The cameras that Effigy makes fit their sensor by the width.
    share = MARGIN * min(right - left, (high - low) * width / height) / region.width
    if share <= 0:
        return
    view.view_camera_zoom = max(LEAST_ZOOM, 50 * (2 * math.sqrt(share) - math.sqrt(2)))
    share = (math.sqrt(2) + view.view_camera_zoom / 50) ** 2 / 4
    # A positive offset moves the frame to the left and down.
    view.view_camera_offset = (
        ((region.width - left - right) / 2) / (2 * share * region.width),
        ((region.height - low - high) / 2) / (2 * share * region.height),
    )


def _free_part(area: bpy.types.Area, region: bpy.types.Region) -> tuple[int, int, int, int]:
    """left, right, low, high in the region's pixels of what sidebar, toolbar and headers leave free."""
    left, right, low, high = 0, region.width, 0, region.height
    for other in area.regions:
        # Hidden ones are one pixel wide.
        if other == region or min(other.width, other.height) <= 1:
            continue
        x, y = other.x - region.x, other.y - region.y
        if other.height > other.width:
            if x + other.width / 2 < region.width / 2:
                left = max(left, x + other.width)
            else:
                right = min(right, x)
        elif y + other.height / 2 < region.height / 2:
            low = max(low, y + other.height)
        else:
            high = min(high, y)
    return left, right, low, high
