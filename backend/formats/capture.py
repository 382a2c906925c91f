"""The Capture format: footage prepared for tracking.

A capture holds the frames, cropped to the head by one square for the whole clip and scaled to `size`, the person's
mattes, the detector's landmarks and blendshape scores, a guess of the camera's intrinsics, and the footage's name and
hash, in one folder:

    clip.capture/capture.json           source, size, frame rate, crop, intrinsics, and a summary for people
                 landmarks.npz          landmarks, scores, detector_pose, flags, frame_numbers, frame_times
                 frames/%06d.jpg        RGB, size x size
                 mattes/%06d.png        grey: 255 = the person
                 head_mattes/%06d.png   written by tracking: the matte without the body below the neck
                 body_mattes/%06d.png   written by tracking: that body
                 track.npz              written by tracking

Frames are JPEG of quality 98 with full colour resolution: a PSNR of 49 dB or more to the cropped image, far below the
noise of any footage, at a third of PNG's bytes and a fifth of its time. Captures of format 1 hold frames as PNG. Mattes
are always PNG.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntFlag
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from ..array_files import read_arrays
from ..errors import EffigyError
from ..head.model import LANDMARK_COUNT
from ..reading import Damaged, Unlike, frame_rate_of, names_in, read_json, reading, shown
from ..storage import check_schema, recover
from .image_reading import read_image

SCHEMA = 2
FRAME_SUFFIX = ".jpg"
"""Of the frames of a new capture."""
PNG_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE)
"""OpenCV's settings for mattes: of all settings, mattes are written and read in the shortest time with these, because
most of their area is constant."""
REMEDY: Final = "make the capture again from the video"
MOST_FRAMES: Final = 300_000
"""Frames of a capture: more than an hour at 60 frames a second, of which each takes 6 kB of memory."""
MOST_BYTES: Final = 2 * 2**30
"""Of landmarks.npz: MOST_FRAMES frames."""
LARGEST_SIZE: Final = 4096
"""Side of the frames, pixels."""
MOST_NAME: Final = 1000
"""Characters of the source's name; no file system has longer names."""
MOST_FINDINGS: Final = 1000
"""Characters of the line about what a capture shows; the longest that is written has 600."""
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
_KINDS: dict[str, type[np.number]] = {"flags": np.int32, "frame_numbers": np.int64, "frame_times": np.float64}
"""Types of the arrays that are not float32."""


class FrameFlag(IntFlag):
    """Reasons for which a frame is left out of training; zero means that the frame is good."""

    GOOD = 0
    NO_FACE = 1
    SEVERAL_FACES = 2
    CUT_OFF = 4
    TRACK_UNSURE = 8
    """Set by the tracker: the fitted head does not match this frame's landmarks."""


FLAG_REASONS = {
    FrameFlag.NO_FACE: "no face",
    FrameFlag.SEVERAL_FACES: "several faces",
    FrameFlag.CUT_OFF: "face cut off by the edge of the image",
    FrameFlag.TRACK_UNSURE: "landmarks not matched by the head",
}


def reasons_for(flags: int) -> str:
    """Why a frame with these flags is left out, in words; empty for a good frame."""
    return ", ".join(word for flag, word in FLAG_REASONS.items() if flags & flag)


@dataclass(frozen=True)
class Capture:
    """F frames of one clip. Images are read from disk one at a time, so that a long clip does not fill memory."""

    folder: Path
    source_name: str
    source_sha256: str
    size: int
    """Side of the square frames, pixels."""
    fps: Fraction
    crop: tuple[float, float, float]
    """x, y of the crop's top-left corner and its side, in pixels of the upright (rotated) source; the crop may reach
    beyond the source's edges."""
    intrinsics: np.ndarray
    """(3, 3) guess in crop pixels, centre of the top-left pixel at (0.5, 0.5); the principal point is the centre of the
    source image."""
    frame_numbers: np.ndarray
    """(F,) int64: index in the decoded source."""
    frame_times: np.ndarray
    """(F,) float64: seconds since the start of the footage, from its time stamps. Frames are addressed by index; where
    the frame rate varies, these times and not the indices say when a frame is shown."""
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
    seen: dict[str, tuple[int, int]] = field(default_factory=dict, repr=False, compare=False)
    """The folders on the disk from which its files were read, by path: device and number (`unchanged`)."""

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

    def body_matte_path(self, index: int) -> Path:
        return self.folder / "body_mattes" / f"{index:06d}.png"


