"""Decodes footage, which is a photograph or any video that FFmpeg reads, into upright 8-bit RGB frames with time
stamps.

The container's metadata is applied here and in `geometry`, and nowhere else: the display matrix (phones store portrait
clips in landscape orientation), non-square pixels, the colour matrix and range, bit depths above 8 and variable frame
rates. Frames are decoded one at a time, so memory use does not grow with the length of a clip.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

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
from ..formats.capture import MOST_FRAMES
from ..progress import SILENT, Progress
from ..reading import FASTEST_RATE, SLOWEST_RATE, check_regular, reading, too_large
from .geometry import Geometry, to_rgb
from .hdr import SDR, transfer_of
from .still import read_still

_STILL_FORMATS = ("image2", "pipe")
"""Endings of the formats by which FFmpeg opens an image as a video of one frame: `image2`, `png_pipe`, `jpeg_pipe`,
..."""
_TEXT_FORMATS = ("tty",)
"""FFmpeg would render a text file as an ANSI terminal, which no user wants."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<?xml")
"""First bytes of playlists, for which FFmpeg would open other files or wait for a network without end."""
_DEFAULT_RATE = Fraction(25)
REMEDY: Final = "copy or export it again"
MOST_PIXELS: Final = 90_000_000
"""Of a frame. The largest cinema cameras (12K) have 80 megapixels; a decoded frame of this size takes up to 540 MB, and
a decoder holds several."""
MOST_SIDE: Final = 32_768
"""Width or height of a frame, pixels."""
LONGEST: Final = 30 * 86_400.0
"""Seconds that a container may claim to last."""


@dataclass(frozen=True)
class FootageInfo:
    """Properties of a clip, known after its first frame is decoded."""

    path: Path
    width: int
    """Pixels of the upright image with square pixels."""
    height: int
    fps: Fraction
    """Frames per second; the average if the rate varies."""
    frame_count: int
    """The container's frame count, accurate enough for a progress bar only; 0 if the container gives none."""
    duration: float
    """Seconds, from the container; 0 if it gives none."""
    transfer: str
    """The frames' transfer function: `hdr.SDR` (treated as sRGB), `hdr.HLG` or `hdr.PQ`."""
    still: bool = False
    """Whether the footage is a photograph, which is one frame."""


@dataclass(frozen=True)
class FootageFrame:
    number: int
    """Index among the decoded frames of the clip, counted from the clip's first frame."""
    time: float
    """Seconds since the start of the video stream, from the container's time stamps."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB, upright, of one size for the whole clip, with the transfer function of FootageInfo.transfer;
    `hdr.to_sdr` converts it."""


def probe(path: Path) -> FootageInfo:
    """Open a clip or a photograph and read its properties from the first frame; raises EffigyError for anything
    else.
    """
    still = _read_still(path)
    if still is not None:
        return FootageInfo(path, still.shape[1], still.shape[0], _DEFAULT_RATE, 1, 0.0, SDR, still=True)
    with reading(path, "video", REMEDY), _open(path) as (container, stream):
        for frame in _decode(container, stream, [], path):
            geometry = Geometry.of(frame, stream)
            _check_size(path, *geometry.upright_size)
            break
        else:
            raise EffigyError(
                f"No frame of {path.name} could be decoded: the file is damaged or cut short. Export it again."
            )
        rate = _frame_rate(stream)
        duration = _duration(container, stream)
        count = max(0, stream.frames) or round(duration * rate)
        return FootageInfo(path, *geometry.upright_size, rate, count, duration, transfer_of(frame.color_trc))


def sound_start(path: Path) -> float:
    """Seconds from the start of a clip's images to that of its first sound; 0 if there is none or it is not known."""
    starts = []
    with suppress(EffigyError), reading(path, "video", REMEDY), _open(path) as (container, stream):
        starts = [
            float(each.start_time * each.time_base)
            for each in (stream, *container.streams.audio[:1])
            if each.start_time is not None and each.time_base is not None
        ]
    wait = starts[1] - starts[0] if len(starts) == 2 else 0.0
    return wait if abs(wait) < LONGEST else 0.0


