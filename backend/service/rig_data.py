"""The worker's answers from which Blender builds a rig: a head model as arrays, a track, and a capture's footage.

The rig in Blender computes the same sum as `backend.head.forward`: identity and expression deltas and pose correctives
are added to the template, and the sum is skinned to five joints. Nothing is converted here: everything is in head
space, metres and axis-angle.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.capture import load_capture, read_summary
from ..formats.frame_times import in_order
from ..formats.track import load_track
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import JOINT_NAMES, PARENTS, HeadModel
from ..head.registry import find_head, load_users_head, remember_head
from ..progress import Progress
from .parameters import Parameters

CAPTURE_FIELDS: Final = (
    "source_name",
    "source_sha256",
    "size",
    "fps",
    "crop",
    "intrinsics",
    "frame_numbers",
    "frame_times",
    "landmarks",
    "flags",
)
"""The fields of a `Capture` that `capture.read` answers."""


@dataclass(frozen=True)
class HeadReference:
    """What identifies a head model."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class HeadRig:
    """The answer to `head.rig`: what a rig is built from.

    N vertices, F triangles, S identity and E expression components, P pose correctives that are not zero, K ARKit
    channels. A posed vertex is

        skinning of (vertices + sum_e expression_e expression_deltas_e + sum_p r_p pose_corrective_deltas_p)

    where r is the entries `pose_corrective_index` of the 36 entries of R - I of neck, jaw, eye_L and eye_R, row-major.
    """

    head: HeadReference
    vertices: np.ndarray
    """(N, 3) float32 metres: `identity` without expression."""
    faces: np.ndarray
    """(F, 3)"""
    uv: np.ndarray
    uv_faces: np.ndarray
    expression_names: tuple[str, ...]
    expression_deltas: np.ndarray
    """(E, N, 3) metres for a coefficient of 1."""
    expression_range: np.ndarray
    """(E, 2) float32: the range that a slider offers."""
    identity_deltas: np.ndarray
    """(S, N, 3) metres for a coefficient of 1."""
    identity: np.ndarray
    """(S,) float32"""
    pose_corrective_deltas: np.ndarray
    """(P, N, 3) metres"""
    pose_corrective_index: np.ndarray
    """(P,) int32, in [0, 36)"""
    joints: np.ndarray
    """(5, 3) float32 metres: of `identity` without expression."""
    joint_identity: np.ndarray
    """(S, 5, 3) metres by which an identity coefficient of 1 moves the joints."""
    joint_names: tuple[str, ...]
    joint_parents: tuple[int, ...]
    skinning: np.ndarray
    """(N, 5) weights"""
    regions: dict[str, Any]
    messages: tuple[str, ...]
    """Sentences about what the head's file lacks."""
    jaw_of_shapes: dict[str, np.ndarray]
    """Name of each of jawOpen, jawLeft and jawRight -> (3,) axis-angle by which a coefficient of 1 rotates the jaw
    joint (see `posing.read_pose`)."""
    arkit_names: tuple[str, ...]
    """The ARKit channels of a head that has expressions under other names; empty where the head has ARKit's names or
    where the channels cannot be derived (`backend.correspondence.arkit`)."""
    arkit_deltas: np.ndarray
    """(K, N, 3) metres: each channel as one delta."""
    arkit_expression: np.ndarray
    """(K, E): each channel as coefficients of the head's own expressions."""
    arkit_jaw: np.ndarray
    """(K, 3): the jaw joint's rotation of each channel, axis-angle."""


def read_head(parameters: Parameters) -> tuple[HeadModel, tuple[str, ...]]:
    """The head model that the parameter `head` names, and sentences about what its file lacks.

    `head` is `{file: path}`, with `expression_count` where the file does not say how its components are split,
    `{file: null}` for the open head, or `{name, fingerprint}` of a model that was opened on this machine before: a file
    that was opened once is found again by its fingerprint.
    """
    head = parameters.group("head") if parameters.has("head") else Parameters({}, parameters.context)
    head.allow_only("file", "name", "fingerprint", "expression_count")
    if head.has("fingerprint"):
        return find_head(head.text("name", "unnamed"), head.text("fingerprint"), "The rig"), ()
    path = head.path("file", None)
    return _load_head(path, _modification_time(path), head.integer("expression_count", None, 0))


def remember_file(parameters: Parameters) -> HeadReference:
    """The method `head.remember`: reads the head model in `file`, so that tracks and avatars that need it find it."""
    parameters.allow_only("file", "expression_count")
    path = parameters.path("file")
    model, _ = _load_head(path, _modification_time(path), parameters.integer("expression_count", None, 0))
    return HeadReference(model.name, model.fingerprint)


@lru_cache(maxsize=3)
def _load_head(
    path: Path | None, modification_time: int, expression_count: int | None = None
) -> tuple[HeadModel, tuple[str, ...]]:
    """`modification_time` is part of the cache's key, so that a changed file is read again."""
    progress = _MessageList()
    model, expression_count = load_users_head(path, progress, expression_count)
    if path is not None:
        # A rig can be built even where the user's data folder cannot be written.
        with suppress(EffigyError):
            remember_head(model, path, expression_count)
    return model, tuple(progress.messages)


