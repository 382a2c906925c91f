"""Blender's camera, with all that bends its view, as the worker's pinhole.

Sensor fit, shift, pixel aspect and orthographic scale meet in Blender's own projection matrix, so the intrinsics are
read from that rather than derived a second time. A render border is a window in the same picture: it moves the
principal point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from ..errors import EffigyError
from ..rig.conventions import world_to_camera


@dataclass(frozen=True)
class Window:
    """The part of a picture that is rendered, in pixels from the picture's top left corner."""

    left: int
    top: int
    width: int
    height: int


def picture_size(render: bpy.types.RenderSettings) -> tuple[int, int]:
    """Width and height of the whole picture, percentage included, cut to whole pixels as Blender cuts."""
    share = render.resolution_percentage
    return max(1, render.resolution_x * share // 100), max(1, render.resolution_y * share // 100)


def window_of(render: bpy.types.RenderSettings, width: int, height: int) -> Window:
    """The render border, or the whole picture."""
    if not render.use_border:
        return Window(0, 0, width, height)
    # Single precision and cut, as Blender does it: a pixel more or less and it would refuse the picture.
    left, right = (int(np.float32(edge) * np.float32(width)) for edge in (render.border_min_x, render.border_max_x))
    low, high = (int(np.float32(edge) * np.float32(height)) for edge in (render.border_min_y, render.border_max_y))
    if right <= left or high <= low:
        raise EffigyError("The render border holds no pixel: draw a larger one, or switch Render Region off.")
    return Window(left, height - high, right - left, high - low)


def camera_parameters(
    camera: bpy.types.Object,
    depsgraph: bpy.types.Depsgraph,
    size: tuple[int, int],
    window: Window,
) -> dict[str, Any]:
    """The protocol's `camera` for an evaluated camera object and a window of a picture of `size`."""
    if camera.type != "CAMERA":
        raise EffigyError(
            f"The scene looks through “{camera.name}”, which is no camera: choose one in Properties ▸ Scene."
        )
    if camera.data.type not in {"PERSP", "ORTHO"}:
        raise EffigyError(
            f"“{camera.name}” is a panoramic camera, which Effigy cannot render: set its type to "
            "Perspective or Orthographic."
        )
    render = depsgraph.scene.render
    projection = np.array(
        camera.calc_matrix_camera(
            depsgraph, x=size[0], y=size[1], scale_x=render.pixel_aspect_x, scale_y=render.pixel_aspect_y
        )
    )
    orthographic = camera.data.type == "ORTHO"
    intrinsics = intrinsics_of(projection, *size, orthographic)
    intrinsics[:2, 2] -= window.left, window.top
    return {
        "world_to_camera": world_to_camera(np.array(camera.matrix_world)),
        "intrinsics": intrinsics,
        "orthographic": orthographic,
        "width": window.width,
        "height": window.height,
    }


def intrinsics_of(projection: np.ndarray, width: int, height: int, orthographic: bool) -> np.ndarray:
    """(4, 4) OpenGL projection -> (3, 3) in pixels; of an orthographic one the focal lengths are pixels per metre.

    OpenGL's x runs from -1 to 1 over the picture from the left, y from below; a perspective one divides by -z, so that
    the lens shift in its third column comes with the other sign than an orthographic one's in the fourth.
    """
    shift = projection[:2, 3] if orthographic else -projection[:2, 2]
    return np.array(
        (
            (projection[0, 0] * width / 2, 0, (1 + shift[0]) * width / 2),
            (0, projection[1, 1] * height / 2, (1 - shift[1]) * height / 2),
            (0, 0, 1),
        ),
        np.float64,
    )
