"""Switches the 3D Views to the footage's camera, with the whole frame in the part of the view that nothing covers.

Blender draws the sidebar, the toolbar and the headers over the 3D View, but fits the camera's frame to the whole
region. The frame's larger side is the region's larger side times s = (√2 + zoom / 50)² / 4, where zoom is
`view_camera_zoom` from -30 to 600. A `view_camera_offset` of 1 moves the frame by 2 s times the region's side.
"""

from __future__ import annotations

import math
from typing import Final

import bpy

MARGIN: Final = 0.94
"""Fraction of the free part that the frame fills."""
MIN_ZOOM: Final = -30.0


def look_through_camera(scene: bpy.types.Scene) -> None:
    """Shows the camera's view in the 3D Views of this scene. In Blender's default view a head is small and easily
    overlooked.
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
    left, right, bottom, top = _free_part(area, region)
    width, height = render.resolution_x * render.pixel_aspect_x, render.resolution_y * render.pixel_aspect_y
    # The cameras that Effigy creates fit their sensor horizontally.
    scale = MARGIN * min(right - left, (top - bottom) * width / height) / region.width
    if scale <= 0:
        return
    view.view_camera_zoom = max(MIN_ZOOM, 50 * (2 * math.sqrt(scale) - math.sqrt(2)))
    scale = (math.sqrt(2) + view.view_camera_zoom / 50) ** 2 / 4
    # A positive offset moves the frame to the left and down.
    view.view_camera_offset = (
        ((region.width - left - right) / 2) / (2 * scale * region.width),
        ((region.height - bottom - top) / 2) / (2 * scale * region.height),
    )


def _free_part(area: bpy.types.Area, region: bpy.types.Region) -> tuple[int, int, int, int]:
    """Left, right, bottom and top, in pixels of the region, of the part that sidebar, toolbar and headers do not
    cover.
    """
    left, right, bottom, top = 0, region.width, 0, region.height
    for other in area.regions:
        # A hidden region is one pixel wide.
        if other == region or min(other.width, other.height) <= 1:
            continue
        x, y = other.x - region.x, other.y - region.y
        if other.height > other.width:
            if x + other.width / 2 < region.width / 2:
                left = max(left, x + other.width)
            else:
                right = min(right, x)
        elif y + other.height / 2 < region.height / 2:
            bottom = max(bottom, y + other.height)
        else:
            top = min(top, y)
    return left, right, bottom, top
