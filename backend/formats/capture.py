"""A Capture: what the footage becomes before anything is fitted to it.

Frames cropped to the head by one stable square for the whole clip and scaled to `size`, the person's matte, the
detector's landmarks and blendshape scores, a guess of the intrinsics and where it all came from, in one folder:

    clip.capture/capture.json           CaptureInfo
                 landmarks.npz          landmarks, scores, detector_pose, flags, frame_numbers, frame_times
                 frames/%06d.jpg        RGB, size x size
                 mattes/%06d.png        grey: 255 = the person
                 head_mattes/%06d.png   written by tracking: the matte without the body below the neck
                 track.npz              written by tracking

Frames are JPEG of quality 98 with full colour resolution: 49 dB or more from what was cut out, far below the noise of any
footage, a third of PNG's bytes and a fifth of its time. Captures of format 1 hold them as PNG. Mattes are always PNG.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntFlag
from fractions import Fraction
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from ..errors import EffigyError
from ..head.model import LANDMARK_COUNT
from ..storage import check_schema

SCHEMA = 2
FRAME_SUFFIX = ".jpg"
"""Of the frames of a capture that is made now."""
PNG_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
"""For mattes, flat as they are: of all settings the one that is written and read again in the shortest time."""
_FRAME_SUFFIXES = (".jpg", ".png")
HELD_OUT_SHARE = 0.2

_ARRAYS: dict[str, tuple[int, ...]] = {
    "landmarks": (LANDMARK_COUNT, 3),
    "scores": (52,),
    "detector_pose": (4, 4),
    "flags": (),
    "frame_numbers": (),
    "frame_times": (),
}
"""The arrays of landmarks.npz and their shapes after the leading frame axis."""


class FrameFlag(IntFlag):
    """Why a frame is kept out of training; zero means that it is good."""

    GOOD = 0
    NO_FACE = 1
    SEVERAL_FACES = 2
    CUT_OFF = 4
    TRACK_UNSURE = 8
    """Set by the tracker: the rig does not explain this frame's landmarks."""


FLAG_WORDS = {
    FrameFlag.NO_FACE: "no face",
    FrameFlag.SEVERAL_FACES: "several faces",
    FrameFlag.CUT_OFF: "face cut off by the edge of the picture",
    FrameFlag.TRACK_UNSURE: "not explained by the head",
}


def why_left_out(flags: int) -> str:
    """What a frame's flags say, in words; empty for a good frame."""
    return ", ".join(word for flag, word in FLAG_WORDS.items() if flags & flag)


@dataclass(frozen=True)
class Capture:
    """F frames of one clip. Pictures are read one at a time from disk, so that a long clip does not fill memory."""

    folder: Path
    source_name: str
    source_sha256: str
    size: int
    """Side of the square frames, pixels."""
    fps: Fraction
    crop: tuple[float, float, float]
    """x, y of the crop's top-left corner and its side, in pixels of the upright (rotated) source; may reach outside."""
    intrinsics: np.ndarray
    """(3, 3) guess in crop pixels, centre of the top-left pixel at (0.5, 0.5); the principal point is the source's
    centre seen in the crop."""
    frame_numbers: np.ndarray
    """(F,) int64: index in the decoded source."""
    frame_times: np.ndarray
    """(F,) float64 seconds, as the container gives them (variable rate kept); information, never a key."""
    landmarks: np.ndarray
    """(F, 478, 3) float32: x, y in crop pixels, z the detector's relative depth in crop pixels; NaN without a face."""
    scores: np.ndarray
    """(F, 52) float32 in [0, 1]: the detector's blendshape scores in its own order without its `_neutral`, from
    browDownLeft to noseSneerRight, then tongueOut last (always 0); see `backend.footage.detector.SCORE_NAMES`. Zero
    without a face."""
    detector_pose: np.ndarray
    """(F, 4, 4) float32: the detector's own head pose (centimetres, OpenGL camera); NaN without a face."""
    flags: np.ndarray
    """(F,) int32 of FrameFlag."""
    frame_suffix: str = FRAME_SUFFIX

    @property
    def frame_count(self) -> int:
        return len(self.frame_numbers)

    @property
    def training_count(self) -> int:
        """Frames [0, training_count) may be trained on; the rest, the last 20 % in time order, is held out."""
        return self.frame_count - round(self.frame_count * HELD_OUT_SHARE)

    def frame_path(self, index: int) -> Path:
        return self.folder / "frames" / f"{index:06d}{self.frame_suffix}"

    def matte_path(self, index: int) -> Path:
        return self.folder / "mattes" / f"{index:06d}.png"

    def head_matte_path(self, index: int) -> Path:
        return self.folder / "head_mattes" / f"{index:06d}.png"


