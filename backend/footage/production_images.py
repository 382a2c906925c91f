"""Reads the images of film production, OpenEXR and DPX, as display images.

An OpenEXR image holds scene-linear light. It is shown as other footage with highlights beyond white is (`hdr`): the
light of white is the brightest that a display shows, and what is brighter is compressed. The primaries are those that
the file names, else Rec. 709. A DPX image is taken as it is, unless its header says that it is a logarithmic scan.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np

from ..errors import EffigyError
from ..reading import Damaged
from .container import MOST_PIXELS, check_size
from .detector import quiet_stderr
from .hdr import linear_to_srgb

_EXR: Final = b"\x76\x2f\x31\x01"
_DPX: Final = (b"SDPX", b"XPDS")
_DPX_TRANSFER: Final = 801
"""SMPTE 268M: offset of the first image element's transfer characteristic."""
_LOGARITHMIC: Final = (1, 3)
"""Printing density, and logarithmic."""
_REC709: Final = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
"""x and y of red, green, blue and white."""


def read_production_image(path: Path) -> np.ndarray | None:
    """(H, W, 3) uint8 sRGB, composited over white; None for a file of another format. Call it within
    `reading.reading`.
    """
    with open(path, "rb") as file:
        first = file.read(4)
    if first == _EXR:
        # OpenEXR's library writes its own lines about a damaged file to the terminal.
        with quiet_stderr():
            return _read_exr(path)
    return _read_dpx(path) if first in _DPX else None


def _read_exr(path: Path) -> np.ndarray:
    import OpenEXR

    # The size stands in the header, and is checked before memory is taken for the pixels.
    for header in (part.header for part in OpenEXR.File(str(path), header_only=True).parts):
        for window in ("dataWindow", "displayWindow"):
            low, high = header[window]
            check_size(path, *(int(v) for v in np.asarray(high, np.int64) - low + 1))
    for part in OpenEXR.File(str(path), separate_channels=True).parts:
        layer = _layer_of(part.channels)
        if layer is not None:
            return _display_image(part.header, [part.channels[name].pixels for name in layer])
    raise EffigyError(f"{path.name} holds no colour (channels R, G, B or Y): export its colour layer.")


def _layer_of(channels: Any) -> list[str] | None:
    """The names of red, green, blue and perhaps alpha, or those of a grey image; the layer with the shortest name, as
    the image itself has none.
    """
    for layer in sorted({name.rpartition(".")[0] for name in channels}, key=len):
        names = {name.rpartition(".")[2]: name for name in channels if name.rpartition(".")[0] == layer}
        alpha = [names["A"]] if "A" in names else []
        if {"R", "G", "B"} <= names.keys():
            return [names[channel] for channel in "RGB"] + alpha
        if "Y" in names and not {"RY", "BY"} & names.keys():
            return [names["Y"]] * 3 + alpha
    return None


def _display_image(header: dict[str, Any], planes: list[np.ndarray]) -> np.ndarray:
    """(H, W, 3) uint8 of the display window, with square pixels."""
    light = np.stack([np.nan_to_num(plane.astype(np.float32), posinf=65504.0) for plane in planes], 2)
    (left, top), (right, bottom) = (np.asarray(corner, np.int64) for corner in header["displayWindow"])
    x, y = np.asarray(header["dataWindow"][0], np.int64) - (left, top)
    shown = np.zeros((bottom - top + 1, right - left + 1, light.shape[2]), np.float32)
    height, width = shown.shape[:2]
    part = light[max(0, -y) : height - y, max(0, -x) : width - x]
    shown[max(0, y) : max(0, y) + part.shape[0], max(0, x) : max(0, x) + part.shape[1]] = part
    colour = shown[..., :3]
    if shown.shape[2] == 4:
        # Colours of OpenEXR are premultiplied.
        colour = colour + (1 - np.clip(shown[..., 3:], 0, 1))
    if "chromaticities" in header:
        primaries = np.array(header["chromaticities"], np.float64).reshape(-1)
        if primaries.shape == (8,) and np.abs(primaries - _REC709).max() > 1e-3:
            colour = cv2.transform(colour, (np.linalg.inv(_to_xyz(np.array(_REC709))) @ _to_xyz(primaries)))
    image = linear_to_srgb(np.maximum(colour, 0))
    aspect = float(header.get("pixelAspectRatio", 1.0))
    if 0.25 <= aspect <= 4 and abs(aspect - 1) > 1e-3:
        image = cv2.resize(image, (round(width * aspect), height), interpolation=cv2.INTER_CUBIC)
    return image


def _to_xyz(primaries: np.ndarray) -> np.ndarray:
    """(3, 3) from RGB of these primaries to CIE XYZ scaled to white = (1, 1, 1) (SMPTE RP 177)."""
    x, y = primaries.reshape(4, 2).T
    corners = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    # Whites of different light sources stay white: XYZ is relative to its own white (a von Kries scaling).
    return (corners[:, :3] * np.linalg.solve(corners[:, :3], corners[:, 3])) / corners[:, 3:]


def _read_dpx(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        file.seek(_DPX_TRANSFER)
        transfer = file.read(1)
    if transfer and transfer[0] in _LOGARITHMIC:
        raise EffigyError(f"{path.name} is a logarithmic scan: export it as OpenEXR, or as PNG with display colours.")
    options = {"protocol_whitelist": "file", "max_pixels": str(MOST_PIXELS)}
    with av.open(str(path.absolute()), format="dpx_pipe", options=options) as container:
        stream = container.streams.video[0]
        check_size(path, stream.codec_context.width or 0, stream.codec_context.height or 0)
        for frame in container.decode(stream):
            return frame.to_ndarray(format="rgb24")
    raise Damaged("it cannot be decoded")
