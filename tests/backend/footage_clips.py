"""Short videos for the tests of footage, encoded frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer

RATE = 30
TICKS = 600
"""Time base of the clips: fine enough for any frame time a test asks for."""


def write_clip(
    path: Path,
    images: Iterable[np.ndarray],
    *,
    times: Sequence[float] | None = None,
    rotation: int = 0,
    hflip: bool = False,
    pixel_shape: Fraction | None = None,
    codec: str = "libx264",
    pixels: str = "yuv444p",
    options: dict[str, str] | None = None,
    stream_options: dict[str, str] | None = None,
) -> Path:
    """A video of (H, W, 3) uint8 RGB images, nearly lossless, at 30 frames/s or at `times` in seconds."""
    with av.open(str(path), "w", options=options or {}) as container:
        quality = {"crf": "4", "preset": "ultrafast"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=RATE, options=quality | (stream_options or {}))
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, TICKS)
        if pixel_shape:
            stream.codec_context.sample_aspect_ratio = pixel_shape
        if rotation or hflip:
            stream.set_display_rotation(rotation, hflip=hflip)
        for index, image in enumerate(images):
            if index == 0:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(image, format="rgb24" if image.shape[2] == 3 else "rgba")
            frame.time_base = Fraction(1, TICKS)
            frame.pts = round((times[index] if times else index / RATE) * TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_raw_colour(
    path: Path,
    pixels: str,
    planes: Sequence[int],
    colour_matrix: int,
    full_range: bool,
    size: int = 64,
) -> Path:
    """A lossless clip of three frames of one colour, given as stored Y, Cb and Cr with the tags for decoding them."""
    deep = "10" in pixels
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE)
        stream.pix_fmt, stream.width, stream.height = pixels, size, size
        stream.codec_context.colorspace = colour_matrix
        stream.codec_context.color_range = 2 if full_range else 1
        for index in range(3):
            frame = av.VideoFrame(size, size, pixels)
            for plane, value in zip(frame.planes, planes, strict=True):
                samples = np.full(plane.buffer_size // (2 if deep else 1), value, np.uint16 if deep else np.uint8)
                plane.update(samples.tobytes())
            frame.colorspace, frame.color_range, frame.pts = colour_matrix, 2 if full_range else 1, index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Half a second of silence without a video stream."""
    with av.open(str(path), "w") as container:
        _encode_silence(container, container.add_stream("aac", rate=44100), 0.0)
    return path


def write_clip_with_late_sound(path: Path, delay: float) -> Path:
    """Five images from 0 s on, and half a second of silence from `delay` seconds on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        sound = container.add_stream("aac", rate=44100)
        stream.pix_fmt, stream.width, stream.height = "yuv420p", 64, 64
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        _encode_silence(container, sound, delay)
    return path


def _encode_silence(container: OutputContainer, stream: AudioStream, delay: float) -> None:
    for index in range(20):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 44100, round(delay * 44100) + index * 1024, Fraction(1, 44100)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def corner_image(width: int = 96, height: int = 64) -> np.ndarray:
    """Four quarters of four colours: red top left, green top right, blue bottom left, white bottom right."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = 230, 20, 20
    image[: height // 2, width // 2 :] = 20, 230, 20
    image[height // 2 :, : width // 2] = 20, 20, 230
    image[height // 2 :, width // 2 :] = 230, 230, 230
    return image
