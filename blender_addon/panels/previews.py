"""Icons that show the preview images of running jobs.

An icon is drawn on every redraw, so it is small and is updated only when a job has sent a new image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import bpy
import bpy.utils.previews
import numpy as np

from ..tasks import Task, all_tasks

MAX_SIDE: Final = 192
"""Largest width or height of an icon, pixels."""


@dataclass
class _Icons:
    """The module's state; it lives as long as the extension is enabled."""

    collection: bpy.utils.previews.ImagePreviewCollection | None = None
    """The icons by the task's name; None while the extension is disabled."""
    shown: dict[str, int] = field(default_factory=dict)
    """`Job.preview_count` of the image that each icon shows."""


_icons = _Icons()


def icon_of(task: Task) -> int:
    """The number of the task's icon, or 0 if it has no image yet."""
    job = task.job
    if _icons.collection is None or job is None or job.preview is None:
        return 0
    name = name_of(task)
    icon = _icons.collection.get(name)
    if icon is None:
        remove_finished()
        icon = _icons.collection.new(name)
    if _icons.shown.get(name) != job.preview_count:
        _set_image(icon, job.preview)
        _icons.shown[name] = job.preview_count
    return icon.icon_id


def name_of(task: Task) -> str:
    """The name of the task's icon in the collection."""
    return f"{task.number}"


def _set_image(icon: bpy.types.ImagePreview, image: np.ndarray) -> None:
    """Converts (H, W, 3) uint8, top row first, to the icon's RGBA, bottom row first. Large images are subsampled."""
    step = max(1, -(-max(image.shape[:2]) // MAX_SIDE))
    small = image[::-step, ::step]
    pixels = np.ones((*small.shape[:2], 4), np.float32)
    pixels[..., :3] = small / np.float32(255)
    icon.image_size = small.shape[1], small.shape[0]
    icon.image_pixels_float.foreach_set(pixels.ravel())


def remove_finished() -> None:
    """Removes the icons of tasks that are no longer in the list."""
    current = {name_of(task) for task in all_tasks()}
    for name in [name for name in _icons.shown if name not in current]:
        del _icons.shown[name]
        del _icons.collection[name]


def register() -> None:
    _icons.collection = bpy.utils.previews.new()


def unregister() -> None:
    if _icons.collection is not None:
        bpy.utils.previews.remove(_icons.collection)
    _icons.collection = None
    _icons.shown.clear()
