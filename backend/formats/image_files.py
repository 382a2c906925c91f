"""Writers of rendered frames as PNG, EXR and MP4.

Each writer takes sRGB-encoded premultiplied colour, alpha and depth, and stores them as its format requires:

- PNG: 8 bits, sRGB-encoded, straight alpha.
- EXR: 32-bit float, scene-linear (Rec. 709 primaries), premultiplied, and Z in metres.
- MP4: H.264, 4:2:0, Rec. 709 matrix and limited range. The file is tagged with these, so that players show the same
  colours as the PNG.

With a background colour the image is opaque; PNG then has no alpha channel and EXR's is 1.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

EMPTY_DEPTH = np.float32(1e10)
"""Z of empty pixels: the value that Blender writes, so that its compositor treats this depth like its own."""

Background = tuple[float, float, float] | None
_CLOCK = Fraction(1, 90000)
"""Seconds; the unit of the times in a video of a variable frame rate."""


def srgb_to_linear(encoded: np.ndarray) -> np.ndarray:
    """SRGB decoding of each component (IEC 61966-2-1), float32."""
    low = encoded <= 0.04045
    return np.where(low, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4).astype(np.float32)


def unpremultiply(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) premultiplied colour → straight colour in [0, 1]; black where alpha is zero."""
    return np.clip(np.divide(color, alpha[..., None], out=np.zeros_like(color), where=alpha[..., None] > 1e-6), 0, 1)


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[0, 1] → uint8, rounded."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def write_png(path: Path, image: np.ndarray) -> None:
    """(H, W), (H, W, 3) RGB or (H, W, 4) RGBA, uint8."""
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    swapped = image if image.ndim == 2 else cv2.cvtColor(image, order[image.shape[2]])
    # Not cv2.imwrite: it does not report a full disk, and on Windows it cannot write to every path.
    path.write_bytes(cv2.imencode(".png", swapped, (cv2.IMWRITE_PNG_COMPRESSION, 4))[1].tobytes())


def over(color: np.ndarray, alpha: np.ndarray, background: tuple[float, float, float]) -> np.ndarray:
    """(H, W, 3) premultiplied colour composited over a plain background, in [0, 1]."""
    return np.clip(color + (1 - alpha[..., None]) * np.asarray(background, np.float32), 0, 1)


class _Sequence:
    """A new folder of files that are numbered from 000000."""

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
            image = np.concatenate([unpremultiply(color, alpha), alpha[..., None]], axis=2)
        else:
            image = over(color, alpha, background)
        write_png(self._next(".png"), to_bytes(image))


class ExrSequence(_Sequence):
    def write(self, color: np.ndarray, alpha: np.ndarray, depth: np.ndarray, background: Background) -> None:
        import OpenEXR

        if background is None:
            alpha = np.clip(alpha, 0, 1)
            linear = srgb_to_linear(unpremultiply(color, alpha)) * alpha[..., None]
        else:
            linear = srgb_to_linear(over(color, alpha, background))
            alpha = np.ones_like(alpha)
        channels = {
            "RGBA": np.ascontiguousarray(np.concatenate([linear, alpha[..., None]], axis=2), np.float32),
            "Z": np.where(np.isfinite(depth), depth, EMPTY_DEPTH).astype(np.float32),
        }
        path = self._next(".exr")
        try:
            header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
            OpenEXR.File(header, channels).write(str(path))
        except RuntimeError as error:
            # The library reports the operating system's error as text only. Writing as many bytes ourselves raises it
            # as an OSError, from which the caller makes a sentence.
            path.write_bytes(b"\0" * (color.nbytes + depth.nbytes))
            raise OSError(str(error)) from error


class Mp4:
    def __init__(self, path: Path, size: int, fps: Fraction, times: np.ndarray | None = None) -> None:
        """`times` (F,) are the seconds at which the frames are shown; by default they follow each other at `fps`."""
        self._times = None if times is None else iter(times)
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps)
        self._stream.width = self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        # 16 is visually lossless for 8-bit footage; the default, 23, smears skin.
        self._stream.options = {"crf": "16", "preset": "medium"}
        context = self._stream.codec_context
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        if times is not None:
            context.time_base = _CLOCK
        self._closed = False

    def write(self, color: np.ndarray, alpha: np.ndarray, depth: np.ndarray, background: Background) -> None:
        image = to_bytes(over(color, alpha, background or (1.0, 1.0, 1.0)))
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        if self._times is not None:
            frame.time_base, frame.pts = _CLOCK, round(float(next(self._times)) / _CLOCK)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file. It is called after an error too, because the file's handle must not stay open."""
        if not self._closed:
            self._closed = True
            try:
                self._container.mux(self._stream.encode())
            finally:
                self._container.close()
