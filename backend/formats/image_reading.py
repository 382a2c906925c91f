"""Reading of image files whose size is checked before their pixels are decoded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image

from ..reading import Damaged, read_bytes, too_large

FORMATS: Final = ("JPEG", "PNG")
"""What captures, renders and evaluations consist of."""
MOST_FILE: Final = 256 * 2**20
"""Bytes of one image's file: a PNG of 4096 x 4096 with 16 bits per channel that does not compress at all."""


def read_image(path: Path, mode: int, remedy: str, most_pixels: int) -> np.ndarray:
    """The pixels of a JPEG or PNG, by OpenCV's flag `mode`. Call it within `reading.reading`.

    Raises an `EffigyError` for an image of more than `most_pixels`, whose size stands at the start of its file, and any
    exception for a damaged one.
    """
    data = read_bytes(path, "image", MOST_FILE, remedy)
    most = f"{most_pixels / 1e6:.0f} megapixels"
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise too_large(path, "image", "far more pixels than any frame", most, remedy) from error
    if width * height > most_pixels:
        raise too_large(path, "image", f"{width} x {height} pixels", most, remedy)
    # Not cv2.imread: on Windows it cannot open a path outside the system's code page.
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if pixels is None:
        raise Damaged("it cannot be decoded")
    return pixels
