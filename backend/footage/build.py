"""Makes a capture from footage in two passes over the file, so that memory use does not grow with the clip's length.

The first pass detects the face in downscaled frames every tenth of a second and determines the crop. The second pass
crops every frame, computes its matte and writes both. In both passes several threads process frames concurrently:
decoding, MediaPipe, OpenCV and zlib all release the interpreter lock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import EffigyError
from ..formats.capture import FLAG_REASONS, FRAME_SUFFIX, PNG_FAST, Capture, FrameFlag, reasons_for, save_capture
from ..formats.frame_times import nominal_rate
from ..head.model import LANDMARK_COUNT
from ..progress import SILENT, Progress
from ..storage import hash_file, write_beside
from .crop import (
    SEARCH_SIDE,
    HeadSearch,
    Sighting,
    choose_face,
    cut_square,
    guess_intrinsics,
    image_mask,
    stable_crop,
)
from .decode import FootageFrame, FootageInfo, probe, read_frames
from .detector import SCORE_NAMES, Face, FaceDetector
from .hdr import to_sdr
from .matte import MattingModel
from .model_threads import ModelThreads

_SEARCHES_PER_SECOND = 10
_CUT_OFF_TOLERANCE = 0.01
"""Share of the face's extent by which a landmark may lie outside the source image before the face counts as cut off."""
_JPEG_SETTINGS = (cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


@dataclass(frozen=True)
class _FrameResult:
    number: int
    time: float
    flag: FrameFlag
    landmarks: np.ndarray
    scores: np.ndarray
    pose: np.ndarray


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
    progress: Progress = SILENT,
) -> Capture:
    """Make a capture folder from a video: head crops with mattes, landmarks and flags.

    `start` and `end` are seconds from the start of the clip, `first_frame` and `last_frame` numbers of its frames,
    counted from 1; `max_frames` counts from the first chosen frame. An existing capture at `folder` is replaced
    together with its track and head mattes. Raises EffigyError if `folder` holds anything else, or if no usable face is
    found.
    """
    video, folder = Path(video), Path(folder)
    _check_request(folder, size, start, end, max_frames)
    if first_frame is not None and last_frame is not None and last_frame < first_frame:
        raise EffigyError(f"The last frame ({last_frame}) lies before the first ({first_frame}).")
    info = probe(video)
    span = {"start": start, "end": end, "first_frame": first_frame, "last_frame": last_frame, "max_frames": max_frames}
    expected_frames = _expected_frames(info, **span)
    sightings, several = _find_head(info, span, expected_frames, progress)
    crop = stable_crop(sightings, info.width, info.height)
    extent = float(np.median([s.extent for s in sightings]))
    intrinsics = guess_intrinsics(crop, size, info.width, info.height, extent)

    with write_beside(folder) as temporary:
        (temporary / "frames").mkdir(parents=True)
        (temporary / "mattes").mkdir()
        with ThreadPoolExecutor(1, "hash") as hasher:
            digest = hasher.submit(hash_file, video)
            results = []
            # The folder may be removed only after the last thread has stopped writing into it.
            with ModelThreads(FaceDetector, MattingModel) as threads:
                cutter = _FrameCutter(temporary, info, crop, size, sightings, several)
                for result in threads.map(cutter.process, cutter.cut(read_frames(video, **span))):
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
            source_name=video.name,
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
        save_capture(capture, _summary(capture, info, flagged))
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


def _find_head(
    info: FootageInfo,
    span: dict[str, Any],
    expected: int,
    progress: Progress,
) -> tuple[list[Sighting], set[int]]:
    """The first pass: the person's position every tenth of a second, and the numbers of frames with several faces."""
    every = max(1, math.floor(info.fps / _SEARCHES_PER_SECOND))
    scale = min(1.0, SEARCH_SIDE / max(info.width, info.height))
    sightings = []
    searched = 0
    frames = read_frames(info.path, **span, every=every, longest_side=SEARCH_SIDE, progress=progress)
    with closing(FaceDetector()) as detector, ModelThreads(FaceDetector) as threads:
        search = HeadSearch(detector)
        for searched, (frame, faces) in enumerate(threads.map(_with_faces, frames), start=1):
            sighting = search.find(frame.number, frame.image, scale, faces)
            if sighting is not None:
                sightings.append(sighting)
            progress.update("finding the head", searched * every, max(expected, searched * every))
            progress.raise_if_cancelled()
    name = info.path.name
    if not searched:
        raise EffigyError(f"No frame of {name} lies in the chosen part: the clip lasts {info.duration:.1f} s.")
    if not sightings:
        raise EffigyError(
            f"No face was found in {name} ({searched} frames were searched): "
            "the person must face the camera, well lit, with a face wider than 6 % of the image."
        )
    crowded = [s.number for s in sightings if s.several]
    if len(crowded) > len(sightings) / 2:
        raise EffigyError(
            f"{name} shows two faces in most of its frames: an avatar shows one person. "
            "Crop the video to that person, or choose a part of the clip by start and end."
        )
    # The result of one searched frame applies to all frames up to the next searched one.
    return sightings, {number + ahead for number in crowded for ahead in range(every)}


