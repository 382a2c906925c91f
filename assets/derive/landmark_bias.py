"""Measures the bias of the face detector's landmarks on rendered people with known ground truth.

`assets/models/landmark_bias.npz` holds the tracker's model of the detector's bias. Hundreds of random identities,
appearances, lights, lenses and expressions are rendered in random poses, and the errors of each landmark are fitted by
ridge regression:

    error = bias(direction to the viewer) + P (A c),    c = identity, expression, jaw, eyes

The bias is a polynomial that is common to all people. A (3 x C metres) is the error of the detector's response to
identity and expression: the displacement of a landmark in head space beyond the true one. P projects head space onto
the image plane. Mirrored images of real faces give the mirrored error to a tenth of a degree
(`bench.detector_symmetry`), so each measurement is also used mirrored. The asymmetry of half a degree on rendered
people is thereby not learned. Run as `python -m assets.derive.landmark_bias` (twenty minutes on two cores).
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.assets import asset_path
from backend.footage.detector import FaceDetector
from backend.head.formats import load_head
from backend.head.model import EYE_L, EYE_R, JAW, HeadModel
from backend.storage import write_beside
from backend.tracking.after.residuals import project_landmarks
from backend.tracking.detector.pose_bias import FEATURES, view_features, view_frame
from bench.known_person import IDENTITIES, Scene

PEOPLE = 400
FRAMES = 12
FIRST_SEED = 1000
"""Differs from the seeds of the benchmark's people."""
_RIDGE = 4.0
"""Ridge weight of the polynomial, in observations of zero bias."""
_IDENTITY_RIDGE, _FACE_RIDGE, _JOINT_RIDGE = 30.0, 10.0, 1.0
"""Ridge weights of A, for identity changes that displace the landmarks by a millimetre, for full expressions and for
joint rotations of a radian. In fivefold cross-validation over 300 people, identity weights of 10, 30 and 100 leave
errors of 1.80, 1.80 and 1.82 mm."""


@dataclass(frozen=True)
class Measurements:
    """Landmark errors and their causes in the F frames in which a face was found."""

    errors: np.ndarray
    """(F, 478, 2) metres at the head's depth, across and along the head; NaN for landmarks without a position on the
    head."""
    directions: np.ndarray
    """(F, 3) directions towards the viewer, head space."""
    view: np.ndarray
    """(F, 2, 3): projections of head space onto the axes across and along the head."""
    causes: np.ndarray
    """(F, C): identity, expression, jaw about x, eyes (left x, left y, right x, right y). The
    response to the eyes is not saved: gaze is estimated from irises detected in the images, with an error of 4.0
    degrees with the response and of 3.8 without."""


def measure_person(seed: int) -> Measurements:
    torch.set_num_threads(1)
    model = load_head()
    scene = Scene(model, seed, FRAMES, yaw=60.0, still=True, oversampling=1)
    truth = scene.truth
    detector = FaceDetector()
    errors = np.full((FRAMES, len(model.landmark_faces), 2), np.nan)
    expected = project_landmarks(truth, model)
    detected = np.zeros(FRAMES, bool)
    for index in range(FRAMES):
        faces = detector.detect(scene.image(index))
        if faces:
            errors[index], detected[index] = faces[0].landmarks[:, :2] - expected[index], True
    detector.close()
    rotation = (
        truth.head_to_camera[:, :3, :3].astype(np.float64) @ Rotation.from_rotvec(truth.rotations[:, 1]).as_matrix()
    )
    position = truth.head_to_camera[:, :3, 3].astype(np.float64)
    direction, axes, scale = (
        part.numpy()
        for part in view_frame(torch.as_tensor(rotation), torch.as_tensor(position), float(truth.intrinsics[0, 0]))
    )
    person = np.repeat(truth.identity[None, :IDENTITIES], FRAMES, 0)
    eyes = truth.rotations[:, (EYE_L, EYE_R), :2].reshape(FRAMES, 4)
    causes = np.concatenate((person, truth.expression, truth.rotations[:, JAW, :1], eyes), 1)
    return Measurements(
        np.einsum("flc,fac->fla", errors, axes)[detected] * scale[detected, None, None],
        direction[detected],
        (axes @ rotation[:, :2])[detected],
        causes[detected].astype(np.float64),
    )


def mirrored_points(model: HeadModel) -> np.ndarray:
    """(478,) for each landmark the index of its mirror image."""
    positions = landmark_basis(model, model.template[..., None])[..., 0]
    valid = model.landmark_faces >= 0
    other = np.linalg.norm(positions[:, None] * (-1, 1, 1) - positions[None], axis=-1) + 1e3 * ~valid
    return np.where(valid, other.argmin(1), np.arange(len(valid)))


