"""Captures of a rendered person whose track is known: pictures by `bench.known_person`, landmarks as the detector would
give them, made from the truth, so that no detector has to run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.correspondence.landmark_sets import solved_points
from backend.footage.detector import SCORE_NAMES
from backend.formats.capture import Capture
from backend.formats.track import Track
from backend.head.formats import load_head
from backend.head.forward import Head, landmarks
from backend.head.model import NECK
from backend.splatting.mesh import rasterize_mesh
from backend.tracking.detector.pose_bias import bias_of_poses
from backend.tracking.detector.shape_response import detected_surface, shape_response
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import FrameState
from backend.tracking.model.landmark_surface import MOVING_JOINTS, landmark_surface
from backend.tracking.terms.landmarks import LandmarkTerm
from bench.known_person import SIZE, Scene

_NOISE = 0.7
"""Pixels by which each landmark errs by itself."""


@dataclass(frozen=True)
class Rendered:
    capture: Capture
    truth: Track


@cache
def scene(seed: int, frames: int, yaw: float, still: bool) -> Scene:
    """Painting a head takes seconds, so tests share it."""
    return Scene(load_head(), seed, frames, yaw, still, oversampling=1)


def rendered(
    folder: Path,
    *,
    seed: int = 3,
    frames: int = 12,
    yaw: float = 45.0,
    still: bool = False,
    shown: slice = slice(None),
    shrink: float = 0.0,
    tremble: float = 0.0,
    lens: float = 1.0,
    motion: np.ndarray | None = None,
) -> Rendered:
    """The frames `shown` of a scene as a capture in `folder`. Landmarks speak of a head that turns less by the share
    `shrink` and trembles by `tremble` degrees; the intrinsics are a guess, `lens` times the true focal length. With
    `motion` (4, 4) another camera sees the scene (`Scene.seen_from`).
    """
    model, made = load_head(), scene(seed, frames, yaw, still)
    made = made if motion is None else made.seen_from(motion)
    which = np.arange(frames)[shown]
    truth = replace(
        made.truth,
        **{
            name: getattr(made.truth, name)[which]
            for name in ("expression", "rotations", "head_to_camera", "residual", "flags")
        },
    )
    count = len(which)
    intrinsics = truth.intrinsics.astype(np.float64)
    capture = Capture(
        folder=folder,
        source_name="rendered",
        source_sha256="0" * 64,
        size=SIZE,
        fps=Fraction(25),
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=intrinsics * np.array([[lens, 1, 1], [1, lens, 1], [1, 1, 1]]),
        frame_numbers=np.arange(count),
        frame_times=np.arange(count) / 25,
        landmarks=_seen(truth, shrink, tremble),
        scores=_scores(truth),
        detector_pose=np.full((count, 4, 4), np.nan, np.float32),
        flags=np.zeros(count, np.int32),
    )
    truth = replace(truth, training_count=capture.training_count)
    capture.matte_path(0).parent.mkdir(parents=True)
    capture.frame_path(0).parent.mkdir()
    with torch.no_grad():
        posed = Head(model)(
            *(torch.as_tensor(part) for part in (truth.identity[None], truth.expression, truth.rotations))
        ).vertices
    camera = truth.head_to_camera
    for index, vertices in enumerate(posed.numpy() @ camera[:, :3, :3].transpose(0, 2, 1) + camera[:, None, :3, 3]):
        covered = rasterize_mesh(vertices, model.faces, intrinsics, SIZE, SIZE).covered
        cv2.imwrite(str(capture.matte_path(index)), covered.astype(np.uint8) * 255, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        paint(capture, index, made.image(int(which[index])))
    return Rendered(capture, truth)


def paint(capture: Capture, index: int, picture: np.ndarray) -> None:
    """Frame number `index` of the capture shows this (SIZE, SIZE, 3) uint8 RGB."""
    cv2.imwrite(str(capture.frame_path(index)), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])


def true_state(truth: Track, pivot: torch.Tensor) -> FrameState:
    """The track as the solver has it, the neck's turn being the head's."""
    model = load_head()
    joint = model.joint_regressor[NECK].astype(np.float64) @ (model.template + model.shape_basis @ truth.identity)
    neck = Rotation.from_rotvec(truth.rotations[:, NECK]).as_matrix()
    camera = truth.head_to_camera.astype(np.float64)
    rotation = camera[:, :3, :3] @ neck
    position = ((pivot.numpy() - joint) @ neck.transpose(0, 2, 1) + joint)[:, None] @ camera[:, :3, :3].transpose(
        0, 2, 1
    )
    face = np.concatenate(
        (truth.expression, truth.rotations[:, 2], truth.rotations[:, 3, :2], truth.rotations[:, 4, :2]), 1
    )
    return FrameState(
        *(torch.as_tensor(part, dtype=torch.float32) for part in (face, rotation, position[:, 0] + camera[:, :3, 3]))
    )


def _seen(truth: Track, shrink: float, tremble: float) -> np.ndarray:
    """(F, 478, 3) float32, as `bench.known_clip` makes them: with the detector's response and bias."""
    model, random = load_head(), np.random.default_rng(0)
    rotations = truth.rotations.copy()
    rotations[:, NECK] *= 1 - shrink
    rotations[:, NECK] += np.radians(random.normal(0, tremble, (len(rotations), 3)))
    turned = Rotation.from_rotvec(rotations.reshape(-1, 3)).as_matrix().reshape(-1, 5, 3, 3)
    with torch.no_grad():
        posed = Head(model)(
            *(torch.as_tensor(part) for part in (truth.identity[None], truth.expression, rotations))
        ).vertices
    beside = shape_response(model).displacement(truth.identity, truth.expression, turned[:, list(MOVING_JOINTS)])
    camera = truth.head_to_camera
    points = landmarks(posed, model).numpy() + beside @ turned[:, NECK].transpose(0, 2, 1)
    points = points @ camera[:, :3, :3].transpose(0, 2, 1) + camera[:, None, :3, 3]
    focal = float(truth.intrinsics[0, 0])
    seen = np.empty(points.shape, np.float32)
    seen[..., :2] = focal * points[..., :2] / points[..., 2:] + truth.intrinsics[:2, 2]
    seen[..., :2] += bias_of_poses(camera[:, :3, :3] @ turned[:, NECK], camera[:, :3, 3], focal)
    seen[..., :2] += random.normal(0, _NOISE, seen[..., :2].shape)
    seen[..., 2] = (points[..., 2] - points[:, 4:5, 2]) * focal / points[:, 4:5, 2]
    return seen


def _scores(truth: Track) -> np.ndarray:
    """(F, 52): the detector's, a little noisy."""
    names = load_head().expression_names
    scores = truth.expression[:, [names.index(name) for name in SCORE_NAMES]].copy()
    scores[:, SCORE_NAMES.index("jawOpen")] = truth.rotations[:, 2, 0] / 0.45
    return np.clip(scores + np.random.default_rng(1).normal(0, 0.05, scores.shape), 0, 1).astype(np.float32)


def landmark_term(made: Rendered) -> tuple[LandmarkTerm, Camera]:
    """The landmark term of a rendered capture, and the camera with the guessed focal length."""
    everything = landmark_surface(load_head())
    surface = detected_surface(everything, load_head()).of_points(
        solved_points(everything.position.rest.numpy(), everything.valid, 240)
    )
    capture = made.capture
    camera = Camera.from_intrinsics(capture.intrinsics, capture.size, surface.position.rest.mean(0))
    return LandmarkTerm.from_detections(capture.landmarks, surface, camera), camera