class _MessageList(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def _modification_time(path: Path | None) -> int:
    """Nanoseconds; 0 for the open head and for a missing file."""
    return path.stat().st_mtime_ns if path is not None and path.is_file() else 0


def head_rig(parameters: Parameters) -> HeadRig:
    """The method `head.rig`; `identity` (S,) is zero by default."""
    parameters.allow_only("head", "identity")
    model, messages = read_head(parameters)
    identity_count = model.shape_basis.shape[2]
    identity = parameters.array("identity", (identity_count,), np.zeros(identity_count))
    vertices = model.template + model.shape_basis @ identity
    regressor = model.joint_regressor.astype(np.float64)
    correctives = np.flatnonzero(np.any(model.pose_basis, (0, 1)))
    joint_identity = np.einsum("jn,ncs->sjc", regressor, model.shape_basis)
    jaw = jaw_rotations_of_shapes(model)
    arkit, problems = _arkit_channels(model)
    return HeadRig(
        head=HeadReference(model.name, model.fingerprint),
        vertices=vertices.astype(np.float32),
        faces=model.faces,
        uv=model.uv,
        uv_faces=model.uv_faces,
        expression_names=model.expression_names,
        expression_deltas=model.expression_basis.transpose(2, 0, 1),
        expression_range=np.tile(np.array(model.expression_range, np.float32), (len(model.expression_names), 1)),
        identity_deltas=model.shape_basis.transpose(2, 0, 1),
        identity=identity.astype(np.float32),
        pose_corrective_deltas=model.pose_basis.transpose(2, 0, 1)[correctives],
        pose_corrective_index=correctives.astype(np.int32),
        joints=(regressor @ model.template + np.einsum("sjc,s->jc", joint_identity, identity)).astype(np.float32),
        joint_identity=joint_identity.astype(np.float32),
        joint_names=JOINT_NAMES,
        joint_parents=PARENTS,
        skinning=model.skinning,
        regions=model.regions,
        messages=(*messages, *problems),
        jaw_of_shapes={name: jaw[name].astype(np.float32) for name in JAW_SHAPES},
        arkit_names=arkit.names,
        arkit_deltas=arkit.deltas,
        arkit_expression=arkit.expression,
        arkit_jaw=arkit.jaw,
    )


@dataclass(frozen=True)
class _ArkitChannels:
    """K channels; see the fields of `HeadRig`."""

    names: tuple[str, ...]
    deltas: np.ndarray
    expression: np.ndarray
    jaw: np.ndarray


def _arkit_channels(model: HeadModel) -> tuple[_ArkitChannels, Sequence[str]]:
    """The head's ARKit channels, and a sentence where they cannot be derived."""
    vertex_count, expression_count = len(model.template), len(model.expression_names)
    none = _ArkitChannels(
        (),
        np.zeros((0, vertex_count, 3), np.float32),
        np.zeros((0, expression_count), np.float32),
        np.zeros((0, 3), np.float32),
    )
    if not expression_count or set(model.expression_names) & set(SCORE_NAMES):
        return none, ()
    # Imported here because it imports PyTorch, for which the usual head need not wait.
    from ..correspondence.arkit import ARKIT_NAMES, arkit_map, shapes_of

    try:
        mapping = arkit_map(model)
        channels = _ArkitChannels(
            ARKIT_NAMES,
            shapes_of(model, mapping).astype(np.float32),
            mapping.expression.astype(np.float32),
            mapping.jaw.astype(np.float32),
        )
    except EffigyError as error:
        return none, (str(error),)
    return channels, ()


def read_track(parameters: Parameters) -> dict[str, Any]:
    """The method `track.read`: the fields of a `Track` that are not None, its number of frames, and their times.

    A track of earlier versions holds no times; if it lies in a capture, they are the capture's.
    """
    parameters.allow_only("path")
    path = parameters.path("path")
    track = load_track(path)
    if track.frame_times is None and (path.parent / "capture.json").is_file():
        with suppress(EffigyError):
            capture = load_capture(path.parent)
            if capture.frame_count == track.frame_count:
                track = replace(track, frame_times=in_order(capture.frame_times))
    known = {name: value for name, value in vars(track).items() if value is not None}
    return known | {"frame_count": track.frame_count, "times": track.times}


def read_capture(parameters: Parameters) -> dict[str, Any]:
    """The method `capture.read`: what a camera and a background movie need to know of a capture, landmarks in crop
    pixels.
    """
    parameters.allow_only("path")
    capture = load_capture(parameters.path("path"))
    summary = read_summary(capture.folder)
    return {name: getattr(capture, name) for name in CAPTURE_FIELDS} | {
        "frame_count": capture.frame_count,
        "training_count": capture.training_count,
        "summary": summary,
    }
