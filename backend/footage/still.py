"""Photographs: a footage of one frame.

Read by Pillow and not by FFmpeg, which tells neither how a camera was held (EXIF) nor in which colours a phone saves
(an ICC profile, often Display P3).
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from ..errors import EffigyError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""A JPEG may hold further pictures, such as the gain map of a phone (MPO): the first counts, as of a TIFF's pages."""
_FLOATING = ("F", "I")
"""Modes of pictures whose white is nowhere written."""


def read_still(path: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 sRGB, upright; what is transparent is white. None if the file is no picture of FORMATS, or
    moves.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as picture:
                if getattr(picture, "is_animated", False) and picture.format in ("PNG", "WEBP"):
                    return None
                return _as_seen(picture, path)
    except UnidentifiedImageError:
        return None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = round((Image.MAX_IMAGE_PIXELS or 0) / 1e6)
        raise EffigyError(f"{path.name} is too large a picture: scale it down to at most {most} megapixels.") from error
    except (OSError, SyntaxError, ValueError) as error:
        if not path.is_file():
            return None
        raise EffigyError(f"{path.name} is damaged or cut short: save the picture again.") from error


def _as_seen(picture: Image.Image, path: Path) -> np.ndarray:
    if picture.mode in _FLOATING:
        raise EffigyError(f"{path.name} holds numbers of more than 16 bits: save it with 8 bits a channel.")
    profile = picture.info.get("icc_profile")
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I;16"):
        # Pillow would cut off what is above 255.
        upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
    if profile and upright.mode in ("RGB", "RGBA"):
        upright = _in_srgb(upright, profile)
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    return np.asarray(upright.convert("RGB"))


def _in_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, own, ImageCms.createProfile("sRGB")) or picture
    except (ImageCms.PyCMSError, OSError):
        # A broken profile, or one of other channels: the colours as they stand are what most programs show.
        return picture
