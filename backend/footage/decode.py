"""Footage: any video file that FFmpeg reads, streamed as upright 8-bit RGB frames with their own times; or a
photograph.

What a container says about its pictures is honoured here and in `geometry`, and nowhere else: the display matrix
(phones store a portrait clip lying on its side), pixels that are not square, the colour matrix and range, more than 8
bits, variable frame rate. Frames are decoded one after the other, so memory does not grow with the length of a clip.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from ..errors import EffigyError
from ..progress import SILENT, Progress
from .geometry import Geometry, to_rgb
from .hdr import SDR, transfer_of
from .still import read_still

_STILL_FORMATS = ("image2", "pipe")
"""FFmpeg opens a picture as a video of one frame, by `image2` or `png_pipe`, `jpeg_pipe`, ..."""
_TEXT_FORMATS = ("tty",)
"""FFmpeg would draw a text file as an ANSI terminal; nobody means that."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<?xml")
"""How the files begin by which FFmpeg would go and fetch other files, or wait for a network for ever."""
_DEFAULT_RATE = Fraction(25)


@dataclass(frozen=True)
class FootageInfo:
    """What is known of a clip after its first frame."""

    path: Path
    width: int
    """Pixels of the upright picture with square pixels."""
    height: int
    fps: Fraction
    """The average rate where the rate varies."""
    frame_count: int
    """What the container announces: good for a progress bar, not a promise; 0 if it says nothing."""
    duration: float
    """Seconds, as announced; 0 if the container says nothing."""
    transfer: str
    """How the frames are encoded: `hdr.SDR` (sRGB, for all practical purposes), `hdr.HLG` or `hdr.PQ`."""
    still: bool = False
    """A photograph: one frame."""


@dataclass(frozen=True)
class FootageFrame:
    number: int
    """Index among the decoded frames of the clip, counted from its very beginning."""
    time: float
    """Seconds since the start of the video stream, by the container's own time stamps."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB, upright, one size for the whole clip; encoded as FootageInfo.transfer says
    (`hdr.to_sdr`)."""


def probe(path: Path) -> FootageInfo:
    """Open a clip or a photograph, decode its first frame and say what it is; refuses anything else with a sentence."""
    still = _read_still(path)
    if still is not None:
        return FootageInfo(path, still.shape[1], still.shape[0], _DEFAULT_RATE, 1, 0.0, SDR, still=True)
    with _open(path) as (container, stream):
        for frame in _decode(container, stream, [], path):
            geometry = Geometry.of(frame, stream)
            break
        else:
            raise EffigyError(
                f"No picture of {path.name} could be decoded: the file is damaged or cut short. Export it again."
            )
        rate = _frame_rate(stream)
        duration = _duration(container, stream)
        count = stream.frames or round(duration * rate)
        return FootageInfo(path, *geometry.upright_size, rate, count, duration, transfer_of(frame.color_trc))


