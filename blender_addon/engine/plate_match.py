"""The grade by which an avatar meets the plate behind it: the pixels of both at the scene's frame.

The plate is the image or clip behind the scene's camera, or else the scene's active clip. It is placed in the camera's
frame by its own aspect and the background's *Frame Method*; that the artist has moved or turned it is not followed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import bpy
import numpy as np

from ..errors import EffigyError
from ..grade import NEUTRAL, Grade, match
from ..paths import is_file
from ..rig.rig_properties import Rig
from ..srgb import encode
from . import played_frame, worker_frame
from .camera import RenderRegion, image_size
from .rendered_frame import RenderedFrame
from .sight import sight_of
from .subjects import RenderSubjects

SIDE: Final = 256
"""Pixels of the larger side of the pictures that are compared."""
COVERED, EMPTY = 0.95, 0.02
"""A pixel with more alpha is the head's, and one with less the plate's."""
LEAST_PIXELS: Final = 50


def match_plate(rig: Rig, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph, around: bool) -> Grade:
    """The grade of a rig's avatar for the plate behind the scene's camera. `around`: the plate is compared in the
    border around the head instead of behind it. Raises an `EffigyError` if there is no plate, or the head is not in it.
    """
    if scene.camera is None:
        raise EffigyError("There is no camera in this scene: add one and press Ctrl+Numpad 0, or import a video.")
    frame = _avatar(rig, scene, depsgraph)
    plate = _plate(scene, *frame.alpha.shape)
    head = frame.alpha > COVERED
    compared = _border(head) & (frame.alpha < EMPTY) if around else head
    compared &= np.isfinite(plate).all(-1)
    if head.sum() < LEAST_PIXELS or compared.sum() < LEAST_PIXELS:
        raise EffigyError(
            f"The avatar of “{rig.armature.name}” is not before the plate in this frame, or too small: look at it "
            "through the scene's camera."
        )
    straight = frame.color[head] / frame.alpha[head][:, None]
    return match(np.clip(straight, 0, 1), plate[compared])


def _avatar(rig: Rig, scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> RenderedFrame:
    """A small image of one rig's avatar alone, without its grade."""
    width, height = image_size(scene.render)
    share = min(1.0, SIDE / max(width, height))
    size = max(1, round(width * share)), max(1, round(height * share))
    sight = sight_of(scene.camera, depsgraph, size, RenderRegion(0, 0, *size))
    own = [replace(each, grade=NEUTRAL, holdout=False) for each in sight.visible.subjects if each.mesh == rig.mesh]
    if not own:
        raise EffigyError(f"The avatar of “{rig.armature.name}” is hidden from renders in this frame: show it first.")
    visible = RenderSubjects(tuple(own[:1]), ())
    # Outside of a render there is a GPU context in a window only.
    if not bpy.app.background and played_frame.is_playable(visible, enhanced=False):
        return played_frame.draw(visible, sight.view)
    frame = worker_frame.render(visible, sight.view, False, lambda: False)
    if frame is None:
        raise EffigyError("The backend gave no picture of the avatar: try again.")
    return frame


def _border(head: np.ndarray) -> np.ndarray:
    """(H, W) bool: the box around the head, larger by half of it on each side."""
    border = np.zeros_like(head)
    if head.any():
        (top, bottom), (left, right) = (np.flatnonzero(head.any(axis))[[0, -1]] for axis in (1, 0))
        rows, columns = (bottom - top + 1) // 2, (right - left + 1) // 2
        border[max(0, top - rows) : bottom + rows + 1, max(0, left - columns) : right + columns + 1] = True
    return border


