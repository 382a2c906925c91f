"""The Track format: one identity and focal length for a clip, and expression, joint rotations and head pose per frame.

On disk a track is one `.npz` without pickles: an array for each field, `schema`, and the head model's name and
fingerprint, because the coefficients mean nothing on another head model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..array_files import read_arrays
from ..errors import EffigyError
from ..head.model import HeadModel, same_coefficients
from ..reading import FASTEST_RATE, SLOWEST_RATE, Damaged, Unlike, reading, shown
from ..storage import check_schema, write_beside
from .frame_times import are_even

SCHEMA = 1
REMEDY: Final = "track the capture again"
MOST_BYTES: Final = 2**30
"""Of a track's file: 300,000 frames with 400 expression components and their standard deviations."""
MOST_NAME: Final = 1000
"""Characters of a head model's name."""
LARGEST_SIZE: Final = 16_384
"""Side of the tracked frames, pixels."""
LONGEST_FILM: Final = 1e6
"""Seconds."""
LARGEST_NUMBER: Final = 1e5
"""Of coefficients, angles, metres and pixels."""


@dataclass(frozen=True)
class Track:
    """F frames, float32. `head_to_camera` transforms the posed mesh (head space, metres) into camera space."""

    head_name: str
    head_fingerprint: str
    identity: np.ndarray
    """(S,)"""
    expression: np.ndarray
    """(F, E) in the head model's own units."""
    rotations: np.ndarray
    """(F, 5, 3) axis-angle of root, neck, jaw, eye_L, eye_R. The root stays zero: its motion is `head_to_camera`."""
    head_to_camera: np.ndarray
    """(F, 4, 4): head space (root) to the OpenCV camera."""
    intrinsics: np.ndarray
    """(3, 3) pixels of a `size` x `size` image."""
    size: int
    """Side of the tracked frames, pixels."""
    fps: Fraction
    residual: np.ndarray
    """(F,) median landmark error, pixels at `size`; NaN where there was no face."""
    flags: np.ndarray
    """(F,) int32 of `backend.formats.capture.FrameFlag`: the capture's flags and the tracker's own."""
    training_count: int
    """Frames [0, training_count) were tracked without any influence of the later, held-out frames; so were the identity
    and the focal length."""
    sigma: np.ndarray | None = None
    """(F, E + 13): standard deviations of the expression (E), the jaw (3), the eyes (left x, y, right x, y), the
    skull's rotation about the camera's axes (3, radians) and its position (3, metres), from the solver's covariances;
    None where they were not computed."""
    frame_times: np.ndarray | None = None
    """(F,) float64: seconds since the start of the footage. None where the frames follow each other at `fps`, as in
    tracks that were written before the times were stored."""
    torso_to_camera: np.ndarray | None = None
    """(F, 4, 4): from the torso's rest, which lies below the head at rest in head space, to the camera. None where the
    footage shows no shoulders, and in tracks of earlier versions; the torso then moves with the root."""

    @property
    def frame_count(self) -> int:
        return len(self.expression)

    @property
    def times(self) -> np.ndarray:
        """(F,) float64: seconds since the first frame."""
        uneven = self.uneven_times
        return np.arange(self.frame_count) / float(self.fps) if uneven is None else uneven

    @property
    def uneven_times(self) -> np.ndarray | None:
        """`times` of a clip whose frame rate varies, otherwise None."""
        if self.frame_times is None or are_even(self.frame_times, self.fps):
            return None
        return self.frame_times - self.frame_times[0]

    def torso_motions(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(B, 4, 4) float32: the motion of the torso from its rest, in head space, in frames (B,)."""
        chosen = np.asarray(indices, np.intp)
        root = self.head_to_camera[chosen].astype(np.float64)
        if self.torso_to_camera is None:
            return np.tile(np.eye(4, dtype=np.float32), (len(root), 1, 1))
        return np.linalg.solve(root, self.torso_to_camera[chosen].astype(np.float64)).astype(np.float32)

    def posed(self, **fields: object) -> Track:
        """A copy with these fields replaced and without standard deviations, which hold for the fitted poses only."""
        return replace(self, sigma=None, **fields)


_ARRAYS = ("identity", "expression", "rotations", "head_to_camera", "intrinsics", "residual", "flags")
_OPTIONAL = ("sigma", "frame_times", "torso_to_camera")


def save_track(track: Track, path: Path) -> None:
    with write_beside(Path(path)) as temporary, open(temporary, "wb") as file:
        arrays: dict[str, Any] = {name: getattr(track, name) for name in _ARRAYS}
        arrays |= {name: getattr(track, name) for name in _OPTIONAL if getattr(track, name) is not None}
        np.savez(
            file,
            schema=np.int64(SCHEMA),
            head_name=np.array(track.head_name),
            size=np.int64(track.size),
            head_fingerprint=np.array(track.head_fingerprint),
            training_count=np.int64(track.training_count),
            fps=np.array((track.fps.numerator, track.fps.denominator), np.int64),
            **arrays,
        )


def load_track(path: Path, model: HeadModel | None = None) -> Track:
    """Read a track. Raises `EffigyError` where it is missing, damaged, of a newer format, or, if `model` is given, made
    on another head model.
    """
    path = Path(path)
    with reading(path, "track", REMEDY, missing="make it with `python -m backend track`"):
        values = read_arrays(path, "track", REMEDY, MOST_BYTES)
        if "schema" not in values:
            raise Unlike(f"it holds {shown(', '.join(values)) or 'nothing'}")
        check_schema(int(values["schema"]), SCHEMA, f"The track {path}")
        missing = {field.name for field in fields(Track)} - set(_OPTIONAL) - values.keys()
        if missing:
            raise Damaged(f"it lacks {', '.join(sorted(missing))}")
        track = _from_arrays(values)
    if model is not None and not same_coefficients(track.head_fingerprint, model.fingerprint):
        raise EffigyError(
            f'The track {path} was made on the head model "{track.head_name}" ({track.head_fingerprint}), not on '
            f'"{model.name}" ({model.fingerprint}): choose that head model, or track the capture again.'
        )
    return track


def _from_arrays(values: dict[str, np.ndarray]) -> Track:
    """The track with these fields. Raises `Damaged` for values that no tracker has written."""
    for name in (*_ARRAYS, *_OPTIONAL):
        kinds = "iu" if name == "flags" else "fiu"
        if name in values and (values[name].dtype.kind not in kinds or values[name].ndim == 0):
            raise Damaged(f"{name} is no array of numbers")
    frames, identities, expressions = len(values["expression"]), values["identity"].size, values["expression"].shape[-1]
    shapes = {
        "identity": (identities,),
        "expression": (frames, expressions),
        "rotations": (frames, 5, 3),
        "head_to_camera": (frames, 4, 4),
        "intrinsics": (3, 3),
        "residual": (frames,),
        "flags": (frames,),
        "sigma": (frames, expressions + 13),
        "frame_times": (frames,),
        "torso_to_camera": (frames, 4, 4),
    }
    for name, shape in shapes.items():
        if name in values and values[name].shape != shape:
            raise Damaged(f"{name} does not fit its {frames} frames")
    try:
        numerator, denominator = (int(part) for part in values["fps"])
        track = Track(
            head_name=str(values["head_name"])[:MOST_NAME],
            head_fingerprint=str(values["head_fingerprint"])[:MOST_NAME],
            size=int(values["size"]),
            fps=Fraction(numerator, denominator),
            training_count=int(values["training_count"]),
            **{name: values[name].astype(np.int32 if name == "flags" else np.float32) for name in _ARRAYS},
            sigma=values["sigma"].astype(np.float32) if "sigma" in values else None,
            frame_times=values["frame_times"].astype(np.float64) if "frame_times" in values else None,
            torso_to_camera=values["torso_to_camera"].astype(np.float32) if "torso_to_camera" in values else None,
        )
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise Damaged("its settings cannot be read") from error
    if frames == 0:
        raise Damaged("it has no frames")
    if not (
        SLOWEST_RATE <= track.fps <= FASTEST_RATE
        and 1 <= track.size <= LARGEST_SIZE
        and 0 <= track.training_count <= frames
    ):
        raise Damaged("its settings cannot be right")
    for name in ("identity", "expression", "rotations", "head_to_camera", "intrinsics", "torso_to_camera"):
        numbers = getattr(track, name)
        if numbers is None:
            continue
        # Without (0, 0) arrays, which have no largest number.
        if not np.isfinite(numbers).all() or np.abs(numbers).max(initial=0) > LARGEST_NUMBER:
            raise Damaged(f"{name} holds numbers that no face has")
    if track.frame_times is not None:
        in_order = (np.diff(track.frame_times) >= 0).all() and track.frame_times[0] >= 0
        if not in_order or not track.frame_times[-1] <= LONGEST_FILM:
            raise Damaged("the times of its frames cannot be right")
    for name, what in (("head_to_camera", "a head"), ("torso_to_camera", "a torso")):
        if (matrices := getattr(track, name)) is not None and not _is_rigid(matrices):
            raise Damaged(f"{name} holds matrices that do not move {what} rigidly")
    if min(track.intrinsics[0, 0], track.intrinsics[1, 1]) <= 0:
        raise Damaged("its camera has no focal length")
    return track


def _is_rigid(matrices: np.ndarray) -> bool:
    """Whether all of (F, 4, 4) rotate and move, and do nothing else."""
    turns = matrices[:, :3, :3].astype(np.float64)
    rotates = np.abs(turns @ turns.transpose(0, 2, 1) - np.eye(3)).max() <= 0.01 and (np.linalg.det(turns) > 0).all()
    return bool(rotates and np.allclose(matrices[:, 3], (0, 0, 0, 1)))
