"""The Track format: one identity and focal length for a clip, and expression, joint rotations and head pose per frame.

On disk a track is one `.npz` without pickles: an array for each field, `schema`, and the head model's name and
fingerprint, because the coefficients mean nothing on another head model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..errors import EffigyError
from ..head.model import HeadModel
from ..storage import check_schema, write_beside

SCHEMA = 1


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

    @property
    def frame_count(self) -> int:
        return len(self.expression)

    def posed(self, **fields: object) -> Track:
        """A copy with these fields replaced and without standard deviations, which hold for the fitted poses only."""
        return replace(self, sigma=None, **fields)


_ARRAYS = ("identity", "expression", "rotations", "head_to_camera", "intrinsics", "residual", "flags")


def save_track(track: Track, path: Path) -> None:
    with write_beside(Path(path)) as temporary, open(temporary, "wb") as file:
        arrays: dict[str, Any] = {name: getattr(track, name) for name in _ARRAYS}
        if track.sigma is not None:
            arrays["sigma"] = track.sigma
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
    if not path.is_file():
        raise EffigyError(f"There is no track at {path}: make it with `python -m backend track`.")
    damaged = f"The track {path} is damaged (%s): track the capture again."
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = {name: archive[name] for name in archive.files}
        schema = int(values["schema"])
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
        raise EffigyError(damaged % "it cannot be read") from error
    check_schema(schema, SCHEMA, f"The track {path}")
    missing = {field.name for field in fields(Track)} - {"sigma"} - values.keys()
    if missing:
        raise EffigyError(damaged % f"it lacks {', '.join(sorted(missing))}")
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
    }
    for name, shape in shapes.items():
        if name in values and values[name].shape != shape:
            raise EffigyError(damaged % f"{name} does not fit its {frames} frames")
    try:
        track = Track(
            head_name=str(values["head_name"]),
            head_fingerprint=str(values["head_fingerprint"]),
            size=int(values["size"]),
            fps=Fraction(*(int(part) for part in values["fps"])),
            training_count=int(values["training_count"]),
            **{name: values[name].astype(np.int32 if name == "flags" else np.float32) for name in _ARRAYS},
            sigma=values["sigma"].astype(np.float32) if "sigma" in values else None,
        )
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise EffigyError(damaged % "its settings cannot be read") from error
    if model is not None and track.head_fingerprint != model.fingerprint:
        raise EffigyError(
            f'The track {path} was made on the head model "{track.head_name}" ({track.head_fingerprint}), not on '
            f'"{model.name}" ({model.fingerprint}): choose that head model, or track the capture again.'
        )
    return track
