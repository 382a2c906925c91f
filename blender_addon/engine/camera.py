"""Converts Blender's camera to the pinhole or orthographic camera of the worker.

Blender's projection matrix combines sensor fit, lens shift, pixel aspect and orthographic scale, so the intrinsics are
read from it instead of being derived a second time. A render border is a part of the same image: it shifts the
principal point.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError
from ..rig.conventions import world_to_camera

HEAD_RADIUS: Final = 0.5
"""Metres around the origin of head space that hold any head with its hair."""


@dataclass(frozen=True)
class RenderRegion:
    """The part of the image that is rendered, in pixels from the image's top left corner."""

    left: int
    top: int
    width: int
    height: int


def image_size(render: bpy.types.RenderSettings) -> tuple[int, int]:
    """Width and height of the whole image, scaled by the resolution percentage and truncated to whole pixels as Blender
    does.
    """
    percentage = render.resolution_percentage
    return max(1, render.resolution_x * percentage // 100), max(1, render.resolution_y * percentage // 100)


def render_region(render: bpy.types.RenderSettings, width: int, height: int) -> RenderRegion:
    """The render border, or the whole image."""
    if not render.use_border:
        return RenderRegion(0, 0, width, height)
    # In single precision and truncated, as Blender does it: it refuses an image that is a pixel larger or smaller.
    left, right = (int(np.float32(edge) * np.float32(width)) for edge in (render.border_min_x, render.border_max_x))
    bottom, top = (int(np.float32(edge) * np.float32(height)) for edge in (render.border_min_y, render.border_max_y))
    if right <= left or top <= bottom:
        raise EffigyError("The render border contains no pixel: draw a larger one, or switch Render Region off.")
    return RenderRegion(left, height - top, right - left, top - bottom)


@dataclass(frozen=True)
class WorkerCamera:
    """A camera as the worker takes it: OpenCV axes, in head-space axes."""

    world_to_camera: np.ndarray
    """(4, 4)"""
    intrinsics: np.ndarray
    """(3, 3) pixels; pixels per metre for an orthographic camera."""
    orthographic: bool
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    clip: tuple[float, float] = (0.0, np.inf)
    """Nothing nearer or farther is in the image, metres along the camera's axis."""

    def message(self, roots: Iterable[np.ndarray] = ()) -> dict[str, Any]:
        """The worker protocol's `camera`. The clipping range is sent only if it may cut one of the heads, whose `root`
        (4, 4) are the transforms from head space to the world.
        """
        message = {
            "world_to_camera": self.world_to_camera,
            "intrinsics": self.intrinsics,
            "orthographic": self.orthographic,
            "width": self.width,
            "height": self.height,
        }
        if any(self._may_cut(root) for root in roots):
            message["clip"] = self.clip
        return message

    def _may_cut(self, root: np.ndarray) -> bool:
        depth = (self.world_to_camera @ root[:, 3])[2]
        radius = HEAD_RADIUS * float(np.cbrt(abs(np.linalg.det(root[:3, :3]))))
        # What is behind the camera is in no image.
        return depth > -radius and not self.clip[0] <= depth - radius <= depth + radius <= self.clip[1]


def worker_camera(
    camera: bpy.types.Object,
    depsgraph: bpy.types.Depsgraph,
    size: tuple[int, int],
    region: RenderRegion,
) -> WorkerCamera:
    """Converts an evaluated camera object, for a region of an image of `size` (width, height)."""
    if camera.type != "CAMERA":
        raise EffigyError(
            f"The scene looks through “{camera.name}”, which is not a camera: choose one in Properties ▸ Scene."
        )
    if camera.data.type not in {"PERSP", "ORTHO"}:
        raise EffigyError(
            f"“{camera.name}” has a panoramic or custom lens, which Effigy cannot render: set its type to "
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
    intrinsics[:2, 2] -= region.left, region.top
    return WorkerCamera(
        world_to_camera(np.array(camera.matrix_world)),
        intrinsics,
        orthographic,
        region.width,
        region.height,
        (camera.data.clip_start, camera.data.clip_end),
    )


def intrinsics_of(projection: np.ndarray, width: int, height: int, orthographic: bool) -> np.ndarray:
    """(4, 4) OpenGL projection matrix -> (3, 3) intrinsics in pixels; of an orthographic camera, in pixels per metre.

    In OpenGL, x runs from -1 to 1 over the image from the left, and y from the bottom. A perspective projection divides
    by -z, so the lens shift in its third column has the opposite sign of that in an orthographic one's fourth column.
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
