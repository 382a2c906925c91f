"""A camera whose view is the footage: a pinhole of the track's intrinsics before the capture's frames.

Pictures are square crops. Blender measures a lens in millimetres of a sensor and moves the picture's centre by shifts
in widths of the picture; with K in pixels of a `size` picture: lens = f sensor / size, shifts = the principal point's
distance from the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import bpy
import numpy as np
from mathutils import Matrix

from ..errors import EffigyError
from .conventions import OPENCV_AXES
from .data import TrackData
from .performance import Shot

SENSOR: Final = 36.0
"""Millimetres: the full frame that photographers think in."""
_LARGEST_FPS: Final = 32767


@dataclass(frozen=True)
class View:
    """What must be known of a camera and a scene to place pixels."""

    lens: float
    sensor: float
    shift_x: float
    shift_y: float


def view_of(intrinsics: np.ndarray, size: int) -> View:
    """(3, 3) of a `size` x `size` picture -> Blender's numbers; the horizontal focal length is taken."""
    return View(
        lens=float(intrinsics[0, 0]) * SENSOR / size,
        sensor=SENSOR,
        shift_x=0.5 - float(intrinsics[0, 2]) / size,
        shift_y=float(intrinsics[1, 2]) / size - 0.5,
    )


def add_camera(track: TrackData, shot: Shot, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    """A camera that sees what the footage's camera saw."""
    camera = bpy.data.cameras.new(name)
    view = view_of(track.intrinsics, track.size)
    camera.type, camera.lens_unit, camera.sensor_fit = "PERSP", "MILLIMETERS", "HORIZONTAL"
    camera.sensor_width, camera.lens = view.sensor, view.lens
    camera.shift_x, camera.shift_y = view.shift_x, view.shift_y
    camera.clip_start, camera.clip_end = 0.01, 100.0
    obj = bpy.data.objects.new(name, camera)
    collection.objects.link(obj)
    obj.matrix_world = Matrix(shot.stage @ OPENCV_AXES)
    obj.lock_location = obj.lock_rotation = obj.lock_scale = (True, True, True)
    return obj


def set_scene(scene: bpy.types.Scene, track: TrackData, camera: bpy.types.Object, shot: Shot) -> None:
    """Resolution, pixel aspect, frame rate, range and active camera of the footage."""
    render = scene.render
    render.resolution_x = render.resolution_y = track.size
    render.resolution_percentage = 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1
    render.fps, render.fps_base = frame_rate(track.fps)
    scene.frame_start, scene.frame_end = shot.frame_start, shot.frame_start + track.frame_count - 1
    scene.camera = camera


def frame_rate(fps: Fraction) -> tuple[int, float]:
    """Blender's whole rate and its divisor: 30000/1001 is 30 by 1.001."""
    whole = min(max(round(fps), 1), _LARGEST_FPS)
    return whole, float(whole / fps)


def show_footage(camera: bpy.types.Object, frames: Path, frame_count: int, shot: Shot) -> None:
    """The capture's frames (000000.jpg, ...) behind the camera's view, from the shot's first frame on."""
    # Captures of format 1 hold PNG.
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
    # Blender counts a sequence from 1, the capture from 0.
    user.frame_duration, user.frame_start, user.frame_offset = frame_count, shot.frame_start, -1
    user.use_auto_refresh = True
