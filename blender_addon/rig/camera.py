"""The footage's camera in Blender: a pinhole camera with the track's intrinsics, and the capture's frames behind its
view.

The frames of a capture are square crops. Blender gives the focal length in millimetres on a sensor of a certain width,
and the principal point as a shift in image widths. For a focal length f in pixels and an image of `size` pixels:
lens = f * sensor / size, and shift = distance of the principal point from the image's centre / size.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Final

import bpy
import numpy as np
from mathutils import Matrix

from ..errors import EffigyError
from ..file_names import datablock_name
from .action import CONSTANT, Curve, add_curve, new_action, play_action
from .conventions import OPENCV_AXES
from .data import TrackData
from .performance import Placement

SENSOR: Final = 36.0
"""Sensor width in millimetres: full frame, which photographers are used to."""
_MAX_FPS: Final = 32767
"""The largest `render.fps` that Blender allows."""


@dataclass(frozen=True)
class Lens:
    """The parameters of a Blender camera that follow from the intrinsics."""

    focal_length: float
    """Millimetres."""
    sensor_width: float
    """Millimetres."""
    shift_x: float
    """Image widths."""
    shift_y: float
    """Image widths."""


def lens_of(intrinsics: np.ndarray, size: int) -> Lens:
    """Intrinsics (3, 3) in pixels of a `size` x `size` image -> Blender's camera parameters. The horizontal focal
    length is used for both axes.
    """
    return Lens(
        focal_length=float(intrinsics[0, 0]) * SENSOR / size,
        sensor_width=SENSOR,
        shift_x=0.5 - float(intrinsics[0, 2]) / size,
        shift_y=float(intrinsics[1, 2]) / size - 0.5,
    )


def add_camera(track: TrackData, placement: Placement, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    """Adds a camera with the pose and the lens of the footage's camera, with its transform locked."""
    camera = bpy.data.cameras.new(name)
    lens = lens_of(track.intrinsics, track.size)
    camera.type, camera.lens_unit, camera.sensor_fit = "PERSP", "MILLIMETERS", "HORIZONTAL"
    camera.sensor_width, camera.lens = lens.sensor_width, lens.focal_length
    camera.shift_x, camera.shift_y = lens.shift_x, lens.shift_y
    camera.clip_start, camera.clip_end = 0.01, 100.0
    obj = bpy.data.objects.new(name, camera)
    collection.objects.link(obj)
    obj.matrix_world = Matrix(placement.camera_pose @ OPENCV_AXES)
    obj.lock_location = obj.lock_rotation = obj.lock_scale = (True, True, True)
    return obj


def set_up_scene(scene: bpy.types.Scene, track: TrackData, camera: bpy.types.Object, placement: Placement) -> None:
    """Gives the scene the footage's resolution, pixel aspect, frame rate, frame range and camera."""
    render = scene.render
    render.resolution_x = render.resolution_y = track.size
    render.resolution_percentage = 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1
    render.fps, render.fps_base = frame_rate(track.fps)
    last = placement.frame_start + ceil(track.positions[-1] - 1e-6)
    scene.frame_start, scene.frame_end = placement.frame_start, last
    scene.camera = camera


def frame_rate(fps: Fraction) -> tuple[int, float]:
    """Blender's integer frame rate and its divisor `fps_base`: 30000/1001 becomes 30 and 1.001."""
    whole = min(max(round(fps), 1), _MAX_FPS)
    return whole, float(whole / fps)


def rate_of(scene: bpy.types.Scene) -> float:
    """The scene's frames per second."""
    return scene.render.fps / scene.render.fps_base


def exact_rate(scene: bpy.types.Scene) -> Fraction:
    """The scene's frames per second as a fraction: Blender holds the divisor 1.001 of 30000/1001 with 7 digits."""
    return Fraction(scene.render.fps) / Fraction(scene.render.fps_base).limit_denominator(1000)


def frames_per_frame(scene: bpy.types.Scene, fps: Fraction) -> float:
    """How many of the scene's frames a frame of footage at `fps` takes."""
    scale = rate_of(scene) / float(fps)
    # Blender holds the divisor of a rate such as 30000/1001 with 7 digits.
    return 1.0 if abs(scale - 1) < 1e-6 else scale


def show_footage(
    camera: bpy.types.Object, frames: Path, positions: np.ndarray, placement: Placement, scale: float = 1.0
) -> None:
    """Shows the capture's frames (000000.jpg, ...) as the camera's background, from the performance's first frame on.

    `positions` (F,) is when each is shown, in frames of the footage; `scale` is how many of the scene's frames one of
    these takes.
    """
    # Captures of format 1 hold PNG files.
    jpeg, png = Path(frames) / "000000.jpg", Path(frames) / "000000.png"
    first = png if png.is_file() else jpeg
    if not first.is_file():
        raise EffigyError(f"The footage cannot be shown behind the camera: {first} is missing. Make the capture again.")
    image = bpy.data.images.load(str(first), check_existing=True)
    image.source = "SEQUENCE"
    camera.data.show_background_images = True
    background = camera.data.background_images.new()
    background.image = image
    background.frame_method, background.display_depth, background.alpha = "FIT", "BACK", 1.0
    user = background.image_user
    # Blender counts the images of a sequence from 1, the capture counts its frames from 0.
    shown = scale * positions
    # Blender limits the scene's frame to the duration before it adds the offset.
    user.frame_duration = ceil(shown[-1]) + 1
    user.frame_start, user.frame_offset = placement.frame_start, -1
    user.use_auto_refresh = True
    if not np.array_equal(shown, np.arange(len(shown))):
        _follow_times(camera.data, shown, placement.frame_start)


def _follow_times(camera: bpy.types.Camera, shown: np.ndarray, frame_start: int) -> None:
    """Keys the background's offset so that each frame of the scene shows the image that was taken last before it.

    `shown` (F,) is when each image is shown, in the scene's frames after `frame_start`.
    """
    frames = np.arange(ceil(shown[-1]) + 1)
    images = np.searchsorted(shown, frames + 1e-3, side="right") - 1
    offsets = images - frames - 1
    changed = np.flatnonzero(np.diff(offsets, prepend=offsets[0] - 1))
    action = new_action(datablock_name(camera.name, " footage"), camera)
    path = "background_images[0].image_user.frame_offset"
    add_curve(action, Curve(path, 0, "Footage", changed + frame_start, offsets[changed]), CONSTANT)
    play_action(camera, action)
