"""Images and poses of the training frames; images are kept as uint8 until they are used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..avatar.pose_refinement import PoseOffsets, RigidMotion, head_centre, refined_pose
from ..avatar.posing import Pose, condition_size, pose_rig
from ..errors import EffigyError
from ..formats.capture import Capture, read_frame, read_head_matte
from ..formats.image_files import to_bytes
from ..formats.track import Track
from ..head.forward import Head, Shaped
from ..head.model import JAW, HeadModel
from ..progress import SILENT, Progress
from ..splatting.types import Cameras
from .transfers import to_device

MAX_FRAMES = 3000
"""A longer clip is thinned evenly to this many frames: they take 0.8 GB at 256 x 256, and neighbours at 25 frames a
second differ little."""


def evenly_spaced(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `indices` (N,), evenly spaced, with the first and the last."""
    return indices[np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int)]


def read_truth(capture: Capture, index: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame `index` with everything but head and neck white, (size, size, 3) uint8 RGB, and its head matte,
    (size, size) uint8.
    """
    matte = read_head_matte(capture, index, size)
    alpha = matte[..., None] / np.float32(255)
    return to_bytes(read_frame(capture, index, size) / np.float32(255) * alpha + (1 - alpha)), matte


@dataclass(frozen=True)
class Batch:
    """B frames of a clip."""

    pose: Pose
    cameras: Cameras
    color: Tensor
    """(B, H, W, 3) in [0, 1]"""
    matte: Tensor
    """(B, H, W): 1 = head or neck"""
    times: Tensor
    """(B,): 0 = the clip's first frame, 1 = its last, held-out ones included"""


class TrainingFrames:
    """The good frames before the held-out part of a capture, at `size`."""

    def __init__(
        self,
        capture: Capture,
        track: Track,
        model: HeadModel,
        size: int,
        device: torch.device | str = "cpu",
        progress: Progress = SILENT,
    ) -> None:
        good = np.flatnonzero(track.flags[: capture.training_count] == 0)
        if len(good) < 8:
            raise EffigyError(
                f"Only {len(good)} frames of {capture.source_name} can be trained on (8 at least): "
                "use a longer clip, or one in which the face is whole and alone."
            )
        if len(good) > MAX_FRAMES:
            good = evenly_spaced(good, MAX_FRAMES)
        self.indices = good
        self.frame_count = capture.frame_count
        self.size = size
        self.device = torch.device(device)
        images = np.empty((len(good), size, size, 4), np.uint8)
        for row, index in enumerate(good.tolist()):
            images[row, ..., :3] = read_frame(capture, index, size)
            images[row, ..., 3] = read_head_matte(capture, index, size)
            progress.update("Reading frames", row + 1, len(good))
        self._images = torch.from_numpy(images).to(self.device)
        self._index_of_row = torch.as_tensor(good, device=self.device)
        times = good / max(1, self.frame_count - 1)
        self._time_of_row = torch.as_tensor(times, dtype=torch.float32, device=self.device)
        self.poses = TrackPoses(track, model, self.device)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def condition_size(self) -> int:
        """Length of a pose's conditions."""
        return condition_size(self.poses.head.expression_size)

    def batch(self, rows: Tensor, size: int) -> Batch:
        """Rows (B,) of this object, with images scaled down to `size` by averaging; `self.size` is a multiple of
        `size`.
        """
        rows = to_device(rows, self.device)
        images = self._images[rows].permute(0, 3, 1, 2).float() / 255
        if size != self.size:
            images = torch.nn.functional.avg_pool2d(images, self.size // size)
        images = images.permute(0, 2, 3, 1)
        indices = self._index_of_row[rows]
        return Batch(
            self.poses.pose(indices),
            self.poses.cameras(indices, size),
            images[..., :3],
            images[..., 3],
            self.times(rows),
        )

    def batch_poses(self, rows: Tensor) -> Pose:
        """The tracked poses of rows (B,), without images."""
        return self.poses.pose(self._index_of_row[to_device(rows, self.device)])

    def times(self, rows: Tensor) -> Tensor:
        """(B,) in [0, 1]; see `Batch.times`."""
        return self._time_of_row[to_device(rows, self.device)]

    def refined_pose(self, rows: Tensor, offsets: PoseOffsets) -> tuple[Pose, RigidMotion]:
        """Poses of rows (B,) with offsets added, and the rigid motion of their splats that the tracked cameras need."""
        return self.poses.refined_pose(self._index_of_row[to_device(rows, self.device)], offsets)


class TrackPoses:
    """Poses and cameras of a track's frames, as tensors."""

    def __init__(self, track: Track, model: HeadModel, device: torch.device | str = "cpu") -> None:
        self.track = track
        self.head = Head(model).to(device)
        self.shaped: Shaped = self.head.shaped(torch.as_tensor(track.identity, device=device)[None])
        self._expression = torch.as_tensor(track.expression, device=device)
        self._rotations = torch.as_tensor(track.rotations, device=device)
        self._cameras = torch.as_tensor(track.head_to_camera, dtype=torch.float32, device=device)
        self._intrinsics = torch.as_tensor(track.intrinsics, dtype=torch.float32, device=device)

    @torch.no_grad()
    def pose(self, indices: np.ndarray | Tensor) -> Pose:
        """The tracked poses of frames (B,) of the track. Indices on the device of the poses need no transfer."""
        chosen = torch.as_tensor(indices, device=self._cameras.device)
        return pose_rig(
            self.head, self.shaped, self._expression[chosen], self._rotations[chosen], self._cameras[chosen]
        )

    def refined_pose(self, indices: np.ndarray | Tensor, offsets: PoseOffsets) -> tuple[Pose, RigidMotion]:
        """Differentiable with respect to the offsets; see `backend.avatar.pose_refinement.refined_pose`."""
        chosen = torch.as_tensor(indices, device=self._cameras.device)
        return refined_pose(
            self.head, self.shaped, self._expression[chosen], self._rotations[chosen], self._cameras[chosen], offsets
        )

    def vertices(self, indices: np.ndarray | Tensor, offsets: PoseOffsets) -> Tensor:
        """(B, N, 3) metres: the posed vertices with offsets of expression and joints; differentiable. The offset of the
        head's motion is left out; it moves the splats (`RigidMotion.move`).
        """
        chosen = torch.as_tensor(indices, device=self._cameras.device)
        return self.head(self.shaped, *offsets.added_to(self._expression[chosen], self._rotations[chosen])).vertices

    @torch.no_grad()
    def moved_track(self, indices: np.ndarray, offsets: PoseOffsets) -> Track:
        """A copy of the track with offsets added to the frames `indices` (B,)."""
        motion = offsets.rigid_motion(head_centre(self.shaped)).matrices.cpu().numpy()
        expression, rotations, cameras = (
            part.copy() for part in (self.track.expression, self.track.rotations, self.track.head_to_camera)
        )
        expression[indices] += offsets.expression.cpu().numpy()
        rotations[indices, JAW:] += offsets.joints.cpu().numpy()
        cameras[indices] = cameras[indices] @ motion
        return self.track.posed(expression=expression, rotations=rotations, head_to_camera=cameras)

    def cameras(self, indices: np.ndarray | Tensor, size: int) -> Cameras:
        """The cameras of frames (B,) for square images of `size`; world space is head space."""
        intrinsics = self._intrinsics.clone()
        intrinsics[:2].mul_(size / self.track.size)
        poses = self._cameras[torch.as_tensor(indices, device=self._cameras.device)]
        return Cameras(intrinsics.expand(len(poses), 3, 3), poses, size, size)