def read_frames(
    path: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    max_frames: int | None = None,
    every: int = 1,
    longest_side: int | None = None,
    progress: Progress = SILENT,
) -> Iterator[FootageFrame]:
    """Stream the frames with start <= time < end (seconds), at most `max_frames` of them.

    `every` > 1 yields only each n-th of those frames; `longest_side` scales down while converting (never up), which
    is much cheaper than converting a 4K frame first. A clip that breaks off is read as far as it goes, and
    `progress.message` says so.
    """
    still = _read_still(path)
    if still is not None:
        shrink = min(1.0, longest_side / max(still.shape[:2])) if longest_side else 1.0
        if shrink < 1:
            still = cv2.resize(still, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        if not start:
            yield FootageFrame(0, 0.0, still)
        return
    troubles: list[str] = []
    chosen = 0
    number = -1
    last_time = 0.0
    geometry = None
    # One for the clip: a frame's own would set up its filters anew for each frame.
    reformatter = VideoReformatter()
    with _open(path) as (container, stream):
        rate = _frame_rate(stream)
        time_base = stream.time_base or Fraction(1)
        origin = stream.start_time * time_base if stream.start_time is not None else 0
        for number, frame in enumerate(_decode(container, stream, troubles, path)):
            # A stream may change its size on the way; it is one clip to us, at the size it begins with. And asking each
            # frame for its side data would keep it alive in a reference cycle: 14 MB for each frame of a 4K clip.
            geometry = geometry or Geometry.of(frame, stream)
            last_time = (
                float(frame.pts * (frame.time_base or time_base) - origin)
                if frame.pts is not None
                else float(number / rate)
            )
            if end is not None and last_time >= end:
                return
            if start is not None and last_time < start:
                continue
            chosen += 1
            if (chosen - 1) % every == 0:
                yield FootageFrame(number, last_time, to_rgb(frame, geometry, longest_side, reformatter))
            if max_frames is not None and chosen >= max_frames:
                return
        announced = _duration(container, stream)
    if troubles or last_time + 1 / rate < 0.97 * announced - 0.5:
        progress.message(
            f"{path.name} is damaged or cut short: {number + 1} of about {round(announced * rate)} frames "
            f"could be read (up to {last_time:.1f} of {announced:.1f} s), and those are used."
        )


def _read_still(path: Path) -> np.ndarray | None:
    path = Path(path)
    # Whatever cannot be opened at all is told apart by `_open`.
    return read_still(path) if path.is_file() and os.access(path, os.R_OK) and path.stat().st_size else None


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    path = Path(path)
    if path.is_dir():
        raise EffigyError(f"{path} is a folder: name the video file itself.")
    if not path.exists():
        raise EffigyError(f"There is no file {path}: check the name and the folder.")
    if path.stat().st_size == 0:
        raise EffigyError(f"{path.name} is empty: copy or export the video again.")
    try:
        with path.open("rb") as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_PLAYLISTS):
                raise EffigyError(f"{path.name} is a list of files, not a video: name the video file itself.")
        # An absolute path and this whitelist keep FFmpeg from reading a file name or a playlist as an address.
        container = av.open(str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except PermissionError as error:
        raise EffigyError(f"{path} cannot be read: you have no permission to open it.") from error
    except (FFmpegError, ValueError) as error:
        if _lacks_index(path):
            raise EffigyError(
                f"{path.name} is cut short: its index (moov), which stands at the end, is missing. "
                "Copy the file again completely, or record it again."
            ) from error
        raise EffigyError(f"{path.name} is not a video that FFmpeg can read.") from error
    with container:
        name = container.format.name
        if name in _TEXT_FORMATS:
            raise EffigyError(f"{path.name} is not a video that FFmpeg can read.")
        if name.endswith(_STILL_FORMATS):
            raise EffigyError(f"{path.name} is a picture of a kind that is not read: save it as PNG or JPEG.")
        # A song's cover art is a video stream to FFmpeg.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            if container.streams.audio:
                raise EffigyError(f"{path.name} holds only sound, no picture: choose a video of the person.")
            raise EffigyError(f"{path.name} holds no video stream.")
        stream = max(streams, key=lambda s: (s.codec_context.width or 0) * (s.codec_context.height or 0))
        stream.thread_type = "AUTO"
        yield container, stream


def _decode(container: InputContainer, stream: VideoStream, troubles: list[str], path: Path) -> Iterator[av.VideoFrame]:
    """Frames in display order. Broken packets are skipped and noted in `troubles`; a broken file ends the stream."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (FFmpegError, OSError) as error:
            if error.errno == errno.ENOMEM:
                raise
            troubles.append(str(error))
            # The decoder still holds frames that were sent before the file broke off.
            packet = None
        try:
            frames = stream.decode(packet)
        except EndOfFile:
            return
        except FFmpegError as error:
            troubles.append(str(error))
            frames = []
        for frame in frames:
            if frame.is_corrupt:
                troubles.append("a corrupt frame")
            else:
                yield frame
        if packet is None:
            return


def _frame_rate(stream: VideoStream) -> Fraction:
    average, guessed = stream.average_rate, stream.guessed_rate
    if not average:
        return Fraction(guessed) if guessed else _DEFAULT_RATE
    if guessed and abs(average / guessed - 1) < 1e-3:
        # 30.002 frames a second in a header of milliseconds means 30.
        return Fraction(guessed)
    return Fraction(average).limit_denominator(1001)


def _duration(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else 0.0


def _lacks_index(path: Path) -> bool:
    """True if this is an MP4 or QuickTime file without `moov`, the box without which nothing in it can be decoded."""
    end = path.stat().st_size
    with path.open("rb") as file:
        position, first = 0, True
        while position + 8 <= end:
            file.seek(position)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if first and kind not in (b"ftyp", b"wide", b"mdat", b"free", b"skip"):
                return False
            if kind == b"moov":
                # A moov that reaches beyond the end is cut short as well.
                return position + length > end
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                return not first
            position, first = position + length, False
    return not first