def save_capture(capture: Capture, summary: dict[str, object] | None = None) -> None:
    """Write capture.json and landmarks.npz into `capture.folder`, which exists; `summary` is added to capture.json for
    people to read.
    """
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
    """Read a capture folder, without its images. Raises `EffigyError` where it is missing, damaged or of a newer
    format.
    """
    folder, seen = Path(folder), {}
    recover(folder)
    with _from_one_folder(folder, "", seen):
        return _load_capture(folder, seen)


def _load_capture(folder: Path, seen: dict[str, tuple[int, int]]) -> Capture:
    with reading(folder, "capture", REMEDY, missing=f"make it with `python -m backend capture VIDEO {folder}`"):
        if stat.S_ISDIR(folder.stat().st_mode) and "capture.json" not in names_in(folder):
            raise Unlike("it holds no capture.json")
        info = _read_info(folder)
        schema = int(info["schema"])
        check_schema(schema, SCHEMA, f"The capture {folder}")
        if "landmarks.npz" not in names_in(folder):
            raise Damaged("landmarks.npz is missing")
        try:
            capture, frame_count = _from_parts(folder, info, schema, seen), int(info["frame_count"])
        except (EffigyError, Damaged, OSError):
            raise
        except Exception as error:
            raise Damaged("its landmarks or settings cannot be read") from error
        for name, shape in _ARRAYS.items():
            if getattr(capture, name).shape != (frame_count, *shape):
                raise Damaged(f"{name} does not fit its {frame_count} frames")
        if not np.isfinite(capture.frame_times).all():
            raise Damaged("frame_times holds numbers that are not finite")
    return capture


def _read_info(folder: Path) -> dict[str, Any]:
    """capture.json. Call it within `reading`."""
    try:
        info = read_json(folder / "capture.json", "capture", REMEDY)
        int(info["schema"])
    except (Damaged, ValueError, KeyError, TypeError, OverflowError) as error:
        raise Damaged("capture.json cannot be read") from error
    return info


def read_summary(folder: Path) -> dict[str, Any]:
    """Everything in capture.json, the counts and the sentences for people among it."""
    with reading(folder, "capture", REMEDY):
        return _read_info(folder)


def findings_in(folder: Path) -> str:
    """What the capture shows, in one line for people (`footage.findings`); empty for captures of earlier versions."""
    findings = read_summary(folder).get("findings", "")
    return shown(findings, MOST_FINDINGS) if isinstance(findings, str) else ""


def _from_parts(folder: Path, info: dict[str, Any], schema: int, seen: dict[str, tuple[int, int]]) -> Capture:
    arrays = read_arrays(folder / "landmarks.npz", "capture", REMEDY, MOST_BYTES, _ARRAYS.keys())
    capture = Capture(
        folder=folder,
        source_name=str(info["source"]["name"])[:MOST_NAME],
        source_sha256=str(info["source"]["sha256"])[:MOST_NAME],
        size=int(info["size"]),
        fps=frame_rate_of(info["fps"]),
        crop=_three_numbers(info["crop"]),
        intrinsics=np.array(info["intrinsics"], np.float64).reshape(3, 3),
        # Captures of format 1 had PNG frames only.
        frame_suffix=info["frame_suffix"] if schema > 1 else ".png",
        seen=seen,
        **{name: _as_kind_of(_KINDS.get(name, np.float32), arrays[name]) for name in _ARRAYS},
    )
    if capture.frame_suffix not in _FRAME_SUFFIXES or not 1 <= capture.size <= LARGEST_SIZE or not capture.frame_count:
        raise ValueError("suffix, size or count")
    if not (np.isfinite(capture.intrinsics).all() and capture.intrinsics[0, 0] > 0 and capture.intrinsics[1, 1] > 0):
        raise ValueError("intrinsics")
    return capture


