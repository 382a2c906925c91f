"""Decodes footage, which is a photograph, a numbered run of images or any video that FFmpeg reads, into upright 8-bit
RGB frames with time stamps.

The container's metadata is applied here and in `geometry`, and nowhere else: the display matrix (phones store portrait
clips in landscape orientation), non-square pixels, the colour matrix and range, bit depths above 8, interlaced fields
and variable frame rates. Frames are decoded one at a time, so memory use does not grow with the length of a clip.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from ..errors import EffigyError
from ..formats.capture import MOST_FRAMES
from ..formats.frame_times import SEQUENCE_RATE
from ..progress import SILENT, Progress
from ..reading import Unlike, check_regular, reading
from .container import DEFAULT_RATE, REMEDY, check_size, decode, duration_of, frame_rate, open_video
from .geometry import Geometry, to_rgb
from .hdr import SDR, transfer_of
from .interlacing import FieldSearch, deinterlaced
from .sequence import ImageSequence, find_sequence, read_image
from .still import read_still

TURNS = (0, 90, 180, 270)
"""Degrees clockwise by which footage can be turned."""
_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


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
    sequence: ImageSequence | None = None
    """The files, if the footage is a numbered run of images."""
    turn: int = 0
    """Degrees clockwise by which the user turns the images: one of TURNS."""
    field_order: str = ""
    """`interlacing.TOP_FIRST` or `BOTTOM_FIRST`, by which `read_frames` makes whole images of interlaced frames; empty
    to leave the frames as they are."""


@dataclass(frozen=True)
class FootageFrame:
    number: int
    """Index among the decoded frames of the clip, counted from the clip's first frame; of a sequence, the number in the
    file's name less 1. The number that people count is one more."""
    time: float
    """Seconds since the start of the video stream, from the container's time stamps."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB, upright, of one size for the whole clip, with the transfer function of FootageInfo.transfer;
    `hdr.to_sdr` converts it."""


def probe(path: Path, *, turn: int = 0, rate: Fraction | None = None) -> FootageInfo:
    """Open a clip, a photograph or a sequence and read its properties from the first frame; raises EffigyError for
    anything else.

    `turn` is how many degrees clockwise the images are turned by, `rate` the frames per second of a sequence.
    """
    if turn not in TURNS:
        raise EffigyError(f"Footage is turned by 90, 180 or 270 degrees clockwise, not by {turn}.")
    sequence = find_sequence(path)
    if sequence is not None:
        height, width = read_image(sequence.path_of(sequence.numbers[0])).shape[:2]
        rate = rate or SEQUENCE_RATE
        count, last = len(sequence.numbers), sequence.numbers[-1] - sequence.numbers[0] + 1
        info = FootageInfo(path, width, height, rate, count, float(last / rate), SDR, False, sequence, turn)
    elif rate is not None:
        raise EffigyError(f"The rate of {path.name} is its own: only numbered images are given one.")
    elif (still := _read_still(path)) is not None:
        info = FootageInfo(path, still.shape[1], still.shape[0], DEFAULT_RATE, 1, 0.0, SDR, still=True, turn=turn)
    else:
        info = _probe_video(path, turn)
    return _turned_info(info)


def _probe_video(path: Path, turn: int) -> FootageInfo:
    with reading(path, "video", REMEDY), open_video(path) as (container, stream):
        for frame in decode(container, stream, [], path):
            geometry = Geometry.of(frame, stream)
            check_size(path, *geometry.upright_size)
            break
        else:
            raise EffigyError(
                f"No frame of {path.name} could be decoded: the file is damaged or cut short. Export it again."
            )
        rate = frame_rate(stream)
        duration = duration_of(container, stream)
        count = max(0, stream.frames) or round(duration * rate)
        return FootageInfo(path, *geometry.upright_size, rate, count, duration, transfer_of(frame.color_trc), turn=turn)


def read_frames(
    footage: Path | FootageInfo,
    *,
    start: float | None = None,
    end: float | None = None,
    first_frame: int | None = None,
    last_frame: int | None = None,
    max_frames: int | None = None,
    every: int = 1,
    longest_side: int | None = None,
    fields: FieldSearch | None = None,
    progress: Progress = SILENT,
) -> Iterator[FootageFrame]:
    """Stream the frames with start <= time < end (seconds) from the `first_frame` to the `last_frame` (numbers counted
    from 1, or those of a sequence's files), at most `max_frames` of them.

    `every` > 1 yields only every n-th of those frames. `longest_side` scales frames down (never up) during the colour
    conversion, which is much cheaper than converting a 4K frame first. `fields` is shown every decoded frame. A
    truncated clip is read as far as possible and reported through `progress.message`.
    """
    info = footage if isinstance(footage, FootageInfo) else probe(footage)
    if info.sequence is not None:
        source = _read_sequence(info, info.sequence, longest_side, progress)
    elif info.still:
        source = _read_photograph(info, longest_side)
    else:
        source = _read_video(info, longest_side, fields, progress)
    chosen = 0
    with closing(source):
        for number, time, image in source:
            if (end is not None and time >= end) or (last_frame is not None and number >= last_frame):
                return
            if (start is not None and time < start) or (first_frame is not None and number + 1 < first_frame):
                continue
            chosen += 1
            if chosen > MOST_FRAMES:
                raise EffigyError(
                    f"{info.path.name} has more than {MOST_FRAMES:,} frames: choose a part of it by start and end."
                )
            if (chosen - 1) % every == 0:
                shown = image()
                if shown is not None:
                    shown = cv2.rotate(shown, _ROTATIONS[info.turn]) if info.turn else shown
                    yield FootageFrame(number, time, shown)
            if max_frames is not None and chosen >= max_frames:
                return


