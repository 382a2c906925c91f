"""What the rows inside Blender share: Blender as a module with the extension, avatars, a scene, its worker, its state.

These rows run under `.venv-blender` and must call `blender` before anything imports bpy.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.fault_sandbox import ROOT
from building.extension import build_extension
from building.in_blender import PACKAGE, installed_extension

if TYPE_CHECKING:
    import numpy as np

FILES: Final = ROOT / "tests" / "files_of_0_1"
AVATARS: Final = {"person": "person.effigy", "bundled": "bundled_head.effigy"}
"""Two trained avatars, on heads of 400 and of thousands of vertices."""
SMALL_HEAD: Final = FILES / "small_head.npz"
"""The head model of the avatar `person`."""


@contextmanager
def blender(folder: Path) -> Iterator[None]:
    """Blender as a module in this process, with the extension that is built here, and an empty file. What programs
    print to stdout goes to stderr meanwhile.
    """
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        with installed_extension(build_extension(folder / "extension", environment=Path(sys.prefix))):
            yield
    finally:
        os.dup2(out, 1)
        os.close(out)


def part(path: str) -> Any:
    """A module of the installed extension: `part("worker.session")`."""
    return importlib.import_module(f"{PACKAGE}.blender_addon.{path}")


def copied_avatars(folder: Path) -> dict[str, Path]:
    """Copies of `AVATARS` in `folder`, with the head model of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(SMALL_HEAD, folder)
    return {name: Path(shutil.copy(FILES / file, folder)) for name, file in AVATARS.items()}


def add_rig(avatar: Path) -> Any:
    """A new rig with this avatar in the open file."""
    import bpy

    bpy.ops.effigy.add_avatar(filepath=str(avatar), new_rig=True)
    return part("rig.rig_properties").find_rig(bpy.context.object)


def stage(size: int) -> None:
    """The scene renders PNG files of `size` × `size` pixels with Effigy, through a camera in front of the origin."""
    import bpy

    scene = bpy.context.scene
    scene.render.engine, scene.render.resolution_percentage, scene.render.dither_intensity = "EFFIGY", 100, 0
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGBA"
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0.0, -0.75, 0.0), (1.5708, 0.0, 0.0)
    camera.data.lens = 60.0
    scene.camera = camera


def pixels_of(path: Path) -> np.ndarray:
    """(H, W, 4) premultiplied, as stored in a PNG. Raises a RuntimeError for a file that is no whole picture."""
    import bpy
    import numpy as np

    image = bpy.data.images.load(str(path))
    try:
        image.colorspace_settings.name = "Non-Color"
        width, height = image.size
        if not width:
            raise RuntimeError(f"{path.name} is no picture.")
        values = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(values)
    finally:
        bpy.data.images.remove(image)
    values = values.reshape(height, width, 4)
    values[..., :3] *= values[..., 3:]
    return values


def worker_pid() -> int | None:
    """The process of the running worker; None while there is none."""
    client = part("worker.session").current()
    return client.pid if client else None
