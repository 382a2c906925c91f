"""Whether the disk has room for the next frame of an animation.

Where the disk is full, Blender leaves the frame that it could not finish as a damaged file, which a later render
without *Overwrite* takes for a finished one. A frame that may not fit is therefore not rendered at all.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import bpy

from ..errors import EffigyError
from .camera import image_size

BYTES_PER_PIXEL: Final = 20
"""An uncompressed EXR with colour, alpha and depth in single precision; other formats take less."""


def check_room(scene: bpy.types.Scene) -> None:
    """Raises an `EffigyError` if the frame may not fit on the disk to which the animation is written."""
    path = Path(bpy.path.abspath(scene.render.frame_path(frame=scene.frame_current)))
    # Blender makes the folder when it writes the first frame.
    folder = next((parent for parent in path.parents if parent.is_dir()), None)
    if folder is None:
        return
    width, height = image_size(scene.render)
    needed = BYTES_PER_PIXEL * width * height
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return
    if free < needed:
        raise EffigyError(
            f"The disk that holds {folder} is full: frame {scene.frame_current} may take {needed / 1e6:.1f} MB, and "
            f"{free / 1e6:.1f} MB are free. Free some space, then render again from this frame on."
        )
