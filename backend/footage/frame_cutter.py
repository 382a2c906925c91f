"""The second pass over footage: each frame cropped to the head, with its matte and landmarks, written to its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..formats.capture import FRAME_SUFFIX, PNG_FAST, FrameFlag
from ..head.model import LANDMARK_COUNT
from .crop import choose_face, cut_square, image_mask
from .decode import FootageFrame
from .detector import SCORE_NAMES, FaceDetector
from .face_view import FaceView, view_of
from .hdr import to_sdr
from .head_search import Found
from .matte import MattingModel

_JPEG_SETTINGS = (cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)


@dataclass(frozen=True)
class FrameResult:
    number: int
    time: float
    flag: FrameFlag
    landmarks: np.ndarray
    scores: np.ndarray
    pose: np.ndarray
    view: FaceView | None


@dataclass(frozen=True)
class Square:
    index: int
    number: int
    time: float
    image: np.ndarray
    """(size, size, 3) uint8 RGB, still encoded with the footage's transfer function."""


class FrameCutter:
    """Crops decoded frames, runs the detector and the matting model, and writes the files."""

    def __init__(self, folder: Path, found: Found, crop: tuple[float, float, float], size: int) -> None:
        self._folder, self._crop, self._size, self._transfer = folder, crop, size, found.info.transfer
        self._area, self._several = found.area, found.crowded
        corner = found.area.corner
        shifted = crop[0] - corner[0], crop[1] - corner[1], crop[2]
        self._inside = image_mask(shifted, size, found.area.width, found.area.height).view(np.uint8)
        self._sighting_numbers = np.array([s.number for s in found.sightings])
        self._sighting_centres = np.array([s.centre for s in found.sightings])

    def cut(self, frames: Iterator[FootageFrame]) -> Iterator[Square]:
        """Crop here, so that the queue to the threads holds small squares and not 4K frames."""
        for index, frame in enumerate(frames):
            yield Square(index, frame.number, frame.time, cut_square(frame.image, self._crop, self._size))

    def process(self, cut: Square, detector: FaceDetector, matting: MattingModel) -> FrameResult:
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
            return FrameResult(cut.number, cut.time, FrameFlag.NO_FACE, landmarks, scores, pose, None)
        scale = self._size / self._crop[2]
        centre = [np.interp(cut.number, self._sighting_numbers, self._sighting_centres[:, axis]) for axis in (0, 1)]
        person, several = choose_face(faces, (np.array(centre) - self._crop[:2]) * scale)
        flag = FrameFlag.GOOD
        if several or cut.number in self._several:
            flag |= FrameFlag.SEVERAL_FACES
        view = view_of(person, square, matte, self._crop, self._area)
        if view.cuts_face:
            flag |= FrameFlag.CUT_OFF
        return FrameResult(cut.number, cut.time, flag, person.landmarks, person.scores, person.pose, view)


def _write(path: Path, image: np.ndarray, settings: tuple[int, ...]) -> None:
    # Not cv2.imwrite: it reports a full disk by returning False.
    path.write_bytes(cv2.imencode(path.suffix, image, settings)[1].tobytes())
