"""The image of avatars that Blender plays by itself: splats by `player`, drawn as in the viewport, without the worker.

Blender gives a render engine a GPU context if it asks for one when it is registered. In a window there always is one.
In the background it is asked for on Linux only, and only where EGL gives one (`egl`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import bpy
import gpu
import numpy as np

from ..backend_setup import state
from ..rig.conventions import BLENDER_TO_HEAD, OPENCV_AXES
from ..viewport.shared_shaders import ShaderSet
from ..viewport.splat_framebuffer import BLOCK, SplatFramebuffer, SplatTexture, ViewCamera
from ..viewport.splats import DrawStyle, Splats, pack
from . import egl
from .camera import WorkerCamera
from .rendered_frame import EMPTY_ALPHA, RenderedFrame
from .subjects import RenderSubjects, Subject

TILE: Final = 4096
"""Pixels of a side of what is drawn at once, or fewer where the GPU has smaller textures: 0.5 GB of its memory."""
NEAR, FAR = 0.01, 1000.0
"""Metres, of a projection matrix whose depths nobody reads."""

_shaders: Final = ShaderSet()


def has_gpu() -> bool:
    """Whether the engine may ask Blender for a GPU context."""
    if not bpy.app.background:
        return True
    return sys.platform == "linux" and egl.gives_context()


def is_playable(visible: RenderSubjects, enhanced: bool) -> bool:
    """Whether all avatars of an image have a player, and Blender can draw them. If `enhanced`, those with an enhancer
    are left to the worker where a backend is installed.
    """
    if not has_gpu() or _shaders.failure or any(subject.player is None for subject in visible.subjects):
        return False
    has_enhancer = any(subject.player.baked.has_enhancer for subject in visible.subjects if subject.player)
    return not (enhanced and has_enhancer and state().ready)


def why_not_here(visible: RenderSubjects) -> str:
    """Why avatars that have players cannot be rendered on a machine without a backend; empty where they can, or where
    there is a backend.
    """
    if state().ready or any(subject.player is None for subject in visible.subjects):
        return ""
    packages = "install libegl1, libgl1 and a graphics driver (Mesa's is enough), " if sys.platform == "linux" else ""
    return _shaders.failure or (
        "Blender has no graphics context here, in the background, so it cannot draw the avatar by itself: "
        f"{packages}render from Blender's window, or install the backend in Effigy's preferences."
    )


def draw(
    visible: RenderSubjects, view: WorkerCamera, labels: Sequence[np.ndarray] = (), parts: int = 0
) -> RenderedFrame:
    """The avatars' image, in tiles where it is larger than the GPU's textures. `labels`: of each avatar the part (N,)
    of each vertex, below `parts`. Needs a GPU context. Raises an `EffigyError` if a shader cannot be built.
    """
    splats = [_clipped(_splats_of(subject, view), view) for subject in visible.subjects]
    marks = [
        label[subject.player.vertices_of_gaussians[: len(each.means)]]
        for label, each, subject in zip(labels, splats, visible.subjects, strict=False)
    ]
    shown = [np.float32(not subject.holdout) for subject in visible.subjects]
    side = min(TILE, gpu.capabilities.max_texture_size_get() - BLOCK)
    if max(view.width, view.height) <= side:
        return _draw_tile(splats, shown, view, marks, parts)
    rows = []
    for top in range(0, view.height, side):
        row = []
        for left in range(0, view.width, side):
            intrinsics = view.intrinsics.copy()
            intrinsics[:2, 2] -= left, top
            size = {"width": min(side, view.width - left), "height": min(side, view.height - top)}
            row.append(_draw_tile(splats, shown, replace(view, intrinsics=intrinsics, **size), marks, parts))
        rows.append(row)
    return RenderedFrame.joined(rows)


def _draw_tile(
    splats: Sequence[Splats],
    shown: Sequence[np.float32],
    view: WorkerCamera,
    labels: Sequence[np.ndarray],
    parts: int,
) -> RenderedFrame:
    """Heads, for each of them 1, or 0 for a holdout, and the parts of its Gaussians."""
    camera = view_camera(view)
    colored = [replace(each, colors=each.colors * share) for each, share in zip(splats, shown, strict=True)]
    framebuffer = SplatFramebuffer(programs=_shaders, color_format="RGBA32F")
    color, depth = _drawn(framebuffer, colored, camera)
    alpha, hole = color[..., 3], np.zeros(color.shape[:2], np.float32)
    if not all(shown):
        # The weights and depths of those that are no holdouts are accumulated like a colour.
        axis = camera.view[2]
        marked = []
        for each, share in zip(splats, shown, strict=True):
            depths = -(each.means @ axis[:3].astype(np.float32) + np.float32(axis[3]))
            marks = np.stack((np.ones_like(depths), depths, np.zeros_like(depths)), 1)
            marked.append(replace(each, colors=share * marks))
        marks, _ = _drawn(framebuffer, marked, camera)
        hole = np.maximum(alpha - marks[..., 0], 0)
        alpha, depth = marks[..., 0], marks[..., 1]
    covered = alpha > EMPTY_ALPHA
    mean_depth = np.divide(depth, alpha, out=np.full_like(depth, np.inf), where=covered)
    covers = np.zeros((*alpha.shape, parts), np.float32)
    for first in range(0, parts, 3):
        marked = [
            replace(each, colors=share * (label[:, None] == np.arange(first, first + 3)).astype(np.float32))
            for each, share, label in zip(splats, shown, labels, strict=True)
        ]
        covers[..., first : first + 3] = _drawn(framebuffer, marked, camera)[0][..., : min(3, parts - first)]
    return RenderedFrame(color[..., :3], alpha, mean_depth, hole, covers)


def view_camera(view: WorkerCamera) -> ViewCamera:
    """The camera in Blender's world and OpenGL's axes."""
    (fx, _, cx), (_, fy, cy), _ = view.intrinsics
    # Of the image's centre from the principal point, in halves of the image; y from below.
    x, y = 1 - 2 * cx / view.width, 2 * cy / view.height - 1
    projection = np.zeros((4, 4))
    projection[0, 0], projection[1, 1] = 2 * fx / view.width, 2 * fy / view.height
    if view.orthographic:
        projection[:, 3] = -x, -y, -1, 1
        projection[2, 2] = -2 / FAR
    else:
        projection[:, 2] = x, y, -(FAR + NEAR) / (FAR - NEAR), -1
        projection[2, 3] = -2 * FAR * NEAR / (FAR - NEAR)
    return ViewCamera(OPENCV_AXES @ view.world_to_camera @ BLENDER_TO_HEAD, projection, view.width, view.height)


def _drawn(framebuffer: SplatFramebuffer, heads: Sequence[Splats], camera: ViewCamera) -> tuple[np.ndarray, np.ndarray]:
    """As `SplatFramebuffer.read`."""
    packed = pack([(head, head.motion, DrawStyle()) for head in heads])
    if packed is None:
        return np.zeros((camera.height, camera.width, 4), np.float32), np.zeros(
            (camera.height, camera.width), np.float32
        )
    framebuffer.draw(SplatTexture(packed), camera)
    return framebuffer.read(camera)


def _splats_of(subject: Subject, view: WorkerCamera) -> Splats:
    rotation, translation = view.world_to_camera[:3, :3], view.world_to_camera[:3, 3]
    seen = {"direction": rotation[2]} if view.orthographic else {"view": -rotation.T @ translation}
    return Splats.from_answer(subject.player.splats(subject.pose.message(), seen), np.eye(4)).graded(subject.grade)


def _clipped(splats: Splats, view: WorkerCamera) -> Splats:
    """The splats without those outside of the camera's clipping range."""
    axis = (view.world_to_camera @ BLENDER_TO_HEAD)[2]
    depths = splats.means @ axis[:3] + axis[3]
    return replace(splats, opacities=splats.opacities * ((depths >= view.clip[0]) & (depths <= view.clip[1])))


def unregister() -> None:
    _shaders.release()
