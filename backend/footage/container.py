"""Opens videos with FFmpeg and decodes their packets, whatever the file holds."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
from av.container import InputContainer
from av.error import EOFError as EndOfFile
from av.error import FFmpegError
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import EffigyError
from ..reading import FASTEST_RATE, SLOWEST_RATE, Unlike, reading, too_large

_STILL_FORMATS = ("image2", "pipe")
"""Endings of the formats by which FFmpeg opens an image as a video of one frame: `image2`, `png_pipe`, `jpeg_pipe`,
..."""
_TEXT_FORMATS = ("tty",)
"""FFmpeg would render a text file as an ANSI terminal, which no user wants."""
_PLAYLISTS = (b"#EXTM3U", b"ffconcat", b"<MPD", b"<?xml")
"""First bytes of playlists, for which FFmpeg would open other files or wait for a network without end."""
DEFAULT_RATE = Fraction(25)
REMEDY: Final = "copy or export it again"
MOST_PIXELS: Final = 90_000_000
"""Of a frame. The largest cinema cameras (12K) have 80 megapixels; a decoded frame of this size takes up to 540 MB, and
a decoder holds several."""
MOST_SIDE: Final = 32_768
"""Width or height of a frame, pixels."""
LONGEST: Final = 30 * 86_400.0
"""Seconds that a container may claim to last."""


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """A file of pictures or sound. Call it within `reading`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_PLAYLISTS):
                raise EffigyError(f"{path.name} is a list of files, not a video: name the video file itself.")
        # An absolute path and this whitelist keep FFmpeg from treating a file name or a playlist entry as a URL.
        options = {"protocol_whitelist": "file", "max_pixels": str(MOST_PIXELS)}
        container = av.open(str(path.absolute()), options=options, metadata_errors="replace")
    except (FFmpegError, ValueError) as error:
        if lacks_index(path):
            raise EffigyError(
                f"{path.name} is cut short: the index at its end (moov) is missing. "
                "Copy the file again completely, or record it again."
            ) from error
        raise Unlike("FFmpeg knows no such film") from error
    with container:
        if container.format.name in _TEXT_FORMATS:
            raise Unlike("FFmpeg takes it for text")
        yield container


@contextmanager
def open_video(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A film and its largest video stream. Call it within `reading`."""
    path = Path(path)
    with open_container(path) as container:
        if container.format.name.endswith(_STILL_FORMATS):
            raise Unlike("it is an image of a format that is not read", "save it as PNG or JPEG")
        # FFmpeg presents the cover art of a song as a video stream.
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            if container.streams.audio:
                raise EffigyError(f"{path.name} holds only sound and no images: choose a video of the person.")
            raise Unlike("it holds no video stream")
        stream = max(streams, key=lambda s: (s.codec_context.width or 0) * (s.codec_context.height or 0))
        check_size(path, stream.codec_context.width or 0, stream.codec_context.height or 0)
        stream.thread_type = "AUTO"
        # The decoder itself refuses frames that become larger on the way.
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        yield container, stream


def decode(container: InputContainer, stream: VideoStream, problems: list[str], path: Path) -> Iterator[av.VideoFrame]:
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


def check_size(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        raise too_large(
            path, "video", f"{width} x {height} pixels", f"{MOST_PIXELS / 1e6:.0f} megapixels", "scale it down"
        )


def frame_rate(stream: VideoStream) -> Fraction:
    average, guessed = (
        rate if rate and SLOWEST_RATE <= rate <= FASTEST_RATE else None
        for rate in (stream.average_rate, stream.guessed_rate)
    )
    if not average:
        return Fraction(guessed) if guessed else DEFAULT_RATE
    if guessed and abs(average / guessed - 1) < 1e-3:
        # Containers with millisecond time stamps report, for example, 30.002 frames per second for 30.
        return Fraction(guessed)
    return Fraction(average).limit_denominator(1001)


def duration_of(container: InputContainer, stream: VideoStream) -> float:
    if stream.duration and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    else:
        duration = container.duration / av.time_base if container.duration else 0.0
    # Nobody films for longer; a container may claim centuries, or less than nothing.
    return duration if 0 < duration < LONGEST else 0.0


def lacks_index(path: Path) -> bool:
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


def sound_start(path: Path) -> float:
    """Seconds from the start of a clip's images to that of its first sound; 0 if there is none or it is not known."""
    starts = []
    with suppress(EffigyError), reading(path, "video", REMEDY), open_video(path) as (container, stream):
        starts = [
            float(each.start_time * each.time_base)
            for each in (stream, *container.streams.audio[:1])
            if each.start_time is not None and each.time_base is not None
        ]
    wait = starts[1] - starts[0] if len(starts) == 2 else 0.0
    return wait if abs(wait) < LONGEST else 0.0
