"""The detector's response to a person is in the surface that is compared with landmarks, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.formats.track import Track
from backend.head.formats import load_head
from backend.head.model import JAW, NECK, HeadModel
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.after.residuals import project_landmarks
from backend.tracking.detector.shape_response import detected_surface, shape_response
from backend.tracking.model.landmark_surface import MOVING_JOINTS, LandmarkSurface, landmark_surface, pose_points


def _track(model: HeadModel, frames: int = 3) -> Track:
    random = np.random.default_rng(3)
    rotations = np.zeros((frames, 5, 3), np.float32)
    rotations[:, NECK] = random.normal(0, 0.3, (frames, 3))
    rotations[:, JAW, 0] = (0.0, 0.1, 0.2)
    camera = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    camera[:, :3, :3] = np.diag((1.0, -1.0, -1.0))
    camera[:, 2, 3] = 0.7
    return Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=random.normal(0, 0.6, model.shape_basis.shape[2]).astype(np.float32),
        expression=random.uniform(0, 0.8, (frames, len(model.expression_names))).astype(np.float32),
        rotations=rotations,
        head_to_camera=camera,
        intrinsics=np.array(((900, 0, 256), (0, 900, 256), (0, 0, 1)), np.float32),
        size=512,
        fps=Fraction(25),
        residual=np.zeros(frames, np.float32),
        flags=np.zeros(frames, np.int32),
        training_count=frames,
    )


def test_solver_and_residual_predict_the_same_landmarks() -> None:
    model = load_head()
    track = _track(model)
    joint = model.joint_regressor[NECK].astype(np.float64) @ (model.template + model.shape_basis @ track.identity)
    neck = Rotation.from_rotvec(track.rotations[:, NECK]).as_matrix()

    def projected(surface: LandmarkSurface) -> np.ndarray:
        points = pose_points(
            surface.of_person(torch.as_tensor(track.identity)),
            torch.as_tensor(track.expression),
            axis_angle_to_matrix(torch.as_tensor(track.rotations[:, list(MOVING_JOINTS)])),
        )[0].numpy()
        seen = ((points - joint) @ neck.transpose(0, 2, 1) + joint) @ track.head_to_camera[:, :3, :3].transpose(0, 2, 1)
        pixels = (seen + track.head_to_camera[:, None, :3, 3]) @ track.intrinsics.T
        return pixels[..., :2] / pixels[..., 2:]

    valid = model.landmark_faces >= 0
    skin = landmark_surface(model)
    solver = (projected(detected_surface(skin, model)) - projected(skin))[:, valid]
    residual = (project_landmarks(track, model, detected=True) - project_landmarks(track, model))[:, valid]
    assert np.median(np.linalg.norm(solver, axis=-1)) > 1
    assert np.abs(solver - residual).max() < 0.05


def test_the_response_of_a_head_without_expressions_follows_identity_and_jaw() -> None:
    model = load_head()
    bare = replace(model, expression_basis=model.expression_basis[..., :0], expression_names=())
    track = _track(bare)
    still = replace(_track(model), expression=np.zeros((3, len(model.expression_names)), np.float32))
    assert np.allclose(
        *(project_landmarks(*known, detected=True) for known in ((track, bare), (still, model))),
        atol=0.01,
        equal_nan=True,
    )


def test_the_detector_follows_a_persons_shape_only_in_part() -> None:
    model = load_head()
    valid = model.landmark_faces >= 0
    shape = landmark_surface(model).position.shape.numpy()[valid][..., :60]
    answer = shape_response(model).shape[valid][..., :60]
    share = (shape * answer).sum() / (shape**2).sum()
    assert -0.6 < share < -0.05


def test_a_head_whose_shapes_are_mixtures_of_the_open_heads_has_the_open_heads_response() -> None:
    model = load_head()
    random = np.random.default_rng(0)
    sizes = model.shape_basis.shape[2], model.expression_basis.shape[2]
    mixes = [np.linalg.qr(random.normal(size=(size, size)))[0].astype(np.float32) for size in sizes]
    mixed = replace(
        model,
        shape_basis=model.shape_basis @ mixes[0],
        expression_basis=model.expression_basis @ mixes[1],
        expression_names=tuple(f"expression_{index:03d}" for index in range(sizes[1])),
    )
    own, other = shape_response(model), shape_response(mixed)
    identity, expression = random.normal(0, 0.6, sizes[0]), random.uniform(0, 0.8, (2, sizes[1]))
    still = np.tile(np.eye(3), (2, 3, 1, 1))
    expected = own.displacement(identity, expression, still)
    found = other.displacement(mixes[0].T @ identity, expression @ mixes[1], still)
    assert np.abs(expected).max() > 0.001
    assert np.abs(found - expected).max() < 0.0001


def test_points_without_a_place_are_left_alone() -> None:
    model = load_head()
    faces = model.landmark_faces.copy()
    faces[100:110] = -1
    surface = detected_surface(
        landmark_surface(replace(model, landmark_faces=faces)), replace(model, landmark_faces=faces)
    )
    assert not surface.position.shape[100:110].any() and not surface.position.expression[100:110].any()
