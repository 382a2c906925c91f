"""Writes reference data on heads, poses and tracks, computed by the backend.

Runs in the backend's Python:

    python tests/blender/rig_truth.py OUT.npz

Names beginning with `open.` are of the open head with some identity, those with `flame.` of a head that has all 36 pose
correctives and unnamed coefficients, as FLAME has. The arrays of a rig are the worker's answer to `head.rig`; posed
vertices come from `backend.head.forward`, projected landmarks from the tracker. A dictionary is stored as `name.key`.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from backend.formats.track import Track, save_track
from backend.head.formats import load_head, save_head
from backend.head.forward import Head
from backend.head.model import HeadModel
from backend.service.parameters import Parameters
from backend.service.rig_data import head_rig, read_track
from backend.tracking.after.residuals import project_landmarks

POSES = 5
FRAMES = 12


def main(out: Path) -> None:
    random = np.random.default_rng(4)
    model = load_head()
    arrays: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        describe(arrays, "open", model, Path(folder), random, whole_identity=True)
        describe(arrays, "flame", flame_like(model, random), Path(folder), random, whole_identity=False)
        track = make_track(model, arrays["open.identity"], random)
        save_track(track, Path(folder) / "track.npz")
        answer = read_track(Parameters({"path": str(Path(folder) / "track.npz")}, "track.read"))
    arrays |= {f"track.{name}": np.asarray(value) for name, value in answer.items() if name != "fps"}
    arrays["track.fps"] = np.array((answer["fps"].numerator, answer["fps"].denominator))
    arrays["landmark_pixels"] = project_landmarks(track, model)
    arrays["landmark_corners"] = model.faces[model.landmark_faces]
    arrays["landmark_barycentric"] = model.landmark_barycentric
    np.savez(out, **arrays)


def describe(
    arrays: dict[str, np.ndarray],
    name: str,
    model: HeadModel,
    folder: Path,
    random: np.random.Generator,
    *,
    whole_identity: bool,
) -> None:
    """The rig of one person, and posed vertices of that person and of one whose identity differs in a few
    components.
    """
    file = folder / f"{name}.npz"
    save_head(model, file)
    head, identities, expressions = Head(model), model.shape_basis.shape[2], model.expression_basis.shape[2]
    identity = np.zeros(identities, np.float32)
    shown = identities if whole_identity else 10
    identity[:shown] = random.normal(0, 0.8, shown)
    rig = head_rig(Parameters({"head": {"file": str(file)}, "identity": identity}, "head.rig"))
    for key, value in (vars(rig) | {"head": vars(rig.head)}).items():
        if isinstance(value, dict):
            for inner, part in value.items():
                arrays[f"{name}.{key}.{inner}"] = np.asarray(part)
        else:
            arrays[f"{name}.{key}"] = np.asarray(value)
    low, high = model.expression_range
    expression = random.uniform(max(low, -2), min(high, 2), (POSES, expressions))
    expression *= random.random((POSES, expressions)) < 0.4
    rotations = random.normal(0, 0.25, (POSES, 5, 3))
    if "mouthClose" in model.expression_names:
        # Its slider does nothing beyond the opening of the jaw.
        expression[:, model.expression_names.index("mouthClose")] = 0
    other = identity.copy()
    other[:6] += random.normal(0, 1.2, 6)
    arrays[f"{name}.other_identity"] = other
    arrays[f"{name}.pose_expression"], arrays[f"{name}.pose_rotations"] = expression, rotations
    still = rotations * np.array((0, 1, 1, 1, 1))[:, None]
    for key, person, turned in (
        ("posed", identity, rotations),
        ("posed_other", other, rotations),
        ("posed_without_root", identity, still),
    ):
        arrays[f"{name}.{key}"] = head(
            torch.as_tensor(person)[None],
            torch.as_tensor(expression, dtype=torch.float32),
            torch.as_tensor(turned, dtype=torch.float32),
        ).vertices.numpy()


def flame_like(model: HeadModel, random: np.random.Generator) -> HeadModel:
    size = model.expression_basis.shape[2]
    return replace(
        model,
        name="FLAME-like head",
        pose_basis=random.normal(0, 0.003, model.pose_basis.shape).astype(np.float32),
        shape_basis=model.shape_basis[..., :10].copy(),
        expression_range=(-10.0, 10.0),
        expression_names=tuple(f"expression_{index:03d}" for index in range(size)),
    )


def make_track(model: HeadModel, identity: np.ndarray, random: np.random.Generator) -> Track:
    """A head that turns, nods and leans in front of a camera whose principal point is not the crop's centre."""
    phase = np.linspace(0, 2 * np.pi, FRAMES)
    rotations = np.zeros((FRAMES, 5, 3), np.float32)
    rotations[:, 1] = 0.15 * np.stack((np.sin(phase), np.cos(phase), np.sin(2 * phase)), 1)
    rotations[:, 2, 0] = 0.1 + 0.1 * np.sin(phase)
    rotations[:, 3:] = random.normal(0, 0.1, (FRAMES, 2, 3)) * (1, 1, 0)
    # OpenCV cameras see an upright head upside down: its y axis points downwards.
    expression = random.uniform(0, 0.6, (FRAMES, len(model.expression_names))).astype(np.float32)
    expression[:, [model.expression_names.index(name) for name in ("jawOpen", "jawLeft", "jawRight", "mouthClose")]] = 0
    expression[3, 0] = 1.2
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    for frame, angle in enumerate(phase):
        yaw, roll = 0.5 * np.sin(angle), 0.2 * np.cos(angle)
        yaw_matrix = np.array(((np.cos(yaw), 0, np.sin(yaw)), (0, 1, 0), (-np.sin(yaw), 0, np.cos(yaw))))
        roll_matrix = np.array(((np.cos(roll), -np.sin(roll), 0), (np.sin(roll), np.cos(roll), 0), (0, 0, 1)))
        poses[frame, :3, :3] = np.diag((1, -1, -1)) @ roll_matrix @ yaw_matrix
        poses[frame, :3, 3] = 0.05 * np.sin(angle), 0.03 * np.cos(angle), 0.9 + 0.1 * np.sin(angle)
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=identity,
        expression=expression,
        rotations=rotations,
        head_to_camera=poses.astype(np.float32),
        size=512,
        fps=Fraction(30000, 1001),
        intrinsics=np.array(((1100, 0, 300), (0, 1100, 190), (0, 0, 1)), np.float32),
        residual=np.zeros(FRAMES, np.float32),
        flags=np.zeros(FRAMES, np.int32),
        training_count=FRAMES,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
