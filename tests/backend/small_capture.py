"""A tracked capture of a coloured ball that nods and deforms, small enough to train on in seconds.

Track, head model and Gaussians are known exactly, because the frames are rendered from them.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from head_models import ball_head

from backend.avatar.avatar import Avatar
from backend.avatar.filmed import unlimited_expressions, unlimited_faces
from backend.avatar.settings import AvatarSettings
from backend.formats.capture import Capture, save_capture
from backend.formats.track import Track, save_track
from backend.head.formats import save_head
from backend.head.model import HeadModel
from backend.head.registry import remember_head
from backend.splatting.rasterize import rasterize
from backend.training.frames import TrackPoses
from backend.training.losses import AnchorLimits
from backend.training.warmup import VertexBoundGaussians

SIZE = 64
NO_RINGS = torch.zeros(0, 2, dtype=torch.long)
"""`AnchorLimits.rings` of a head without a mouth, as the ball is."""


def limits_of_a_ball(
    offset: torch.Tensor, scale: torch.Tensor, least_scale: torch.Tensor | None = None
) -> AnchorLimits:
    """With these fields (N,), `offset` also along the surface, a thickness of 1 mm and normals along x."""
    least = torch.zeros_like(offset) if least_scale is None else least_scale
    normals = torch.eye(3)[0].expand(len(offset), 3)
    any_breadth, thickness = torch.zeros_like(offset), torch.full_like(offset, 0.001)
    return AnchorLimits(offset, scale, least, any_breadth, NO_RINGS, torch.zeros(0, 3), offset, thickness, normals)


def make_small_capture(folder: Path, frames: int = 30, texture: float = 40.0) -> tuple[Capture, Track, HeadModel]:
    """Write a capture, its track and its head model below `folder`, and note the head model in the registry.

    `texture`: spatial frequency of the ball's colours, radians per metre. The finer the texture, the more an error of
    rotation shows in the image.
    """
    model = ball_head()
    save_head(model, folder / "ball.npz")
    remember_head(model, folder / "ball.npz")
    time = np.linspace(0, 4 * np.pi, frames)
    rotations = np.zeros((frames, 5, 3), np.float32)
    rotations[:, 1, 1] = 0.4 * np.sin(time)
    rotations[:, 2, 0] = 0.15 * (1 - np.cos(2 * time))
    cameras = np.tile(np.diag([1.0, -1, -1, 1]).astype(np.float32), (frames, 1, 1))
    cameras[:, 2, 3] = 0.6
    expression = np.stack([np.sin((k + 1) * time + k) for k in range(4)], 1).astype(np.float32) * 0.5
    track = Track(
        head_name=model.name,
        head_fingerprint=model.fingerprint,
        identity=np.zeros(3, np.float32),
        expression=expression,
        rotations=rotations,
        head_to_camera=cameras,
        intrinsics=np.array([[140, 0, 32], [0, 140, 32], [0, 0, 1]], np.float32),
        size=SIZE,
        fps=Fraction(25),
        residual=np.ones(frames, np.float32),
        flags=np.zeros(frames, np.int32),
        training_count=frames - round(0.2 * frames),
    )
    capture = Capture(
        folder=folder / "ball.capture",
        source_name="ball.mp4",
        source_sha256="0" * 64,
        size=SIZE,
        fps=Fraction(25),
        crop=(0.0, 0.0, float(SIZE)),
        intrinsics=track.intrinsics.astype(np.float64),
        frame_numbers=np.arange(frames),
        frame_times=np.arange(frames) / 25.0,
        landmarks=np.full((frames, 478, 3), np.nan, np.float32),
        scores=np.zeros((frames, 52), np.float32),
        detector_pose=np.full((frames, 4, 4), np.nan, np.float32),
        flags=np.zeros(frames, np.int32),
        frame_suffix=".png",
    )
    for name in ("frames", "mattes", "head_mattes"):
        (capture.folder / name).mkdir(parents=True)
    save_capture(capture)
    save_track(track, capture.folder / "track.npz")
    truth = true_gaussians(model, texture)
    poses = TrackPoses(track, model)
    for index in range(frames):
        chosen = np.array([index])
        with torch.no_grad():
            raster = rasterize(truth(poses.pose(chosen))[0], poses.cameras(chosen, SIZE))
        color, alpha = raster.color[0].numpy(), raster.alpha[0].numpy()
        # Beyond the ball its colours go on, so that half-covered pixels show nothing else.
        beyond = cv2.GaussianBlur(color, (0, 0), 9) / cv2.GaussianBlur(alpha, (0, 0), 9)[..., None]
        color = np.where(alpha[..., None] > 1 / 255, color / np.maximum(alpha, 1e-3)[..., None], beyond)
        cv2.imwrite(str(capture.frame_path(index)), (color[..., ::-1].clip(0, 1) * 255).round().astype(np.uint8))
        for path in (capture.matte_path(index), capture.head_matte_path(index)):
            cv2.imwrite(str(path), (alpha * 255).round().astype(np.uint8))
    return capture, track, model


def true_gaussians(model: HeadModel, texture: float = 40.0) -> VertexBoundGaussians:
    """The Gaussians from which the frames of `make_small_capture` are rendered."""
    random = np.random.default_rng(1)
    truth = VertexBoundGaussians(torch.full((len(model.template),), 0.03), 0)
    with torch.no_grad():
        waves = np.sin(model.template @ random.normal(0, texture, (3, 3)))
        truth.appearance[:, 1:4] = torch.as_tensor(waves * 1.2)
        truth.appearance[:, 0] = 4.0
    return truth


def true_avatar(model: HeadModel, track: Track, texture: float = 40.0) -> Avatar:
    """A perfectly trained avatar of the ball."""
    networks = true_gaussians(model, texture)
    faces = track.expression.shape[1] + 9
    networks.performed, networks.filmed = unlimited_expressions(faces), unlimited_faces(faces)
    networks.enhancer = networks.blendshapes = None
    return Avatar(networks, model, track.identity, AvatarSettings(size=SIZE))