def landmark_basis(model: HeadModel, basis: np.ndarray) -> np.ndarray:
    """Interpolate a basis (N, 3, K) of the vertices to the landmarks (478, 3, K).

    Values of landmarks without a position on the head are undefined.
    """
    corners = basis[model.faces[np.maximum(model.landmark_faces, 0)]]
    return np.einsum("lk,lkcs->lcs", model.landmark_barycentric.astype(np.float64), corners.astype(np.float64))


def mirrored(measured: Measurements, model: HeadModel) -> Measurements:
    """The measurements of the mirrored people. The open head's identity shapes are symmetric or antisymmetric."""
    points = mirrored_points(model)
    shapes = landmark_basis(model, model.shape_basis[..., :IDENTITIES])
    signs = np.sign((shapes * shapes[points] * np.array((-1, 1, 1))[:, None]).sum((0, 1)))
    names = list(model.expression_names)
    swapped = [names.index(_other_side(name)) for name in names]
    person, face, jaw, eyes = np.split(measured.causes, np.cumsum((IDENTITIES, len(names), 1)), 1)
    eyes = eyes[:, (2, 3, 0, 1)] * (1, -1, 1, -1)
    return Measurements(
        measured.errors[:, points] * (-1, 1),
        measured.directions * (-1, 1, 1),
        measured.view * np.array((-1, 1))[:, None] * (-1, 1, 1),
        np.concatenate((person * signs, face[:, swapped], jaw, eyes), 1),
    )


def _other_side(name: str) -> str:
    return (
        name.removesuffix("Left") + "Right"
        if name.endswith("Left")
        else (name.removesuffix("Right") + "Left" if name.endswith("Right") else name)
    )


def fit_bias(measured: Measurements, model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Polynomial bias (FEATURES, 478, 2) and A (478, 3, C); zero for landmarks without a position and for unused
    causes.
    """
    both = [measured, mirrored(measured, model)]
    errors, directions, view, causes = (
        np.concatenate([getattr(part, field.name) for part in both]) for field in fields(Measurements)
    )
    known = np.isfinite(errors).all((0, 2))
    sizes = np.ones(causes.shape[1])
    sizes[:IDENTITIES] = 1000 * np.sqrt(
        (landmark_basis(model, model.shape_basis[..., :IDENTITIES])[known] ** 2).sum(1).mean(0)
    )
    ridge = np.repeat(
        (_RIDGE, _IDENTITY_RIDGE, _FACE_RIDGE, _JOINT_RIDGE),
        (2 * FEATURES, 3 * IDENTITIES, 3 * len(model.expression_names), 3 * 5),
    )
    polynomial = view_features(torch.as_tensor(directions)).numpy()
    rows = np.concatenate(
        (
            np.einsum("fk,ab->fakb", polynomial, np.eye(2)).reshape(len(errors), 2, -1),
            np.einsum("fac,fs->fasc", view, causes * sizes).reshape(len(errors), 2, -1),
        ),
        2,
    ).reshape(2 * len(errors), -1)
    right = rows.T @ errors[:, known].transpose(0, 2, 1).reshape(2 * len(errors), -1)
    solution = np.zeros((rows.shape[1], errors.shape[1]))
    solution[:, known] = np.linalg.solve(rows.T @ rows + np.diag(ridge), right)
    bias = solution[: 2 * FEATURES].reshape(FEATURES, 2, -1).transpose(0, 2, 1)
    response = solution[2 * FEATURES :].reshape(len(sizes), 3, -1) * sizes[:, None, None]
    return bias, response.transpose(2, 1, 0)


def main() -> None:
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        parts = list(workers.map(measure_person, range(FIRST_SEED, FIRST_SEED + PEOPLE)))
    measured = Measurements(
        *(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Measurements))
    )
    write_bias(measured, load_head())


def write_bias(measured: Measurements, model: HeadModel) -> None:
    bias, response = fit_bias(measured, model)
    used = np.flatnonzero(measured.causes[:, :-4].any(0))
    with write_beside(Path(asset_path("models")) / "landmark_bias.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            metres=bias.astype(np.float32),
            causes=used.astype(np.int16),
            millimetres=(1000 * response[..., used]).astype(np.float16),
            identities=IDENTITIES,
        )


if __name__ == "__main__":
    main()