def _plate(scene: bpy.types.Scene, height: int, width: int) -> np.ndarray:
    """(H, W, 3) the plate in the camera's frame, sRGB-encoded, the top row first; NaN where there is none."""
    camera = scene.camera.data
    shown = camera.background_images if camera.show_background_images else ()
    for background in shown:
        image, user, clip = background.image, background.image_user, background.clip
        if background.show_background_image and background.source == "IMAGE" and image is not None:
            number = _number(scene.frame_current, user.frame_start, user.frame_duration) + user.frame_offset
            return _placed(_image_pixels(image, number), scene, height, width, background.frame_method)
        if background.show_background_image and background.source == "MOVIE_CLIP":
            clip = scene.active_clip if background.use_camera_clip else clip
            if clip is not None:
                return _placed(_clip_pixels(clip, scene), scene, height, width, background.frame_method)
    if scene.active_clip is not None:
        return _placed(_clip_pixels(scene.active_clip, scene), scene, height, width, "FIT")
    raise EffigyError(
        "There is no plate behind the scene's camera: choose one in the camera's Properties ▸ Background Images."
    )


def _number(frame: int, start: int, duration: int) -> int:
    """Of the image that a sequence shows at a frame, from 1."""
    return min(max(frame - start + 1, 1), max(duration, 1))


def _clip_pixels(clip: bpy.types.MovieClip, scene: bpy.types.Scene) -> np.ndarray:
    number = _number(scene.frame_current, clip.frame_start, clip.frame_duration) + clip.frame_offset
    path = Path(bpy.path.abspath(clip.filepath, library=clip.library))
    if clip.source == "SEQUENCE":
        # A clip counts its images from 1, wherever the numbers in their names begin.
        number += int((re.findall(r"\d+", path.stem) or ["1"])[-1]) - 1
    return _file_pixels(path, clip.source, number, clip.name)


def _image_pixels(image: bpy.types.Image, number: int) -> np.ndarray:
    if image.source in ("SEQUENCE", "MOVIE"):
        path = Path(bpy.path.abspath(image.filepath, library=image.library))
        return _file_pixels(path, image.source, number, image.name)
    return _pixels(image, image.name)


def _file_pixels(path: Path, source: str, number: int, name: str) -> np.ndarray:
    """The image `number` of a sequence or movie. Blender's API gives pixels of the image that was read last; a texture
    reads the one that it is asked for.
    """
    if not is_file(path):
        raise EffigyError(f"The plate “{name}” is missing: {path}.")
    image = bpy.data.images.load(str(path))
    texture = bpy.data.textures.new(image.name, "IMAGE")
    try:
        image.source = source
        texture.image = image
        texture.image_user.frame_duration = max(number, 1)
        texture.image_user.frame_current = number
        texture.evaluate((0.0, 0.0, 0.0))
        return _pixels(image, name)
    finally:
        bpy.data.textures.remove(texture)
        bpy.data.images.remove(image)


def _pixels(image: bpy.types.Image, name: str) -> np.ndarray:
    """(H, W, 3) sRGB-encoded, the top row first."""
    width, height = image.size
    pixels = np.empty(len(image.pixels), np.float32)
    if not len(pixels):
        raise EffigyError(f"The plate “{name}” cannot be read at this frame.")
    image.pixels.foreach_get(pixels)
    pixels = pixels.reshape(height, width, image.channels)[::-1]
    color = pixels[..., :3] if image.channels >= 3 else np.repeat(pixels[..., :1], 3, -1)
    return encode(np.maximum(color, 0)).astype(np.float32) if image.is_float else color


def _placed(plate: np.ndarray, scene: bpy.types.Scene, height: int, width: int, method: str) -> np.ndarray:
    """(H, W, 3) an image as it lies in the camera's frame; NaN outside of it."""
    rows, columns = plate.shape[:2]
    render = scene.render
    aspect = columns / rows / (width * render.pixel_aspect_x / (height * render.pixel_aspect_y))
    # The image's sides, by those of the frame.
    sides = {
        "FIT": (min(1.0, aspect), min(1.0, 1 / aspect)),
        "CROP": (max(1.0, aspect), max(1.0, 1 / aspect)),
        "STRETCH": (1.0, 1.0),
    }[method]
    x, y = (((np.arange(n) + 0.5) / n - 0.5) / side + 0.5 for n, side in zip((width, height), sides, strict=True))
    inside = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))
    row, column = (np.clip((at * count).astype(int), 0, count - 1) for at, count in ((y, rows), (x, columns)))
    return np.where(inside[..., None], plate[row[:, None], column], np.nan).astype(np.float32)
