"""Scenes for the tests of the render engine: avatars on rigs before a camera, pictures rendered and read back."""

from __future__ import annotations

import importlib
import os
import subprocess
from pathlib import Path
from typing import Any

import bpy
import engine_truth
import numpy as np
from rig_scenes import rigging

PACKAGE = "bl_ext.user_default.effigy"
SIZE = engine_truth.SIZE


def backend(*arguments: object) -> None:
    script = Path(__file__).with_name("engine_truth.py")
    subprocess.run([os.environ["EFFIGY_BACKEND_PYTHON"], str(script), *map(str, arguments)], check=True)


def stage(avatar: Path | None) -> Any:
    """A scene that renders with Effigy: a rig of the avatar at the origin, and the camera of `engine_truth`."""
    scene = bpy.context.scene
    render = scene.render
    render.engine, render.resolution_x, render.resolution_y, render.resolution_percentage = "EFFIGY", SIZE, SIZE, 100
    render.film_transparent, render.dither_intensity = True, 0
    scene.camera = add_camera()
    bpy.ops.effigy.use_standard_view()
    return add_rig(avatar) if avatar else None


def add_rig(avatar: Path) -> Any:
    bpy.ops.effigy.add_avatar(filepath=str(avatar), new_rig=True)
    made = rigging().rig_properties.find_rig(bpy.context.object)
    for name, value in engine_truth.EXPRESSION.items():
        made.key_blocks[name].value = value
    return made


def add_camera() -> bpy.types.Object:
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    bpy.context.scene.collection.objects.link(camera)
    turn, distance = engine_truth.AZIMUTH, engine_truth.DISTANCE
    camera.location = distance * np.sin(turn), -distance * np.cos(turn), engine_truth.HEIGHT
    camera.rotation_euler = np.pi / 2, 0, turn
    camera.data.lens, camera.data.sensor_width = engine_truth.LENS, engine_truth.SENSOR
    return camera


def set_format(name: str) -> None:
    """PNG, EXR (32 bits, all passes) or MP4 as the scene's output, in the way of this version of Blender."""
    settings = bpy.context.scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = {"PNG": "IMAGE", "EXR": "MULTI_LAYER_IMAGE", "MP4": "VIDEO"}[name]
    settings.file_format = {"PNG": "PNG", "EXR": "OPEN_EXR_MULTILAYER", "MP4": "FFMPEG"}[name]
    if name == "MP4":
        bpy.context.scene.render.ffmpeg.format, bpy.context.scene.render.ffmpeg.codec = "MPEG4", "H264"
        return
    settings.color_mode, settings.color_depth = "RGBA", "32" if name == "EXR" else "8"


def render_png(path: Path) -> np.ndarray:
    """Renders the frame to a PNG and returns its pixels: (H, W, 4), as stored in the file, straight alpha, [0, 1]."""
    set_format("PNG")
    bpy.context.scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    return read_png(path)


def read_png(path: Path) -> np.ndarray:
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    pixels = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(height, width, 4)[::-1]


def premultiplied(pixels: np.ndarray) -> np.ndarray:
    """Straight colour is noise where next to nothing covers a pixel."""
    return pixels[..., :3] * pixels[..., 3:]


def compare_with_truth(found: np.ndarray, truth: Path) -> None:
    """Asserts that a rendered picture is the backend's (`engine_truth`)."""
    with np.load(truth) as expected:
        assert np.abs(found[..., 3] - expected["alpha"]).max() < 3 / 255
        assert np.abs(premultiplied(found) - expected["color"].clip(0, 1)).max() < 6 / 255


def read_by_backend(path: Path) -> dict[str, np.ndarray]:
    backend("read", path, path.with_suffix(".npz"))
    with np.load(path.with_suffix(".npz")) as archive:
        return {name: archive[name] for name in archive.files}


def session() -> Any:
    return importlib.import_module(f"{PACKAGE}.blender_addon.worker.session")