def save_capture(capture: Capture, summary: dict[str, object] | None = None) -> None:
    """Write capture.json and landmarks.npz into `capture.folder`, which exists; `summary` is for people to read."""
    info = {
        "schema": SCHEMA,
        "source": {"name": capture.source_name, "sha256": capture.source_sha256},
        "size": capture.size,
        "fps": f"{capture.fps.numerator}/{capture.fps.denominator}",
        "crop": list(capture.crop),
        "intrinsics": capture.intrinsics.tolist(),
        "frame_count": capture.frame_count,
        "frame_suffix": capture.frame_suffix,
        **(summary or {}),
    }
    text = json.dumps(info, indent=2, ensure_ascii=False)
    (capture.folder / "capture.json").write_text(text + "\n", encoding="utf-8")
    np.savez(capture.folder / "landmarks.npz", **{name: getattr(capture, name) for name in _ARRAYS})


def load_capture(folder: Path) -> Capture:
    """Read a capture folder, without its pictures; refuses missing, damaged and newer ones with a sentence."""
    folder = Path(folder)
    if not folder.is_dir():
        raise EffigyError(
            f"There is no capture folder {folder}: make it with `python -m backend capture VIDEO {folder}`."
        )
    if not (folder / "capture.json").is_file():
        raise EffigyError(
            f"{folder} is not a capture (it holds no capture.json): make one with `python -m backend capture`."
        )
    damaged = f"The capture {folder} is damaged (%s): make it again from the video."
    try:
        info = json.loads((folder / "capture.json").read_text(encoding="utf-8"))
        schema = int(info["schema"])
    except (ValueError, KeyError, TypeError) as error:
        raise EffigyError(damaged % "capture.json cannot be read") from error
    check_schema(schema, SCHEMA, f"The capture {folder}")
    try:
        with np.load(folder / "landmarks.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
        capture = Capture(
            folder=folder,
            source_name=info["source"]["name"],
            source_sha256=info["source"]["sha256"],
            size=int(info["size"]),
            fps=Fraction(info["fps"]),
            crop=tuple(float(v) for v in info["crop"]),
            intrinsics=np.array(info["intrinsics"], np.float64).reshape(3, 3),
            # Format 1 knew only PNG.
            frame_suffix=info["frame_suffix"] if schema > 1 else ".png",
            **arrays,
        )
        if capture.frame_suffix not in _FRAME_SUFFIXES:
            raise ValueError(capture.frame_suffix)
        frame_count = int(info["frame_count"])
    except FileNotFoundError as error:
        raise EffigyError(damaged % "landmarks.npz is missing") from error
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile, ZeroDivisionError) as error:
        raise EffigyError(damaged % "its landmarks or settings cannot be read") from error
    for name, shape in _ARRAYS.items():
        if getattr(capture, name).shape != (frame_count, *shape):
            raise EffigyError(damaged % f"{name} does not fit its {frame_count} frames")
    return capture


def read_frame(capture: Capture, index: int, size: int | None = None) -> np.ndarray:
    """(size, size, 3) uint8 RGB; `size` defaults to the capture's own."""
    return _read_picture(capture.frame_path(index), cv2.IMREAD_COLOR_RGB, size or capture.size)


def read_matte(capture: Capture, index: int, size: int | None = None) -> np.ndarray:
    """(size, size) uint8: 255 = the person."""
    return _read_picture(capture.matte_path(index), cv2.IMREAD_GRAYSCALE, size or capture.size)


def read_head_matte(capture: Capture, index: int, size: int | None = None) -> np.ndarray:
    """(size, size) uint8: 255 = the person's head and neck. Written by tracking."""
    path = capture.head_matte_path(index)
    if not path.is_file():
        raise EffigyError(
            f"{path} is missing: track the capture first, with `python -m backend track {capture.folder}`."
        )
    return _read_picture(path, cv2.IMREAD_GRAYSCALE, size or capture.size)


def _read_picture(path: Path, mode: int, size: int) -> np.ndarray:
    try:
        # Not cv2.imread: on Windows it cannot open a path outside the system's code page.
        picture = cv2.imdecode(np.fromfile(path, np.uint8), mode)
    except (OSError, cv2.error) as error:
        raise EffigyError(f"The picture {path} cannot be read: make the capture again from the video.") from error
    if picture is None:
        raise EffigyError(f"The picture {path} is damaged: make the capture again from the video.")
    if picture.shape[0] == size:
        return picture
    shrinks = size < picture.shape[0]
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
