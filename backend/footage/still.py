"""Photographs: a footage of one frame.

Read by Pillow and not by FFmpeg, which tells neither how a camera was held (EXIF) nor in which colours a phone saves (an ICC
profile, often Display P3).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import EffigyError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")


def read_still(path: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 sRGB, upright; None if the file is no picture of FORMATS, or moves."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "TIFF":
                return None
            profile = picture.info.get("icc_profile")
            upright = ImageOps.exif_transpose(picture)
            if profile and upright.mode in ("RGB", "RGBA"):
                upright = _in_srgb(upright, profile)
            return np.asarray(upright.convert("RGB"))
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise EffigyError(f"{path.name} is too large a picture: scale it down to at most 100 megapixels.") from error
    except (OSError, SyntaxError, ValueError) as error:
        if not path.is_file():
            return None
        raise EffigyError(f"{path.name} is damaged or cut short: save the picture again.") from error


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, own, ImageCms.createProfile("sRGB"))
    except (ImageCms.PyCMSError, OSError):
        # A broken profile: the colours as they stand are what every other program shows.
        return picture
