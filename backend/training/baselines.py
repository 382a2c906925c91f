"""Baselines that an avatar must beat: the nearest training frame, and Gaussians that the mesh alone drives."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..avatar.posing import head_rotation
from ..formats.capture import Capture
from ..formats.track import Track
from ..head.model import EYE_L, EYE_R, JAW, HeadModel
from ..progress import SILENT, Progress
from ..splatting.types import Splats
from .frames import TrackPoses, TrainingFrames
from .optimisation import SEED
from .presets import find_preset
from .session import TrainingSession
from .stages import train_free_gaussians
from .warmup import VertexBoundGaussians


def nearest_training_frames(track: Track, model: HeadModel, training: np.ndarray, queried: np.ndarray) -> np.ndarray:
    """(Q,): for each frame index in `queried` (Q,) the index in `training` (T,) with the nearest expression and pose.

    Distances are those of `pose_features`: about how many pixels the face's surface moves between two frames. A smile,
    a blink, a head rotation and a sideways step therefore count as much as they change the image.
    """
    features = pose_features(track, model)
    known = features[training]
    nearest = [np.square(known - feature).sum(axis=1).argmin() for feature in features[queried]]
    return training[nearest]


def pose_features(track: Track, model: HeadModel) -> np.ndarray:
    """(F, D): Euclidean distance between two rows is, to first order, the RMS motion of the face's vertices in pixels
    of the track, summed over expression, jaw, eyes, head rotation, and the head's position and size in the image.
    """
    face = model.regions["face"]
    shaped = model.template + model.shape_basis @ track.identity
    joints = model.joint_regressor @ shaped
    points = shaped[face]
    centre = points.mean(axis=0)
    head_rotations = head_rotation(track.rotations)
    to_camera = track.head_to_camera.astype(np.float64)
    rotation = to_camera[:, :3, :3] @ head_rotations
    # The face's centre in camera space: rotated about the neck joint, then moved by the camera pose.
    pivot = joints[1]
    placed = (head_rotations @ (centre - pivot)) + pivot
    placed = np.einsum("fij,fj->fi", to_camera[:, :3, :3], placed) + to_camera[:, :3, 3]
    focal = float(track.intrinsics[0, 0])
    pixels_per_metre = focal / np.median(placed[:, 2])
    radius = float(np.sqrt(np.square(points - centre).sum(axis=1).mean()))
    image_position = focal * placed[:, :2] / placed[:, 2:]
    log_depth = radius * pixels_per_metre * np.log(placed[:, 2:])
    # For points on all sides of a sphere, a rotation change dR moves them by radius |dR|_F / sqrt(3) on average.
    weighted_rotation = radius * pixels_per_metre / np.sqrt(3) * rotation.reshape(-1, 9)
    parts = [image_position, log_depth, weighted_rotation]
    basis = model.expression_basis[face].astype(np.float64).reshape(-1, model.expression_basis.shape[2])
    # d^2 = de^T G de with G the mean over vertices; its square root turns that into a plain distance.
    values, vectors = np.linalg.eigh(basis.T @ basis / len(face))
    parts.append(pixels_per_metre * track.expression @ (vectors * np.sqrt(np.maximum(values, 0))))
    for joint in (JAW, EYE_L, EYE_R):
        lever = model.skinning[:, joint] * np.linalg.norm(shaped - joints[joint], axis=1)
        moved = float(np.sqrt(np.square(lever).sum() / len(face)))
        parts.append(pixels_per_metre * moved * track.rotations[:, joint])
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class VertexBoundAvatar:
    """Free Gaussians of the warm-up on a head model: a `SplatSource` that a track poses like an avatar."""

    gaussians: VertexBoundGaussians
    head_model: HeadModel

    def splats(self, track: Track, indices: Sequence[int]) -> Splats:
        device = self.gaussians.geometry.device
        return self.gaussians(TrackPoses(track, self.head_model, device).pose(np.array(indices)))[0]


def train_baseline(
    capture: Capture,
    track: Track,
    model: HeadModel,
    *,
    size: int,
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = SILENT,
) -> VertexBoundAvatar:
    """Train the vertex-bound Gaussians on the same frames for as long as the avatar was trained, by its `clock`."""
    gaussians = train_vertex_bound(capture, track, model, size=size, minutes=minutes, clock=clock, progress=progress)
    return VertexBoundAvatar(gaussians, model)


def train_vertex_bound(
    capture: Capture,
    track: Track,
    model: HeadModel,
    *,
    size: int,
    minutes: float,
    sh_degree: int = 1,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = SILENT,
) -> VertexBoundGaussians:
    """Free Gaussians driven by the mesh alone, trained for `minutes` of `clock`, which returns seconds."""
    torch.manual_seed(SEED)
    frames = TrainingFrames(capture, track, model, size, progress=progress)
    session = TrainingSession(None, {}, progress, None)
    return train_free_gaussians(
        frames, track.identity, model, sh_degree, find_preset("draft"), session, minutes, size=size, clock=clock
    ).eval()
