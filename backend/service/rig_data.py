"""What Blender builds a rig from: a head model as arrays, a track's numbers, and what is known of a capture's footage.

The rig in Blender is the same sum as `backend.head.forward`: identity and expression deltas and pose correctives are
added to the template and skinned to five joints. Nothing is converted here: head space, metres, axis-angle.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.capture import load_capture
from ..formats.track import load_track
from ..head.formats import load_head
from ..head.jaw import JAW_SHAPES, jaw_rotations_of_shapes
from ..head.model import JOINT_NAMES, PARENTS, HeadModel
from ..head.registry import find_head, remember_head
from ..progress import Progress
from .parameters import Parameters


def head_of(parameters: Parameters) -> tuple[HeadModel, list[str]]:
    """The head model that `head` names, and what there is to say of its file.

    `{file: path}`, `{file: null}` for the open head, or `{name, fingerprint}` of one that was used here before: a file
    that was opened once is found again by its fingerprint.
    """
    head = parameters.group("head") if parameters.has("head") else Parameters({}, parameters.of)
    head.known("file", "name", "fingerprint")
    if head.has("fingerprint"):
        return find_head(head.text("name", "unnamed"), head.text("fingerprint"), "The rig"), []
    path = head.path("file", None)
    return _load(path, _stamp(path))


@lru_cache(maxsize=3)
def _load(path: Path | None, stamp: int) -> tuple[HeadModel, list[str]]:
    said = _Listener()
    model = load_head(path, said)
    if path is not None:
        # A rig can be made all the same where the user's data folder cannot be written.
        with suppress(EffigyError):
            remember_head(model, path)
    return model, said.messages


class _Listener(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def _stamp(path: Path | None) -> int:
    """Changes when the file does, so that a model is read again."""
    return path.stat().st_mtime_ns if path is not None and path.is_file() else 0


def head_rig(parameters: Parameters) -> dict[str, Any]:
    """N vertices, F triangles, S identity and E expression components, P pose correctives that are not zero.

    vertices (N, 3) and joints (5, 3), metres, are those of `identity` (S,) without expression. To them are added, per
    unit of a coefficient, expression_deltas (E, N, 3) and pose_corrective_deltas (P, N, 3), the latter by the entries
    pose_corrective_index (P,) of the 36 of R - I of neck, jaw, eye_L and eye_R, row-major; skinning (N, 5) then carries
    the sum to where the joints take it. identity_deltas (S, N, 3) and joint_identity (S, 5, 3) say what another
    identity moves. expression_range (E, 2) is what a slider offers; jaw_of_shapes the axis-angle by which jawOpen,
    jawLeft and jawRight at 1 turn the jaw joint (see `posing.read_pose`); `messages` what the head's file lacks.

    A head without ARKit's names gets them beside its own (`backend.correspondence.arkit`): arkit_deltas (K, N, 3) of the channels
    arkit_names, each the sum arkit_expression (K, E) of the head's expressions and the turn arkit_jaw (K, 3) of its jaw.
    """
    parameters.known("head", "identity")
    model, said = head_of(parameters)
    identities = model.shape_basis.shape[2]
    identity = parameters.array("identity", (identities,), None)
    identity = np.zeros(identities) if identity is None else identity
    vertices = model.template + model.shape_basis @ identity
    regressor = model.joint_regressor.astype(np.float64)
    correctives = np.flatnonzero(np.any(model.pose_basis, (0, 1)))
    joint_identity = np.einsum("jn,ncs->sjc", regressor, model.shape_basis)
    jaw = jaw_rotations_of_shapes(model)
    channels, said = _channels(model, said)
    return {
        "head": {"name": model.name, "fingerprint": model.fingerprint},
        "vertices": vertices.astype(np.float32),
        "faces": model.faces,
        "uv": model.uv,
        "uv_faces": model.uv_faces,
        "expression_names": model.expression_names,
        "expression_deltas": model.expression_basis.transpose(2, 0, 1),
        "expression_range": np.tile(np.float32(model.expression_range), (len(model.expression_names), 1)),
        "identity_deltas": model.shape_basis.transpose(2, 0, 1),
        "identity": identity.astype(np.float32),
        "pose_corrective_deltas": model.pose_basis.transpose(2, 0, 1)[correctives],
        "pose_corrective_index": correctives.astype(np.int32),
        "joints": (regressor @ model.template + np.einsum("sjc,s->jc", joint_identity, identity)).astype(np.float32),
        "joint_identity": joint_identity.astype(np.float32),
        "joint_names": JOINT_NAMES,
        "joint_parents": PARENTS,
        "skinning": model.skinning,
        "regions": model.regions,
        "messages": said,
        "jaw_of_shapes": {name: jaw[name].astype(np.float32) for name in JAW_SHAPES},
    } | channels


def _channels(model: HeadModel, said: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The arrays of ARKit's channels, empty where the head has their names or no face to put them on, and what is said."""
    count, size = len(model.template), len(model.expression_names)
    names, deltas = (), np.zeros((0, count, 3), np.float32)
    expression, jaw = np.zeros((0, size), np.float32), np.zeros((0, 3), np.float32)
    if size and not set(model.expression_names) & set(SCORE_NAMES):
        # Here and not above: it brings PyTorch along, for which the usual head has no need to wait.
        from ..correspondence.arkit import ARKIT_NAMES, arkit_map, shapes_of

        try:
            told = arkit_map(model)
            names, deltas = ARKIT_NAMES, shapes_of(model, told).astype(np.float32)
            expression, jaw = told.expression.astype(np.float32), told.jaw.astype(np.float32)
        except EffigyError as error:
            said = [*said, str(error)]
    return {"arkit_names": names, "arkit_deltas": deltas, "arkit_expression": expression, "arkit_jaw": jaw}, said


def read_track(parameters: Parameters) -> dict[str, Any]:
    """The fields of a `Track`, but for what it does not know, and its number of frames."""
    parameters.known("path")
    track = load_track(parameters.path("path"))
    known = {name: value for name, value in vars(track).items() if value is not None}
    return known | {"frame_count": track.frame_count}


def read_capture(parameters: Parameters) -> dict[str, Any]:
    """What a camera and a background movie need to know of a capture; landmarks in crop pixels."""
    parameters.known("path")
    capture = load_capture(parameters.path("path"))
    names = (
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
    try:
        summary = json.loads((capture.folder / "capture.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EffigyError(f"The capture {capture.folder} cannot be read: make it again from the video.") from error
    return {name: getattr(capture, name) for name in names} | {
        "frame_count": capture.frame_count,
        "training_count": capture.training_count,
        "summary": summary,
    }