def read_frames(
    path: Path,
    *,
    start: float | None = None,
    end: float | None = None,
    first_frame: int | None = None,
    last_frame: int | None = None,
    max_frames: int | None = None,
    every: int = 1,
    longest_side: int | None = None,
    progress: Progress = SILENT,
) -> Iterator[FootageFrame]:
    """Stream the frames with start <= time < end (seconds) from the `first_frame` to the `last_frame` (numbers counted
    from 1), at most `max_frames` of them.

    `every` > 1 yields only every n-th of those frames. `longest_side` scales frames down (never up) during the colour
    conversion, which is much cheaper than converting a 4K frame first. A truncated clip is read as far as possible and
    reported through `progress.message`.
    """
    still = _read_still(path)
    if still is not None:
        shrink = min(1.0, longest_side / max(still.shape[:2])) if longest_side else 1.0
        if shrink < 1:
            still = cv2.resize(still, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        if not start and (first_frame or 1) == 1:
            yield FootageFrame(0, 0.0, still)
        return
    problems: list[str] = []
    chosen = 0
    number = -1
    last_time = 0.0
    geometry = None
    # One reformatter for the clip: the one of a frame would set up its filters again for each frame.
    reformatter = VideoReformatter()
    with reading(path, "video", REMEDY), _open(path) as (container, stream):
        rate = _frame_rate(stream)
        time_base = stream.time_base or Fraction(1)
        origin = stream.start_time * time_base if stream.start_time is not None else 0
        for number, frame in enumerate(_decode(container, stream, problems, path)):
            # The first frame's geometry is used for all frames: a stream may change its size, but all frames are scaled
            # to the first one's. Reading each frame's side data would also keep the frame alive in a reference cycle:
            # 14 MB for each frame of a 4K clip.
            if geometry is None:
                geometry = Geometry.of(frame, stream)
                _check_size(path, *geometry.upright_size)
            last_time = (
                float(frame.pts * (frame.time_base or time_base) - origin)
                if frame.pts is not None
                else float(number / rate)
            )
            if end is not None and last_time >= end:
                return
            if last_frame is not None and number >= last_frame:
                return
            if (start is not None and last_time < start) or number + 1 < (first_frame or 1):
                continue
            chosen += 1
            if chosen > MOST_FRAMES:
                raise EffigyError(
                    f"{path.name} has more than {MOST_FRAMES:,} frames: choose a part of it by start and end."
                )
            if (chosen - 1) % every == 0:
                yield FootageFrame(number, last_time, to_rgb(frame, geometry, longest_side, reformatter))
            if max_frames is not None and chosen >= max_frames:
                return
        expected_duration = _duration(container, stream)
    if problems or last_time + 1 / rate < 0.97 * expected_duration - 0.5:
        progress.message(
            f"{path.name} is damaged or cut short: {number + 1} of about {round(expected_duration * rate)} frames "
            f"could be read (up to {last_time:.1f} of {expected_duration:.1f} s), and those are used."
        )


def _read_still(path: Path) -> np.ndarray | None:
    """The photograph in a file, or None if the file holds something else. Refuses what is no readable file."""
    path = Path(path)
    with reading(path, "video or photograph", REMEDY):
        if check_regular(path, "video or photograph").st_size == 0:
            raise EffigyError(f"{path.name} is empty: copy or export the video again.")
        return read_still(path)


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_PLAYLISTS):
                raise EffigyError(f"{path.name} is a list of files, not a video: name the video file itself.")
        # An absolute path and this whitelist keep FFmpeg from treating a file name or a playlist entry as a URL.
        options = {"protocol_whitelist": "file", "max_pixels": str(MOST_PIXELS)}
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except (FFmpegError, ValueError) as error:
        if _lacks_index(path):
            raise EffigyError(
                f"{path.name} is cut short: the index at its end (moov) is missing. "
                "Copy the file again completely, or record it again."
            ) from error
        raise EffigyError(f"{path.name} is not a video that FFmpeg can read.") from error
    with container:
        name = container.format.name
        if name in _TEXT_FORMATS:
            raise EffigyError(f"{path.name} is not a video that FFmpeg can read.")
        if name.endswith(_STILL_FORMATS):
            raise EffigyError(f"{path.name} is an image of an unsupported format: save it as PNG or JPEG.")
        # FFmpeg presents the cover art of a song as a video stream.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            if container.streams.audio:
                raise EffigyError(f"{path.name} holds only sound and no images: choose a video of the person.")
            raise EffigyError(f"{path.name} holds no video stream.")
        stream = max(streams, key=lambda s: (s.codec_context.width or 0) * (s.codec_context.height or 0))
        _check_size(path, stream.codec_context.width or 0, stream.codec_context.height or 0)
        stream.thread_type = "AUTO"
        # The decoder itself refuses frames that become larger on the way.
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        yield container, stream


def _decode(container: InputContainer, stream: VideoStream, problems: list[str], path: Path) -> Iterator[av.VideoFrame]:
    """Frames in display order. Broken packets are skipped and noted in `problems`; a broken file ends the stream."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (FFmpegError, OSError) as error:
            if error.errno == errno.ENOMEM:
                raise
            problems.append(str(error))
            # Flush the decoder: it still holds frames from the packets before the read error.
            packet = None
        try:
            frames = stream.decode(packet)
        except EndOfFile:
            return
        except FFmpegError as error:
            problems.append(str(error))
            frames = []
        for frame in frames:
            if frame.is_corrupt:
                problems.append("a corrupt frame")
            else:
                yield frame
        if packet is None:
            return


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        raise too_large(
            path, "video", f"{width} x {height} pixels", f"{MOST_PIXELS / 1e6:.0f} megapixels", "scale it down"
        )


def _frame_rate(stream: VideoStream) -> Fraction:
    average, guessed = (
        rate if rate and SLOWEST_RATE <= rate <= FASTEST_RATE else None
        for rate in (stream.average_rate, stream.guessed_rate)
    )
    if not average:
        return Fraction(guessed) if guessed else _DEFAULT_RATE
    if guessed and abs(average / guessed - 1) < 1e-3:
        # Containers with millisecond time stamps report, for example, 30.002 frames per second for 30.
        return Fraction(guessed)
    return Fraction(average).limit_denominator(1001)


def _duration(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    else:
        duration = container.duration / av.time_base if container.duration else 0.0
    # Nobody films for longer; a container may claim centuries, or less than nothing.
    return duration if 0 < duration < LONGEST else 0.0


def _lacks_index(path: Path) -> bool:
    """True if this is an MP4 or QuickTime file without a complete `moov` box, which decoding requires."""
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
                # A `moov` box that extends beyond the end of the file is truncated.
                return position + length > end
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length < 8:
                return not first
            position, first = position + length, False
    return not first
