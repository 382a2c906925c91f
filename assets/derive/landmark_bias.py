"""How the face detector misplaces its points as the head turns, measured on rendered people whose truth is known.

`assets/models/landmark_bias.npz` is what the tracker subtracts before it believes the points. Dozens of random identities,
looks, lights, lenses and expressions are rendered in random poses; the mean error of each point over the people, as a
polynomial of the direction to the viewer, is the detector's habit and nobody's face. Mirrored pictures would show the
mirrored error, so each measurement counts on both sides. Run as `python -m assets.derive.landmark_bias`.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.assets import asset_path
from backend.footage.detector import FaceDetector
from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.storage import write_beside
from backend.tracking.bias import FEATURES, features, head_frame
from backend.tracking.residuals import project_landmarks
from bench.known_person import Scene

PEOPLE = 32
FRAMES = 8
FIRST_SEED = 1000
"""The bench's people have other seeds."""
_RIDGE = 4.0
"""Observations' worth of belief that there is no error."""


def measure_person(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Errors (F, 478, 2) in metres at the head's depth, along and across the head, and directions to the viewer (F, 3)."""
    torch.set_num_threads(1)
    model = load_head()
    scene = Scene(model, seed, FRAMES, yaw=60.0, still=True, oversampling=1)
    detector = FaceDetector()
    expected = project_landmarks(scene.truth, model)
    errors = np.full((FRAMES, len(model.landmark_faces), 2), np.nan)
    for index in range(FRAMES):
        faces = detector.detect(scene.picture(index))
        if faces:
            errors[index] = faces[0].landmarks[:, :2] - expected[index]
    detector.close()
    direction, axes, scale = head_frame(*_pose(scene))
    return np.einsum("flc,fac->fla", errors, axes) * scale[:, None, None], direction


def _pose(scene: Scene) -> tuple[np.ndarray, np.ndarray, float]:
    neck = Rotation.from_rotvec(scene.truth.rotations[:, 1]).as_matrix()
    pose = scene.truth.head_to_camera
    return pose[:, :3, :3] @ neck, pose[:, :3, 3], float(scene.truth.intrinsics[0, 0])


def mirrored_points(model: HeadModel) -> np.ndarray:
    """(478,) which point lies on the other side."""
    corners = model.template[model.faces[np.maximum(model.landmark_faces, 0)]]
    places = np.einsum("lk,lkc->lc", model.landmark_barycentric, corners)
    valid = model.landmark_faces >= 0
    other = np.linalg.norm(places[:, None] * (-1, 1, 1) - places[None], axis=-1) + 1e3 * ~valid
    return np.where(valid, other.argmin(1), np.arange(len(valid)))


def fit_bias(errors: np.ndarray, directions: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """(FEATURES, 478, 2) from errors (F, 478, 2), NaN where nothing was found, and directions (F, 3)."""
    found = np.isfinite(errors).any((1, 2))
    errors, directions = errors[found], directions[found]
    errors = np.concatenate((errors, errors[:, mirror] * (-1, 1)))
    directions = np.concatenate((directions, directions * (-1, 1, 1)))
    known = np.isfinite(errors).all((0, 2))
    rows = features(directions)
    right = rows.T @ errors[:, known].reshape(len(errors), -1)
    result = np.zeros((FEATURES, *errors.shape[1:]))
    result[:, known] = np.linalg.solve(rows.T @ rows + _RIDGE * np.eye(FEATURES), right).reshape(FEATURES, -1, 2)
    return result


def main() -> None:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        parts = list(workers.map(measure_person, range(FIRST_SEED, FIRST_SEED + PEOPLE)))
    errors, directions = (np.concatenate(part) for part in zip(*parts, strict=True))
    bias = fit_bias(errors, directions, mirrored_points(load_head()))
    with write_beside(Path(asset_path("models")) / "landmark_bias.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, metres=bias.astype(np.float32))


if __name__ == "__main__":
    main()