def _with_faces(frame: FootageFrame, detector: FaceDetector) -> tuple[FootageFrame, list[Face]]:
    return frame, detector.detect(frame.image)


@dataclass(frozen=True)
class _Square:
    index: int
    number: int
    time: float
    image: np.ndarray
    """(size, size, 3) uint8 RGB, still encoded with the footage's transfer function."""


class _FrameCutter:
    """The second pass: crops decoded frames, runs the detector and the matting model, and writes the files."""

    def __init__(
        self,
        folder: Path,
        info: FootageInfo,
        crop: tuple[float, float, float],
        size: int,
        sightings: list[Sighting],
        several: set[int],
    ) -> None:
        self._folder, self._crop, self._size, self._transfer = folder, crop, size, info.transfer
        self._source_size = np.array([info.width, info.height])
        self._inside = image_mask(crop, size, info.width, info.height).view(np.uint8)
        self._sighting_numbers = np.array([s.number for s in sightings])
        self._sighting_centres = np.array([s.centre for s in sightings])
        self._several = several

    def cut(self, frames: Iterator[FootageFrame]) -> Iterator[_Square]:
        """Crop here, so that the queue to the threads holds small squares and not 4K frames."""
        for index, frame in enumerate(frames):
            yield _Square(index, frame.number, frame.time, cut_square(frame.image, self._crop, self._size))

    def process(self, cut: _Square, detector: FaceDetector, matting: MattingModel) -> _FrameResult:
        """Detect the face and compute the matte of one crop, and write the frame and the matte to their files."""
        square = to_sdr(cut.image, self._transfer)
        faces = detector.detect(square)
        matte = matting.matte(square)
        matte *= self._inside
        frame = cv2.cvtColor(square, cv2.COLOR_RGB2BGR)
        _write(self._folder / "frames" / f"{cut.index:06d}{FRAME_SUFFIX}", frame, _JPEG_SETTINGS)
        _write(self._folder / "mattes" / f"{cut.index:06d}.png", matte, PNG_FAST)
        if not faces:
            landmarks, pose = (np.full(shape, np.nan, np.float32) for shape in ((LANDMARK_COUNT, 3), (4, 4)))
            scores = np.zeros(len(SCORE_NAMES), np.float32)
            return _FrameResult(cut.number, cut.time, FrameFlag.NO_FACE, landmarks, scores, pose)
        scale = self._size / self._crop[2]
        centre = [np.interp(cut.number, self._sighting_numbers, self._sighting_centres[:, axis]) for axis in (0, 1)]
        person, several = choose_face(faces, (np.array(centre) - self._crop[:2]) * scale)
        flag = FrameFlag.GOOD
        if several or cut.number in self._several:
            flag |= FrameFlag.SEVERAL_FACES
        in_source = person.landmarks[:, :2] / scale + self._crop[:2]
        tolerance = _CUT_OFF_TOLERANCE * person.extent / scale
        if (in_source < -tolerance).any() or (in_source > self._source_size + tolerance).any():
            flag |= FrameFlag.CUT_OFF
        return _FrameResult(cut.number, cut.time, flag, person.landmarks, person.scores, person.pose)


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


def _summary(capture: Capture, info: FootageInfo, flagged: list[str]) -> dict[str, object]:
    counts = {"good": int((capture.flags == 0).sum())}
    counts |= {
        str(flag.name).lower(): int(((capture.flags & flag) != 0).sum())
        for flag in FLAG_REASONS
        if flag != FrameFlag.TRACK_UNSURE
    }
    return {"source_size": [info.width, info.height], "counts": counts, "flagged": flagged}


def _write(path: Path, image: np.ndarray, settings: tuple[int, ...]) -> None:
    # Not cv2.imwrite: it reports a full disk by returning False.
    path.write_bytes(cv2.imencode(path.suffix, image, settings)[1].tobytes())
