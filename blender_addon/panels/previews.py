"""The pictures of running jobs as icons, small, and made once for each picture."""

from __future__ import annotations

from typing import Final

import bpy
import bpy.utils.previews
import numpy as np

from ..tasks import Task, all_tasks

SIDE: Final = 192
"""Pixels at the most: a picture that is set on every redraw must be cheap."""

_icons: bpy.utils.previews.ImagePreviewCollection | None = None
_shown: dict[str, int] = {}
"""Which picture of a job the icon shows."""


def icon_of(task: Task) -> int:
    """The icon's number, or 0 while there is no picture."""
    job = task.job
    if _icons is None or job is None or job.preview is None:
        return 0
    name = f"{id(task)}"
    icon = _icons.get(name) or _icons.new(name)
    if _shown.get(name) != job.preview_count:
        _set_picture(icon, job.preview)
        _shown[name] = job.preview_count
    return icon.icon_id


def _set_picture(icon: bpy.types.ImagePreview, picture: np.ndarray) -> None:
    """(H, W, 3) uint8, top row first -> the icon's RGBA, bottom row first."""
    step = max(1, -(-max(picture.shape[:2]) // SIDE))
    small = picture[::-step, ::step]
    pixels = np.ones((*small.shape[:2], 4), np.float32)
    pixels[..., :3] = small / np.float32(255)
    icon.image_size = small.shape[1], small.shape[0]
    icon.image_pixels_float.foreach_set(pixels.ravel())


def forget_finished() -> None:
    living = {f"{id(task)}" for task in all_tasks()}
    for name in [name for name in _shown if name not in living]:
        del _shown[name]
        del _icons[name]


def register() -> None:
    global _icons
    _icons = bpy.utils.previews.new()


def unregister() -> None:
    global _icons
    if _icons is not None:
        bpy.utils.previews.remove(_icons)
    _icons = None
    _shown.clear()
