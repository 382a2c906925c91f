"""Textures as image files, by Blender: PNG with 8 bits, and OpenEXR."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import bpy
import numpy as np

from ..errors import EffigyError
from ..reading import check_file
from ..srgb import encode
from ..writing import written

MARGIN: Final = 8
"""Texels by which colours continue beyond the edges of the UV map, as in Blender's bakes."""
MOST_SIDE: Final = 8192


def save(path: Path, size: int, texels: np.ndarray, values: np.ndarray, *, is_color: bool) -> None:
    """Write the values (T, c) of some texels (T,), c of 1 or 3, as the texture `path`, .png or .exr. In a .png they are
    stored as they are, `is_color` says whether that is sRGB. Raises an `EffigyError`.
    """
    pixels = _with_margin(size, texels, np.broadcast_to(values, (len(texels), 3)).astype(np.float32))
    exact = path.suffix == ".exr"
    image = bpy.data.images.new(path.stem, size, size, alpha=False, float_buffer=exact)
    try:
        image.colorspace_settings.name = "sRGB" if is_color and not exact else "Non-Color"
        image.pixels.foreach_set(np.concatenate((pixels, np.ones((size * size, 1), np.float32)), 1).ravel())
        with written(path, "Blender: exporting textures") as temporary:
            image.filepath_raw, image.file_format = str(temporary), "OPEN_EXR" if exact else "PNG"
            try:
                image.save()
            except RuntimeError as error:
                raise EffigyError(f"{path} cannot be written: {str(error).strip()}") from error
    finally:
        bpy.data.images.remove(image)


def load(path: Path, size: int, *, is_color: bool) -> tuple[np.ndarray, np.ndarray]:
    """The values (size², 3) of a texture, colours sRGB-encoded, and its alpha (size², 1), from the bottom left. Larger
    ones are averaged, smaller ones repeated. Raises an `EffigyError`.
    """
    check_file(path, "texture")
    try:
        image = bpy.data.images.load(str(path), check_existing=False)
    except RuntimeError as error:
        raise EffigyError(f"{path} is no image that Blender reads: choose the painted texture.") from error
    try:
        if not is_color:
            image.colorspace_settings.name = "Non-Color"
        width, height = image.size
        if not width:
            raise EffigyError(f"{path} is no image that Blender reads: choose the painted texture.")
        if width != height or width > MOST_SIDE or max(width, size) % min(width, size):
            raise EffigyError(
                f"{path} has {width} × {height} texels: paint on the exported texture, without cropping or scaling it."
            )
        pixels = np.empty(width * height * image.channels, np.float32)
        image.pixels.foreach_get(pixels)
        pixels = pixels.reshape(height, width, image.channels)
        if image.channels < 3:
            raise EffigyError(f"{path} has no colours: choose the painted texture.")
        if not np.isfinite(pixels).all():
            raise EffigyError(f"{path} holds numbers that are not finite: paint on the exported texture.")
        color = pixels[..., :3]
        if is_color and image.is_float:
            color = encode(color)
        alpha = pixels[..., 3:] if image.channels == 4 else np.ones((height, width, 1), np.float32)
    finally:
        bpy.data.images.remove(image)
    return _resized(color, size), _resized(alpha, size)


def _resized(pixels: np.ndarray, size: int) -> np.ndarray:
    side, channels = pixels.shape[0], pixels.shape[2]
    if side > size:
        blocks = side // size
        pixels = pixels.reshape(size, blocks, size, blocks, channels).mean((1, 3))
    elif side < size:
        pixels = pixels.repeat(size // side, 0).repeat(size // side, 1)
    return pixels.reshape(-1, channels)


def _with_margin(size: int, texels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (T, 3) of some texels -> (size², 3) of the whole texture."""
    pixels, known = np.zeros((size, size, 3), np.float32), np.zeros((size, size), bool)
    pixels.reshape(-1, 3)[texels], known.reshape(-1)[texels] = values, True
    for _ in range(MARGIN):
        total, count = np.zeros_like(pixels), np.zeros((size, size, 1), np.float32)
        for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
            beside = np.roll(known, step, axis)[..., None]
            total += np.where(beside, np.roll(pixels, step, axis), 0)
            count += beside
        new = ~known & (count[..., 0] > 0)
        pixels[new] = (total / np.maximum(count, 1))[new]
        known |= new
    return pixels.reshape(-1, 3)