def _as_kind_of(kind: type[np.number], values: np.ndarray) -> np.ndarray:
    """The values as numbers of this type, if they are of its kind: a float is no count, and text no number."""
    if not np.can_cast(values.dtype, kind, "same_kind"):
        raise ValueError(f"{values.dtype} is no {kind.__name__}")
    return values.astype(kind, copy=False)


def _three_numbers(values: list[float]) -> tuple[float, float, float]:
    x, y, side = map(float, values)
    if not (np.isfinite((x, y, side)).all() and side > 0):
        raise ValueError("crop")
    return x, y, side


def read_frame(capture: Capture, index: int, size: int | None = None) -> np.ndarray:
    """(size, size, 3) uint8 RGB; `size` defaults to the capture's own."""
    with unchanged(capture):
        return _read_image(capture.frame_path(index), cv2.IMREAD_COLOR_RGB, size or capture.size)


def read_matte(capture: Capture, index: int, size: int | None = None) -> np.ndarray:
    """(size, size) uint8: 255 = the person."""
    with unchanged(capture):
        return _read_image(capture.matte_path(index), cv2.IMREAD_GRAYSCALE, size or capture.size)


def read_head_matte(capture: Capture, index: int, size: int | None = None) -> np.ndarray:
    """(size, size) uint8: 255 = the person's head and neck. Head mattes are written by tracking."""
    return _read_tracked_matte(capture, capture.head_matte_path(index), size)


def read_body_matte(capture: Capture, index: int, size: int | None = None) -> np.ndarray:
    """(size, size) uint8: 255 = the person's body below the neck; with the head matte it adds up to the person. Body
    mattes are written by tracking.
    """
    return _read_tracked_matte(capture, capture.body_matte_path(index), size)


def _read_tracked_matte(capture: Capture, path: Path, size: int | None) -> np.ndarray:
    with unchanged(capture), unchanged(capture, path.parent.name):
        missing = f"track the capture first, with `python -m backend track {capture.folder}`"
        return _read_image(path, cv2.IMREAD_GRAYSCALE, size or capture.size, missing)


@contextmanager
def unchanged(capture: Capture, part: str = "") -> Iterator[None]:
    """Read files of a capture, or of its folder `part`. Raises an `EffigyError` if it is not the folder that was read
    before, because the capture was made or tracked again meanwhile: frames of both would be mixed.
    """
    with _from_one_folder(capture.folder / part, part, capture.seen):
        yield


@contextmanager
def _from_one_folder(folder: Path, part: str, seen: dict[str, tuple[int, int]]) -> Iterator[None]:
    # By its path, because a copy of the object may stand for a copy of the folder.
    first = seen.setdefault(str(folder), _identity(folder))
    failure = None
    try:
        yield
    except EffigyError as error:
        # Perhaps because the files were just removed.
        failure = error
    if _identity(folder) != first:
        what = "tracked" if part else "made"
        place = folder.parent if part else folder
        raise EffigyError(f"The capture {place} was {what} again while it was being read: start again.") from failure
    if failure:
        raise failure


def _identity(folder: Path) -> tuple[int, int]:
    """Tells a folder from another one that took its place."""
    try:
        status = folder.stat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def _read_image(path: Path, mode: int, size: int, missing: str = REMEDY) -> np.ndarray:
    with reading(path, "image", REMEDY, missing=missing):
        image = read_image(path, mode, REMEDY, LARGEST_SIZE**2)
        if image.shape[0] != image.shape[1]:
            raise Damaged("it is not square")
    if image.shape[0] == size:
        return image
    shrinks = size < image.shape[0]
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