_Source = Generator[tuple[int, float, Callable[[], np.ndarray | None]]]
"""Each frame's number, its time and a function that makes its image, or None if that cannot be read."""


def _read_video(info: FootageInfo, longest_side: int | None, fields: FieldSearch | None, progress: Progress) -> _Source:
    path = info.path
    problems: list[str] = []
    number = -1
    last_time = 0.0
    geometry = None
    # One reformatter for the clip: the one of a frame would set up its filters again for each frame.
    reformatter = VideoReformatter()
    with reading(path, "video", REMEDY), open_video(path) as (container, stream):
        rate = frame_rate(stream)
        time_base = stream.time_base or Fraction(1)
        origin = stream.start_time * time_base if stream.start_time is not None else 0
        frames = decode(container, stream, problems, path)
        for number, frame in enumerate(deinterlaced(frames, stream, info.field_order) if info.field_order else frames):
            # The first frame's geometry is used for all frames: a stream may change its size, but all frames are scaled
            # to the first one's. Reading each frame's side data would also keep the frame alive in a reference cycle:
            # 14 MB for each frame of a 4K clip.
            if geometry is None:
                geometry = Geometry.of(frame, stream)
                check_size(path, *geometry.upright_size)
            if fields is not None:
                fields.look(frame, stream)
            last_time = (
                float(frame.pts * (frame.time_base or time_base) - origin)
                if frame.pts is not None
                else float(number / rate)
            )
            yield number, last_time, partial(to_rgb, frame, geometry, longest_side, reformatter)
        expected_duration = duration_of(container, stream)
    if problems or last_time + 1 / rate < 0.97 * expected_duration - 0.5:
        progress.message(
            f"{path.name} is damaged or cut short: {number + 1} of about {round(expected_duration * rate)} frames "
            f"could be read (up to {last_time:.1f} of {expected_duration:.1f} s), and those are used."
        )


def _read_photograph(info: FootageInfo, longest_side: int | None) -> _Source:
    still = _read_still(info.path)
    if still is not None:
        yield 0, 0.0, partial(_shrunk, still, longest_side)


def _read_sequence(info: FootageInfo, sequence: ImageSequence, longest_side: int | None, progress: Progress) -> _Source:
    """The images of a sequence. One that is damaged is left out and named at the end."""
    damaged: list[str] = []
    size = (info.width, info.height) if info.turn in (90, 270) else (info.height, info.width)

    def image(number: int) -> np.ndarray | None:
        path = sequence.path_of(number)
        try:
            found = read_image(path)
        except EffigyError as error:
            damaged.append(str(error))
            return None
        if found.shape[:2] != size:
            raise EffigyError(
                f"{path.name} has {found.shape[1]} x {found.shape[0]} pixels, and the first image {size[1]} x "
                f"{size[0]}: the images of a sequence have one size. Choose the images of one film."
            )
        return _shrunk(found, longest_side)

    for number in sequence.numbers:
        yield number - 1, float((number - sequence.numbers[0]) / info.fps), partial(image, number)
    if damaged:
        progress.message(
            f"{len(damaged)} of {len(sequence.numbers)} images cannot be read and are left out: {damaged[0]}"
        )


def _shrunk(image: np.ndarray, longest_side: int | None) -> np.ndarray:
    shrink = min(1.0, longest_side / max(image.shape[:2])) if longest_side else 1.0
    return cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) if shrink < 1 else image


def _turned_info(info: FootageInfo) -> FootageInfo:
    return replace(info, width=info.height, height=info.width) if info.turn in (90, 270) else info


def _read_still(path: Path) -> np.ndarray | None:
    """The photograph in a file, or None if the file holds something else. Refuses what is no readable file."""
    path = Path(path)
    with reading(path, "video or photograph", REMEDY):
        if check_regular(path, "video or photograph").st_size == 0:
            raise Unlike("it has no bytes")
        return read_still(path)
