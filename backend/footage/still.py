"""Reads images: photographs, which are footage of one frame, and those of a sequence.

Photographs are read with Pillow, because FFmpeg gives neither the camera's orientation (EXIF) nor the colour space of
the image (an ICC profile, on phones often Display P3).
"""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import EffigyError
from .production_images import read_production_image

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP")
"""Of a file with several images only the first is read: a phone's JPEG with a gain map (MPO), or a TIFF with pages."""
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
"""Brands of photographs of iPhones. FFmpeg opens the tiles that such an image consists of as videos of one frame."""
MOST_PIXELS: Final = 250_000_000
"""Of a photograph: the largest cameras and phones have 200 megapixels. Decoded, one takes up to 1 GB."""
WHOLE_PIXELS: Final = 90_000_000
"""A photograph of more pixels is read at a half of its size, so that it is no larger than the largest frame of a
video."""
# Pillow refuses what is twice as large.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
_UNSUPPORTED_MODES = ("F", "I")
"""Pillow modes of 32-bit images, in which the value of white is not defined."""


def read_still(path: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 sRGB, upright, composited over white. None if the file is not an image of FORMATS, OpenEXR or
    DPX, or if it is an animated PNG. Call it within `reading.reading`.
    """
    if (image := read_production_image(path)) is not None:
        return image
    with open(path, "rb") as file:
        first = file.read(12)
    if first[4:8] == b"ftyp" and first[8:] in _HEIC_BRANDS:
        raise EffigyError(f"{path.name} is a photograph in HEIC: save it as JPEG or PNG.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if getattr(image, "is_animated", False) and image.format in ("WEBP", "AVIF"):
                    raise EffigyError(f"{path.name} is an animated {image.format}: export it as MP4 or as PNG images.")
                if getattr(image, "is_animated", False) and image.format == "PNG":
                    return None
                return _to_upright_srgb(image, path)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise EffigyError(
            f"{path.name} is too large: scale the image down to at most {MOST_PIXELS / 1e6:.0f} megapixels."
        ) from error
    except (EffigyError, PermissionError, MemoryError):
        raise
    except Exception as error:
        # Pillow's readers raise what their parsing meets: struct.error, IndexError, zlib.error, …
        raise EffigyError(f"{path.name} is damaged or cut short: save the image again.") from error


def _to_upright_srgb(image: Image.Image, path: Path) -> np.ndarray:
    if image.mode in _UNSUPPORTED_MODES:
        raise EffigyError(f"{path.name} has more than 16 bits per channel: save it with 8 bits per channel.")
    profile = image.info.get("icc_profile")
    # A JPEG is decoded at a part of its size.
    factor = _reduction(image)
    image.draft(None, (image.width // factor, image.height // factor))
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        # Pillow would clip values above 255.
        upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
    if (factor := _reduction(upright)) > 1:
        if upright.mode in ("1", "P", "PA"):
            upright = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
        upright = upright.reduce(factor)
    if profile and upright.mode in ("RGB", "RGBA"):
        upright = _convert_to_srgb(upright, profile)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.asarray(upright.convert("RGB"))


def _reduction(image: Image.Image) -> int:
    """By how much both sides of an image are divided, so that it has no more than WHOLE_PIXELS."""
    return math.ceil(math.sqrt(image.width * image.height / WHOLE_PIXELS))


def _convert_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB")) or image
    except (ImageCms.PyCMSError, OSError):
        # The profile is damaged or describes other channels: keep the values, as most programs do.
        return image
