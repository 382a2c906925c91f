"""The worker's descriptions of a head model (`head.rig`) and of a track (`track.read`), checked once and frozen.

All arrays are in head space (see `conventions`), in metres and radians.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np

from ..errors import EffigyError

JOINT_NAMES: Final = ("root", "neck", "jaw", "eye_L", "eye_R")
PARENTS: Final = (-1, 0, 1, 1, 1)


@dataclass(frozen=True)
class RigData:
    """A head model with one person's identity. V vertices, F triangles, S identity and E expression components."""

    head_name: str
    head_fingerprint: str
    identity: np.ndarray
    """(S,) coefficients of the person."""
    vertices: np.ndarray
    """(V, 3) the person's vertices at rest."""
    faces: np.ndarray
    """(F, 3)"""
    uv: np.ndarray
    """(T, 2)"""
    uv_faces: np.ndarray
    """(F, 3) indices into `uv`."""
    expression_names: tuple[str, ...]
    expression_deltas: np.ndarray
    """(E, V, 3) metres per unit of the coefficient."""
    expression_range: np.ndarray
    """(E, 2) lower and upper limit of the sliders."""
    identity_deltas: np.ndarray
    """(S, V, 3) metres per unit of the coefficient."""
    corrective_index: np.ndarray
    """(P,) indices into the 36 entries of R - I of neck, jaw, eye_L and eye_R, row-major: which entry scales a pose
    corrective."""
    corrective_deltas: np.ndarray
    """(P, V, 3)"""
    joints: np.ndarray
    """(5, 3) the person's joints at rest."""
    joint_identity: np.ndarray
    """(S, 5, 3) movement of the joints per unit of an identity coefficient."""
    skinning: np.ndarray
    """(V, 5) weights."""
    arkit_names: tuple[str, ...]
    """K names of ARKit's channels, for a head whose own expressions have no names that an artist knows; otherwise
    empty."""
    arkit_deltas: np.ndarray
    """(K, V, 3) metres per unit."""
    arkit_expression: np.ndarray
    """(K, E) coefficients of the head's own expressions that each channel stands for."""
    arkit_jaw: np.ndarray
    """(K, 3) axis-angle by which each channel rotates the jaw."""
    regions: dict[str, np.ndarray]
    """Vertex indices by the region's name."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> RigData:
        """From the worker's answer to `head.rig`. Raises an `EffigyError` if the answer is incomplete or
        inconsistent.
        """
        try:
            head, names = answer["head"], tuple(str(name) for name in answer["expression_names"])
            deltas = _floats(answer["pose_corrective_deltas"])
            index = answer.get("pose_corrective_index")
            index = np.arange(len(deltas)) if index is None else np.asarray(index, np.int64)
            data = cls(
                head_name=str(head["name"]),
                head_fingerprint=str(head["fingerprint"]),
                expression_names=names,
                arkit_names=tuple(str(name) for name in answer["arkit_names"]),
                corrective_index=index,
                corrective_deltas=deltas,
                faces=np.asarray(answer["faces"], np.int32),
                uv_faces=np.asarray(answer["uv_faces"], np.int32),
                regions={str(name): np.asarray(vertices, np.int32) for name, vertices in answer["regions"].items()},
                **{name: _floats(answer[name]) for name in _FLOATS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EffigyError(
                f"The backend sent a head model that this version of Effigy cannot read ({error}): "
                "install the backend again in Effigy's preferences."
            ) from error
        vertices, expressions, identities = len(data.vertices), len(names), len(data.identity)
        _check_shapes(
            data,
            "head model",
            {
                "vertices": (vertices, 3),
                "expression_deltas": (expressions, vertices, 3),
                "joints": (5, 3),
                "expression_range": (expressions, 2),
                "identity_deltas": (identities, vertices, 3),
                "corrective_deltas": (len(index), vertices, 3),
                "joint_identity": (identities, 5, 3),
                "skinning": (vertices, 5),
                "uv_faces": data.faces.shape,
                "arkit_deltas": (len(data.arkit_names), vertices, 3),
                "arkit_jaw": (len(data.arkit_names), 3),
                "arkit_expression": (len(data.arkit_names), expressions),
            },
        )
        return data


_FLOATS: Final = (
    "identity",
    "vertices",
    "uv",
    "expression_deltas",
    "expression_range",
    "identity_deltas",
    "joints",
    "joint_identity",
    "skinning",
    "arkit_deltas",
    "arkit_expression",
    "arkit_jaw",
)


@dataclass(frozen=True)
class TrackData:
    """A performance of F frames."""

    head_name: str
    head_fingerprint: str
    identity: np.ndarray
    """(S,)"""
    expression: np.ndarray
    """(F, E)"""
    rotations: np.ndarray
    """(F, 5, 3) axis-angle of the five joints; the root's is zero."""
    head_to_camera: np.ndarray
    """(F, 4, 4) from head space to OpenCV camera axes."""
    intrinsics: np.ndarray
    """(3, 3) in pixels of a `size` x `size` image, the centre of the top-left pixel at (0.5, 0.5)."""
    size: int
    fps: Fraction
    flags: np.ndarray
    """(F,) zero for a frame without problems."""
    times: np.ndarray
    """(F,) float64: seconds since the first frame, unevenly spaced where the footage's frame rate varies."""
    film_time: float
    """Seconds from the start of the film to the first frame."""
    residual: np.ndarray | None = None
    """(F,) median distance of the landmarks from the tracked head, pixels of the capture; NaN where there is no face.
    None in a track that does not hold it."""
    torso_to_camera: np.ndarray | None = None
    """(F, 4, 4) from the torso's rest in head space to OpenCV camera axes; None where the footage shows no
    shoulders."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> TrackData:
        """From the worker's answer to `track.read`. Raises an `EffigyError` if the answer is incomplete or
        inconsistent.
        """
        try:
            data = cls(
                head_name=str(answer["head_name"]),
                head_fingerprint=str(answer["head_fingerprint"]),
                identity=_floats(answer["identity"]),
                expression=_floats(answer["expression"]),
                rotations=_floats(answer["rotations"]),
                head_to_camera=_floats(answer["head_to_camera"]),
                intrinsics=_floats(answer["intrinsics"]),
                size=int(answer["size"]),
                fps=Fraction(*(int(part) for part in answer["fps"])),
                flags=np.asarray(answer["flags"], np.int32),
                times=np.asarray(answer["times"], np.float64),
                film_time=float(answer.get("frame_times", (0.0,))[0]),
                **{
                    name: None if answer.get(name) is None else _floats(answer[name])
                    for name in ("residual", "torso_to_camera")
                },
            )
        except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError) as error:
            raise EffigyError(
                f"The backend sent a track that this version of Effigy cannot read ({error}): "
                "install the backend again in Effigy's preferences."
            ) from error
        frames = len(data.expression)
        _check_shapes(
            data,
            "track",
            {
                "rotations": (frames, 5, 3),
                "head_to_camera": (frames, 4, 4),
                "intrinsics": (3, 3),
                "flags": (frames,),
                "times": (frames,),
            }
            | ({} if data.residual is None else {"residual": (frames,)})
            | ({} if data.torso_to_camera is None else {"torso_to_camera": (frames, 4, 4)}),
        )
        return data

    @property
    def frame_count(self) -> int:
        return len(self.expression)

    @property
    def torso(self) -> np.ndarray:
        """(F, 4, 4) float64: the torso's motion in head space, below a root at rest; none where there is no torso."""
        root = self.head_to_camera.astype(np.float64)
        if self.torso_to_camera is None:
            return np.tile(np.eye(4), (len(root), 1, 1))
        return np.linalg.solve(root, self.torso_to_camera.astype(np.float64))

    @property
    def positions(self) -> np.ndarray:
        """(F,) float64: when each frame is shown, in frames at the rate `fps`; 0, 1, 2 … unless the rate varies."""
        positions = self.times * float(self.fps)
        whole = np.round(positions)
        return whole if np.allclose(positions, whole, rtol=0, atol=1e-3) else positions


def _floats(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32)


def _check_shapes(data: RigData | TrackData, what: str, shapes: dict[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        if getattr(data, name).shape != shape:
            raise EffigyError(
                f"The backend's {what} does not fit together: {name} is {getattr(data, name).shape}, not "
                f"{shape}. Install the backend again in Effigy's preferences."
            )
