"""A synthetic capture with known ground truth: the open head with hair talks, blinks, moves its eyes and rotates.

Its landmarks and mattes are computed from the ground truth; its images are uniform grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from backend.footage.detector import SCORE_NAMES
from backend.formats.capture import Capture
from backend.formats.track import Track
from backend.head.forward import Head, landmarks, vertex_normals
from backend.head.jaw import jaw_rotations_of_shapes
from backend.head.model import HeadModel
from backend.splatting.mesh import rasterize_mesh
from backend.tracking.detector.pose_bias import bias_of_poses
from backend.tracking.detector.shape_response import shape_response
from backend.tracking.model.landmark_surface import MOVING_JOINTS

SIZE = 512
MOVING = (
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthPucker",
    "browInnerUp",
    "mouthUpperUpLeft",
    "mouthLowerDownRight",
)


@dataclass(frozen=True)
class SyntheticClip:
    capture: Capture
    identity: np.ndarray
    expression: np.ndarray
    rotations: np.ndarray
    head_to_camera: np.ndarray
    focal: float


HAIR = 0.02
"""Thickness of the hair over the scalp, metres."""


def make_clip(
    model: HeadModel,
    folder: Path,
    frames: int = 60,
    noise: float = 0.7,
    seed: int = 0,
    max_yaw: float = 25.0,
    focal: float = 1150.0,
    yaw_cycles: float = 1.0,
) -> SyntheticClip:
    """Write a clip's frames and mattes into `folder`.

    `noise` (standard deviation of the landmarks) and `focal` are in pixels. The head rotates by `max_yaw` degrees to
    either side, `yaw_cycles` times. The identity depends on the seed alone.
    """
    random = np.random.default_rng(seed)
    time = np.linspace(0, 1, frames)
    identity = random.normal(0, 0.7, model.shape_basis.shape[2]).astype(np.float32)
    expression = np.zeros((frames, len(model.expression_names)), np.float32)
    for count, name in enumerate(MOVING):
        wave = 0.5 - 0.5 * np.cos(2 * np.pi * (time * (1 + count % 3) + count / 8))
        expression[:, model.expression_names.index(name)] = 0.7 * wave**2
    blink = np.exp(-(((np.arange(frames) - frames * 0.3) / 2) ** 2))
    for side in ("Left", "Right"):
        expression[:, model.expression_names.index(f"eyeBlink{side}")] = blink
    opening = 0.5 * (0.5 - 0.5 * np.cos(2 * np.pi * 3 * time))
    rotations = np.zeros((frames, 5, 3), np.float32)
    rotations[:, 2] = opening[:, None] * jaw_rotations_of_shapes(model)["jawOpen"]
    rotations[:, 3:, 1] = np.deg2rad(12) * np.sin(2 * np.pi * 2 * time)[:, None]
    rotation_vectors = np.deg2rad(
        np.stack(
            (6 * np.sin(2 * np.pi * 2 * time), max_yaw * np.sin(2 * np.pi * yaw_cycles * time), 5 * np.cos(4 * time)), 1
        )
    )
    pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    pose[:, :3, :3] = np.diag((1.0, -1.0, -1.0)) @ Rotation.from_rotvec(rotation_vectors).as_matrix()
    pose[:, :3, 3] = np.stack((0.01 * np.sin(5 * time), 0.01 * np.cos(3 * time), 0.62 + 0.02 * np.sin(4 * time)), 1)

    posed = Head(model)(
        torch.as_tensor(identity)[None], torch.as_tensor(expression), torch.as_tensor(rotations)
    ).vertices
    joint_rotations = (
        Rotation.from_rotvec(rotations[:, list(MOVING_JOINTS)].reshape(-1, 3)).as_matrix().reshape(-1, 3, 3, 3)
    )
    detector_offset = shape_response(model).displacement(identity, expression, joint_rotations)
    points = (landmarks(posed, model).numpy() + detector_offset) @ pose[:, :3, :3].transpose(0, 2, 1)
    points = points + pose[:, None, :3, 3]
    detected = np.empty_like(points)
    detected[..., :2] = (
        focal * points[..., :2] / points[..., 2:] + SIZE / 2 + random.normal(0, noise, points[..., :2].shape)
    )
    detected[..., :2] += bias_of_poses(pose[:, :3, :3], pose[:, :3, 3], focal)
    detected[..., 2] = (points[..., 2] - points[:, 4:5, 2]) * focal / points[:, 4:5, 2]
    scores = expression[:, [model.expression_names.index(name) for name in SCORE_NAMES]].copy()
    scores[:, SCORE_NAMES.index("jawOpen")] = opening
    scores = np.clip(scores + random.normal(0, 0.05, scores.shape), 0, 1).astype(np.float32)
    capture = Capture(
        folder=folder,
        source_name="synthetic",
        source_sha256="0" * 64,
        size=SIZE,
        fps=Fraction(30),
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=np.array(((focal, 0, SIZE / 2), (0, focal, SIZE / 2), (0, 0, 1.0))),
        frame_numbers=np.arange(frames),
        frame_times=np.arange(frames) / 30,
        landmarks=detected.astype(np.float32),
        scores=scores,
        detector_pose=np.full((frames, 4, 4), np.nan, np.float32),
        flags=np.zeros(frames, np.int32),
    )
    capture.matte_path(0).parent.mkdir(parents=True)
    capture.frame_path(0).parent.mkdir()
    with_hair = posed + _hair(model, posed)
    for index, vertices in enumerate(with_hair.numpy() @ pose[:, :3, :3].transpose(0, 2, 1) + pose[:, None, :3, 3]):
        covered = rasterize_mesh(vertices, model.faces, capture.intrinsics, SIZE, SIZE).covered
        matte = cv2.GaussianBlur(covered.astype(np.uint8) * 255, (0, 0), 1.0)
        cv2.imwrite(str(capture.matte_path(index)), matte, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        # The images are uniform, so the tracker has only the landmarks and the silhouette.
        cv2.imwrite(str(capture.frame_path(index)), np.full((SIZE, SIZE, 3), 128, np.uint8))
    return SyntheticClip(capture, identity, expression, rotations, pose, focal)


def _hair(model: HeadModel, posed: torch.Tensor) -> torch.Tensor:
    """(F, N, 3) offsets of the hair's surface from the posed mesh, metres."""
    scalp = torch.zeros(len(model.template), 1)
    scalp[model.regions["scalp"]] = HAIR
    return scalp * vertex_normals(posed, torch.as_tensor(model.faces.astype(np.int64)))


def vertex_and_rotation_errors(track: Track, clip: SyntheticClip, model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Errors of a track in each frame: of the face's vertices (F, V) in metres, and of the rotation (F,) in degrees.

    The vertices are rigidly aligned with the ground truth first; the alignment's rotation is the rotation error.
    """

    def in_camera(identity: np.ndarray, expression: np.ndarray, rotations: np.ndarray, pose: np.ndarray) -> np.ndarray:
        vertices = Head(model)(
            *(torch.as_tensor(part) for part in (identity[None], expression, rotations))
        ).vertices.numpy()
        face = vertices[:, model.regions["face"]] @ pose[:, :3, :3].transpose(0, 2, 1)
        return face - face.mean(1, keepdims=True)

    ours = in_camera(track.identity, track.expression, track.rotations, track.head_to_camera)
    truth = in_camera(clip.identity, clip.expression, clip.rotations, clip.head_to_camera)
    distances, angles = [], []
    for tracked, known in zip(ours, truth, strict=True):
        alignment, _ = Rotation.align_vectors(known, tracked)
        distances.append(np.linalg.norm(alignment.apply(tracked) - known, axis=1))
        angles.append(np.rad2deg(alignment.magnitude()))
    return np.array(distances), np.array(angles)
