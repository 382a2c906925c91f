"""Draws the detector's landmarks over the film, so that an artist can judge how the tracked mesh fits them.

They are read from the capture when they are first shown, if its folder was used on this computer before.
"""

# fake-bpy-module 5.0 declares the types of `gpu` without constructors and its context managers as None.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader

from .. import trusted_paths
from ..errors import EffigyError
from ..paths import absolute
from ..redraw import redraw_panels, redraw_views
from ..rig.fit import film_camera
from ..rig.rig_properties import Rig, find_rigs
from ..worker import session

COLOR: Final = (0.47, 1.0, 0.47, 0.9)
"""The colour of the same dots in `overlay`."""
SIZE: Final = 2.5
"""Pixels at interface scale 1."""


@dataclass
class _Landmarks:
    """The landmarks of a capture."""

    pixels: np.ndarray | None = None
    """(F, L, 2) in pixels of the capture's frames; NaN where there is no face. None while they are being read."""
    error: str = ""


@dataclass
class _State:
    """The module's state."""

    captures: dict[str, _Landmarks] = field(default_factory=dict)
    """By the capture's path."""


_state: Final = _State()


def problem_of(rig: Rig) -> str:
    """Why the landmarks of a rig cannot be shown; empty if they can."""
    try:
        return _state.captures.get(str(_capture_of(rig)), _Landmarks()).error
    except EffigyError as error:
        return str(error)


def _capture_of(rig: Rig) -> Any:
    path = absolute(rig.armature.effigy.capture, rig.armature)
    if not rig.armature.effigy.capture or not trusted_paths.trusts(path):
        raise EffigyError("The capture is not known: choose its folder under Train ▸ Capture.")
    return path


def _landmarks_of(rig: Rig) -> np.ndarray | None:
    """The landmarks of a rig's capture; asks for them at the first call, and gives None until they are there."""
    path = _capture_of(rig)
    known = _state.captures.get(str(path))
    if known is None:
        known = _state.captures[str(path)] = _Landmarks()

        def arrived(answer: Any) -> None:
            found = np.asarray(answer["landmarks"], np.float32)
            if found.ndim == 3 and found.shape[2] >= 2:
                known.pixels = found[..., :2]
            redraw_views()

        def failed(error: Exception) -> None:
            known.error = str(error)
            redraw_panels()

        session.client().request("capture.read", {"path": str(path)}, arrived, failed)
    return known.pixels


def draw(context: bpy.types.Context) -> None:
    """Draws the landmarks of the current frame in a view through the film's camera."""
    if context.region_data.view_perspective != "CAMERA" or not context.space_data.overlay.show_overlays:
        return
    for rig in find_rigs(context.view_layer.objects):
        if not rig.armature.effigy_view.landmarks:
            continue
        camera = film_camera(rig)
        if camera is None or camera != (context.space_data.camera or context.scene.camera):
            continue
        try:
            pixels = _landmarks_of(rig)
        except EffigyError:
            # The panel says it.
            continue
        if pixels is not None:
            _draw_points(points_of(camera, pixels, _shown_frame(camera, context.scene)), context)


def _shown_frame(camera: bpy.types.Object, scene: bpy.types.Scene) -> int:
    """Index of the film's frame that the camera shows (`rig.camera.show_footage`)."""
    user = camera.data.background_images[0].image_user
    index = scene.frame_current - user.frame_start + 1 + user.frame_offset
    return min(max(index, 0), user.frame_duration - 1)


def points_of(camera: bpy.types.Object, pixels: np.ndarray, index: int) -> np.ndarray:
    """(N, 3) in the world: the landmarks (F, L, 2) of frame `index`, one metre before the film's camera. The capture's
    frames are as wide as the picture of the camera's lens (`rig.camera.lens_of`).
    """
    data = camera.data
    size = camera.data.background_images[0].image.size[0]
    found = pixels[min(index, len(pixels) - 1)]
    found = found[np.isfinite(found).all(1)].astype(np.float64)
    if not size or not len(found):
        return np.empty((0, 3))
    focal = data.lens * size / data.sensor_width
    centre = size * np.array((0.5 - data.shift_x, 0.5 + data.shift_y))
    ahead = np.concatenate(((found - centre) / focal * (1, -1), -np.ones((len(found), 1))), 1)
    pose = np.array(camera.matrix_world, np.float64)
    return ahead @ pose[:3, :3].T + pose[:3, 3]


def _draw_points(points: np.ndarray, context: bpy.types.Context) -> None:
    if not len(points):
        return
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    batch = batch_for_shader(shader, "POINTS", {"pos": points.astype(np.float32)})
    gpu.state.depth_test_set("NONE")
    gpu.state.blend_set("ALPHA")
    gpu.state.point_size_set(SIZE * context.preferences.system.ui_scale)
    shader.bind()
    shader.uniform_float("color", COLOR)
    batch.draw(shader)
    gpu.state.blend_set("NONE")


def forget() -> None:
    """Landmarks are read again when they are shown the next time."""
    _state.captures.clear()


def unregister() -> None:
    forget()
