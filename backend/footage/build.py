"""Makes a capture from footage in two passes over the file, so that memory use does not grow with the clip's length.

The first pass detects the face in downscaled frames every tenth of a second and determines the crop. The second pass
crops every frame, computes its matte and writes both. In both passes several threads process frames concurrently:
decoding, MediaPipe, OpenCV and zlib all release the interpreter lock.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from ..errors import EffigyError
from ..formats.capture import FLAG_REASONS, Capture, FrameFlag, reasons_for, save_capture
from ..formats.frame_times import nominal_rate
from ..progress import SILENT, Progress
from ..storage import hash_file, write_beside
from .crop import guess_intrinsics, stable_crop
from .decode import FootageInfo, probe, read_frames
from .detector import FaceDetector
from .findings import Findings, findings_of
from .frame_cutter import FrameCutter
from .head_search import Found, find_head
from .matte import MattingModel
from .model_threads import ModelThreads
from .sequence import sequence_around


def make_capture(
    video: Path,
    folder: Path,
    *,
    size: int = 512,
    start: float | None = None,
    end: float | None = None,
    first_frame: int | None = None,
    last_frame: int | None = None,
    max_frames: int | None = None,
    rotate: int = 0,
    rate: Fraction | None = None,
    progress: Progress = SILENT,
) -> Capture:
    """Make a capture folder from a video: head crops with mattes, landmarks and flags.

    `start` and `end` are seconds from the start of the clip, `first_frame` and `last_frame` numbers of its frames,
    counted from 1, or of a sequence's files; `max_frames` counts from the first chosen frame. `rotate` is how many
    degrees clockwise the images are turned by, `rate` the frames per second of a sequence. An existing capture at
    `folder` is replaced together with its track and head mattes. Raises EffigyError if `folder` holds anything else, or
    if no usable face is found.
    """
    video, folder = Path(video), Path(folder)
    _check_request(folder, size, start, end, max_frames)
    if first_frame is not None and last_frame is not None and last_frame < first_frame:
        raise EffigyError(f"The last frame ({last_frame}) lies before the first ({first_frame}).")
    info = probe(video, turn=rotate, rate=rate)
    span = {"start": start, "end": end, "first_frame": first_frame, "last_frame": last_frame, "max_frames": max_frames}
    if info.still and (around := sequence_around(video)):
        progress.message(
            f"{video.name} is taken as a photograph. It is one of {len(around.numbers)} numbered images: for the film "
            f"that they may be, name {around.pattern} or the folder, or switch Image Sequence on."
        )
    expected_frames = _expected_frames(info, **span)
    found = find_head(info, span, expected_frames, progress)
    info, area = found.info, found.area
    in_picture = [replace(s, box=s.box - np.tile(area.corner, 2)) for s in found.sightings]
    within = stable_crop(in_picture, area.width, area.height)
    crop = within[0] + area.left, within[1] + area.top, within[2]
    extent = float(np.median([s.extent for s in in_picture]))
    intrinsics = guess_intrinsics(within, size, area.width, area.height, extent)

    with write_beside(folder) as temporary:
        (temporary / "frames").mkdir(parents=True)
        (temporary / "mattes").mkdir()
        with ThreadPoolExecutor(1, "hash") as hasher:
            digest = hasher.submit(info.sequence.sha256 if info.sequence else partial(hash_file, video))
            results = []
            # The folder may be removed only after the last thread has stopped writing into it.
            with ModelThreads(FaceDetector, MattingModel) as threads:
                cutter = FrameCutter(temporary, found, crop, size)
                # A video has reported its damage in the first pass, which read it to its end.
                frames = read_frames(info, **span, progress=progress if info.sequence else SILENT)
                for result in threads.map(cutter.process, cutter.cut(frames)):
                    results.append(result)
                    progress.update("cropping", len(results), max(expected_frames, len(results)))
                    progress.raise_if_cancelled()
            sha256 = digest.result()
        if len(results) < 2 and max_frames != 1 and not info.still:
            raise EffigyError(
                f"Only {len(results)} frame of {video.name} lies in the chosen part or can be read: "
                "choose a longer part, or export the video again."
            )
        capture = Capture(
            folder=temporary,
            source_name=info.sequence.pattern if info.sequence else video.name,
            source_sha256=sha256,
            size=size,
            fps=nominal_rate(np.array([r.time for r in results]), info.fps),
            crop=crop,
            intrinsics=intrinsics,
            frame_numbers=np.array([r.number for r in results], np.int64),
            frame_times=np.array([r.time for r in results], np.float64),
            landmarks=np.stack([r.landmarks for r in results]),
            scores=np.stack([r.scores for r in results]),
            detector_pose=np.stack([r.pose for r in results]),
            flags=np.array([r.flag for r in results], np.int32),
        )
        _check_faces(capture, video)
        flagged = describe_flags(capture.flags)
        findings = findings_of(capture, [r.view for r in results], info, area)
        save_capture(capture, _summary(capture, found, flagged, findings))
        # Something may have been put there since the work began.
        _check_place(folder)
    for line in flagged:
        progress.message(f"Kept out of training: {line}.")
    if crop[2] > 4 * extent:
        progress.message(
            f"The head moves over a wide part of the image, so it fills only about "
            f"{extent / crop[2] * size:.0f} of {size} pixels of each frame."
        )
    return replace(capture, folder=folder)


def describe_flags(flags: np.ndarray) -> list[str]:
    """One line for each run of flagged frames, such as `frames 12-15: no face`.

    `flags` (F,) holds FrameFlag values; frame indices count from 0.
    """
    lines = []
    for value, run in groupby(enumerate(flags.tolist()), key=lambda pair: pair[1]):
        indices = [index for index, _ in run]
        if value:
            where = f"frame {indices[0]}" if len(indices) == 1 else f"frames {indices[0]}-{indices[-1]}"
            lines.append(f"{where}: {reasons_for(value)}")
    return lines


def _check_request(folder: Path, size: int, start: float | None, end: float | None, max_frames: int | None) -> None:
    if not 64 <= size <= 4096:
        raise EffigyError(f"A capture of {size} pixels cannot be made: choose a size between 64 and 4096.")
    if max_frames is not None and max_frames < 1:
        raise EffigyError(f"A capture needs at least one frame, not {max_frames}.")
    for name, seconds in (("start", start), ("end", end)):
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise EffigyError(f"The {name} of a capture is a number of seconds from 0 up, not {seconds}.")
    if start is not None and end is not None and end <= start:
        raise EffigyError(f"The end ({end:g} s) must lie after the start ({start:g} s).")
    _check_place(folder)


def _check_place(folder: Path) -> None:
    """Refuses a place where a capture would replace something else than a capture."""
    if folder.exists() and not folder.is_dir():
        raise EffigyError(f"{folder} is a file: name a folder for the capture.")
    if folder.is_dir() and not (folder / "capture.json").is_file() and any(folder.iterdir()):
        raise EffigyError(
            f"{folder} holds other files and is not a capture: choose a new folder, so that nothing is overwritten."
        )


def _expected_frames(
    info: FootageInfo,
    start: float | None,
    end: float | None,
    max_frames: int | None,
    first_frame: int | None = None,
    last_frame: int | None = None,
) -> int:
    count = info.frame_count
    if start is not None or end is not None:
        last = min(info.duration, end) if end is not None else info.duration
        count = max(1, round((last - (start or 0.0)) * info.fps))
    if first_frame is not None or last_frame is not None:
        last_frame = min(count, last_frame) if last_frame is not None else count
        count = max(1, last_frame - (first_frame or 1) + 1)
    return min(count, max_frames) if max_frames is not None else count


def _check_faces(capture: Capture, video: Path) -> None:
    several = (capture.flags & FrameFlag.SEVERAL_FACES) != 0
    found = (capture.flags & FrameFlag.NO_FACE) == 0
    if not found.any():
        raise EffigyError(
            f"No face was found in the head crops of {video.name}: choose a part where the person faces the camera."
        )
    if several.sum() > found.sum() / 2:
        raise EffigyError(
            f"{video.name} shows two faces in most of its frames: an avatar shows one person. "
            "Crop the video to that person, or choose a part of the clip by start and end."
        )


def _summary(capture: Capture, found: Found, flagged: list[str], findings: Findings) -> dict[str, object]:
    counts = {"good": int((capture.flags == 0).sum())}
    counts |= {
        str(flag.name).lower(): int(((capture.flags & flag) != 0).sum())
        for flag in FLAG_REASONS
        if flag != FrameFlag.TRACK_UNSURE
    }
    info, area = found.info, found.area
    return {
        "source_size": [info.width, info.height],
        "picture": [area.left, area.top, area.right, area.bottom],
        "turn": info.turn,
        "numbered_from": info.sequence and int(capture.frame_numbers[0]) + 1,
        "findings": findings.line,
        "trainable": findings.trainable,
        "counts": counts,
        "flagged": flagged,
    }
