"""Writers of rendered frames. Each takes sRGB-encoded premultiplied colour, alpha and depth, in its format's custom:

- PNG: 8 bits, sRGB-encoded, straight alpha.
- EXR: 32-bit float, scene-linear (Rec. 709 primaries), premultiplied, and Z in metres.
- MP4: H.264, 4:2:0, Rec. 709 matrix and limited range, tagged so, so that players show the PNG's colours.

With a background colour the picture is opaque; PNG then has no alpha channel and EXR's is 1.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

NOTHING = np.float32(1e10)
"""Z where nothing is: Blender's own value, so that its compositor reads our depth as it reads its own."""

Background = tuple[float, float, float] | None


def srgb_to_linear(encoded: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1, component by component."""
    low = encoded <= 0.04045
    return np.where(low, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def straight(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) premultiplied → not multiplied, in [0, 1]; black where nothing is."""
    return np.clip(np.divide(color, alpha[..., None], out=np.zeros_like(color), where=alpha[..., None] > 1e-6), 0, 1)


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def write_png(path: Path, picture: np.ndarray) -> None:
    """(H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    swapped = picture if picture.ndim == 2 else cv2.cvtColor(picture, order[picture.shape[2]])
    # Not cv2.imwrite: it swallows a full disk, and cannot write everywhere on Windows.
    path.write_bytes(cv2.imencode(".png", swapped, (cv2.IMWRITE_PNG_COMPRESSION, 4))[1].tobytes())


def over(color: np.ndarray, alpha: np.ndarray, background: tuple[float, float, float]) -> np.ndarray:
    return np.clip(color + (1 - alpha[..., None]) * np.float32(background), 0, 1)


class _Sequence:
    """A folder of %06d files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._count = 0

    def _next(self, suffix: str) -> Path:
        self._count += 1
        return self._folder / f"{self._count - 1:06d}{suffix}"

    def close(self) -> None:
        pass


class PngSequence(_Sequence):
    def write(self, color: np.ndarray, alpha: np.ndarray, depth: np.ndarray, background: Background) -> None:
        if background is None:
            picture = np.concatenate([straight(color, alpha), alpha[..., None]], axis=2)
        else:
            picture = over(color, alpha, background)
        write_png(self._next(".png"), to_bytes(picture))


class ExrSequence(_Sequence):
    def write(self, color: np.ndarray, alpha: np.ndarray, depth: np.ndarray, background: Background) -> None:
        import OpenEXR

        if background is None:
            alpha = np.clip(alpha, 0, 1)
            linear = srgb_to_linear(straight(color, alpha)) * alpha[..., None]
        else:
            linear = srgb_to_linear(over(color, alpha, background))
            alpha = np.ones_like(alpha)
        channels = {
            "RGBA": np.ascontiguousarray(np.concatenate([linear, alpha[..., None]], axis=2), np.float32),
            "Z": np.where(np.isfinite(depth), depth, NOTHING).astype(np.float32),
        }
        path = self._next(".exr")
        try:
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, channels).write(str(path))
        except RuntimeError as error:
            # The library hides the operating system's error in a text; writing again as ourselves brings it out.
            path.write_bytes(b"\0" * (color.nbytes + depth.nbytes))
            raise OSError(str(error)) from error


class Mp4:
    def __init__(self, path: Path, size: int, fps: Fraction) -> None:
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps)
        self._stream.width = self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        # 16 is visually lossless for 8-bit footage; the default, 23, smears skin.
        self._stream.options = {"crf": "16", "preset": "medium"}
        context = self._stream.codec_context
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        self._closed = False

    def write(self, color: np.ndarray, alpha: np.ndarray, depth: np.ndarray, background: Background) -> None:
        picture = to_bytes(over(color, alpha, background or (1.0, 1.0, 1.0)))
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file, after an error too: it is thrown away then, but its handle must not stay open."""
        if not self._closed:
            self._closed = True
            try:
                self._container.mux(self._stream.encode())
            finally:
                self._container.close()
