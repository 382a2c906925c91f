"""Images and poses of the training frames of one or several captures; images are kept as uint8 until they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ..avatar.pose_refinement import PoseOffsets, RigidMotion, head_centre, refined_pose
from ..avatar.posing import Pose, condition_size, pose_rig
from ..avatar.surface_turns import turning_lips
from ..errors import EffigyError
from ..footage.foreground import foreground_colors
from ..formats.capture import Capture, read_body_matte, read_frame, read_head_matte
from ..formats.image_files import to_bytes
from ..formats.track import Track
from ..head.forward import Head, Shaped
from ..head.model import JAW, HeadModel
from ..progress import SILENT, Progress
from ..splatting.types import Cameras
from .presets import FEWEST_FRAMES, MOST_FRAMES
from .transfers import to_device

TRAIN_FRAMES = 32
"""What evaluation finds on training frames is a mean over at most this many, evenly spaced."""
WHITE = (1.0, 1.0, 1.0)


def evenly_spaced(indices: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of `indices` (N,), evenly spaced, with the first and the last."""
    return indices[np.linspace(0, len(indices) - 1, min(len(indices), most)).round().astype(int)]


MatteReader = Callable[[Capture, int, int], np.ndarray]
"""Capture, index and size → (size, size) uint8: `read_head_matte`, or `person_matte` for the body as well."""


def person_matte(capture: Capture, index: int, size: int) -> np.ndarray:
    """(size, size) uint8: 255 = the person, with the body below the neck."""
    return cv2.add(read_head_matte(capture, index, size), read_body_matte(capture, index, size))


def read_truth(
    capture: Capture, index: int, size: int, matte_of: MatteReader = read_head_matte
) -> tuple[np.ndarray, np.ndarray]:
    """Frame `index` with everything but head and neck white, (size, size, 3) uint8 RGB, and its head matte,
    (size, size) uint8. Half-covered pixels keep the colours of the footage, unlike those of `read_cutout`, so that
    scores stay comparable with those of earlier versions.
    """
    matte = matte_of(capture, index, size)
    alpha = matte[..., None] / np.float32(255)
    return to_bytes(read_frame(capture, index, size) / np.float32(255) * alpha + (1 - alpha)), matte


def read_cutout(capture: Capture, index: int, size: int, matte_of: MatteReader = read_head_matte) -> np.ndarray:
    """Head and neck of frame `index`, (size, size, 4) uint8: the colours of the foreground, not multiplied by the last
    channel, which is the head matte.
    """
    matte = matte_of(capture, index, size)
    return np.dstack((foreground_colors(read_frame(capture, index, size), matte), matte))


def premultiplied_cutout(
    capture: Capture, index: int, size: int, matte_of: MatteReader = read_head_matte
) -> np.ndarray:
    """`read_cutout` as (size, size, 4) float32 in [0, 1], the colours multiplied by the matte."""
    cutout = read_cutout(capture, index, size, matte_of) / np.float32(255)
    cutout[..., :3] *= cutout[..., 3:]
    return cutout


@dataclass(frozen=True)
class Batch:
    """B frames of the captures."""

    pose: Pose
    cameras: Cameras
    color: Tensor
    """(B, H, W, 3) in [0, 1]: of the foreground, not multiplied by `matte`."""
    matte: Tensor
    """(B, H, W): 1 = head or neck"""
    times: Tensor
    """(B,): 0 = the first capture's first frame, 1 = the last capture's last, held-out ones included; the captures
    follow each other"""
    captures: Tensor
    """(B,) int64: which of the captures each frame belongs to"""


class TrainingFrames:
    """The good frames before the held-out part of every capture, at `size`.

    A row is a number of such a frame, a frame's index its place among all frames of all captures, one after another.
    """

    def __init__(
        self,
        captures: Capture | Sequence[Capture],
        tracks: Track | Sequence[Track],
        model: HeadModel,
        size: int,
        device: torch.device | str = "cpu",
        progress: Progress = SILENT,
        *,
        fewest: int = FEWEST_FRAMES,
        most: int = MOST_FRAMES,
        matte_of: MatteReader = read_head_matte,
        lips_turn: bool = True,
    ) -> None:
        """`captures` and their `tracks`, one for one, are of one person. `matte_of` says what of it the images show.
        More than `most` frames together are thinned evenly. `lips_turn` as in an avatar's settings. Raises an
        `EffigyError` where a capture has no good frames, or all together fewer than `fewest`.
        """
        captures = [captures] if isinstance(captures, Capture) else list(captures)
        self.poses = TrackPoses(tracks, model, torch.device(device), lips_turn=lips_turn)
        self.tracks = self.poses.tracks
        good = _good_frames(captures, self.tracks, fewest)
        self.indices = good = evenly_spaced(good, most)
        self.frame_count = sum(capture.frame_count for capture in captures)
        self._starts = starts = np.cumsum([0, *(capture.frame_count for capture in captures)])
        owners = np.searchsorted(starts, good, side="right") - 1
        self.counts = np.bincount(owners, minlength=len(captures)).tolist()
        """How many of the rows belong to each capture; those of one capture follow each other."""
        self.size = size
        self.device = torch.device(device)
        images = np.empty((len(good), size, size, 4), np.uint8)
        for row, index in enumerate(good.tolist()):
            images[row] = read_cutout(captures[owners[row]], index - int(starts[owners[row]]), size, matte_of)
            progress.update("Reading frames", row + 1, len(good))
        self._images = torch.from_numpy(images).to(self.device)
        self._index_of_row = torch.as_tensor(good, device=self.device)
        times = good / max(1, self.frame_count - 1)
        self._time_of_row = torch.as_tensor(times, dtype=torch.float32, device=self.device)
        self._capture_of_row = torch.as_tensor(owners, device=self.device)
        self.fitted: list[Track] = []
        """See `add_poses`."""

    def add_poses(self, tracks: Sequence[Track]) -> None:
        """Further poses of the frames, one track for each capture, in which `batch` can give them; none for no
        `tracks`.
        """
        self.fitted = list(tracks)
        model, turn = self.poses.head_model, self.poses.turns is not None
        self.poses = TrackPoses([*self.tracks, *self.fitted], model, self.device, lips_turn=turn)

    def __len__(self) -> int:
        return len(self.indices)

    def indices_in(self, capture: int) -> np.ndarray:
        """(counts[capture],): which frames of one capture the rows are, counted in it alone."""
        start, end = self._starts[capture : capture + 2]
        return self.indices[(self.indices >= start) & (self.indices < end)] - start

    @property
    def condition_size(self) -> int:
        """Length of a pose's conditions."""
        return condition_size(self.poses.head.expression_size)

    def batch(self, rows: Tensor, size: int, fitted: Tensor | None = None) -> Batch:
        """Rows (B,) of this object, with images scaled down to `size` by averaging; `self.size` is a multiple of
        `size`. Where `fitted` (B,) is true, the pose is that of `add_poses`, if there are any.
        """
        rows = to_device(rows, self.device)
        images = self._images[rows].permute(0, 3, 1, 2).float() / 255
        if size != self.size:
            images = torch.nn.functional.avg_pool2d(images, self.size // size)
        images = images.permute(0, 2, 3, 1)
        indices = self._index_of_row[rows]
        if self.fitted and fitted is not None:
            indices = indices + self.frame_count * fitted
        return Batch(
            self.poses.pose(indices),
            self.poses.cameras(indices, size),
            images[..., :3],
            images[..., 3],
            self.times(rows),
            self._capture_of_row[rows],
        )

    def batch_poses(self, rows: Tensor, fitted: bool = False) -> Pose:
        """The tracked poses of rows (B,), or those of `add_poses`, without images."""
        return self.poses.pose(self._index_of_row[to_device(rows, self.device)] + self.frame_count * fitted)

    def times(self, rows: Tensor) -> Tensor:
        """(B,) in [0, 1]; see `Batch.times`."""
        return self._time_of_row[to_device(rows, self.device)]

    def refined_pose(self, rows: Tensor, offsets: PoseOffsets) -> tuple[Pose, RigidMotion]:
        """Poses of rows (B,) with offsets added, and the rigid motion of their splats that the tracked cameras need."""
        return self.poses.refined_pose(self._index_of_row[to_device(rows, self.device)], offsets)


def _good_frames(captures: Sequence[Capture], tracks: Sequence[Track], fewest: int) -> np.ndarray:
    """(N,) indices of the unflagged frames before each capture's held-out part."""
    good = [
        np.flatnonzero(track.flags[: capture.training_count] == 0)
        for capture, track in zip(captures, tracks, strict=True)
    ]
    remedy = "use a longer clip, or one in which the face is whole and alone."
    for capture, own in zip(captures, good, strict=True):
        if len(captures) > 1 and not len(own):
            raise EffigyError(f"No frame of {capture.folder} can be trained on: leave it out, or {remedy}")
    if (count := sum(map(len, good))) < fewest:
        names = " and ".join(capture.source_name for capture in captures)
        raise EffigyError(
            f"Only {count} frame{'s' * (count != 1)} of {names} can be trained on ({fewest} at least): {remedy}"
        )
    starts = np.cumsum([0, *(capture.frame_count for capture in captures[:-1])])
    return np.concatenate([start + own for start, own in zip(starts, good, strict=True)])


class TrackPoses:
    """Poses and cameras of the frames of one or several tracks of a person, as tensors.

    A frame's index is its place among the frames of all tracks, one after another.
    """

    def __init__(
        self,
        tracks: Track | Sequence[Track],
        model: HeadModel,
        device: torch.device | str = "cpu",
        limits: tuple[Tensor, Tensor | None] | None = None,
        lips_turn: bool = True,
    ) -> None:
        """`limits` of an avatar, as in `pose_rig`; none while one is trained. `lips_turn` as in its settings."""
        self.limits = limits
        self.turns = turning_lips(model, device) if lips_turn else None
        self.tracks = [tracks] if isinstance(tracks, Track) else list(tracks)
        self.head_model = model
        self.head = Head(model).to(device)
        self.shaped: Shaped = self.head.shaped(torch.as_tensor(self.tracks[0].identity, device=device)[None])

        def all_frames(name: str) -> Tensor:
            return torch.cat([torch.as_tensor(getattr(track, name), device=device) for track in self.tracks])

        self._expression, self._rotations = all_frames("expression"), all_frames("rotations")
        self._cameras = all_frames("head_to_camera").float()
        self._intrinsics = torch.stack(
            [torch.as_tensor(track.intrinsics, dtype=torch.float32, device=device) for track in self.tracks]
        )
        self._sizes = torch.tensor([float(track.size) for track in self.tracks], device=device)
        self._track_of_frame = torch.as_tensor(
            np.repeat(np.arange(len(self.tracks)), [track.frame_count for track in self.tracks]), device=device
        )

    @torch.no_grad()
    def pose(self, indices: np.ndarray | Tensor) -> Pose:
        """The tracked poses of frames (B,). Indices on the device of the poses need no transfer."""
        chosen = torch.as_tensor(indices, device=self._cameras.device)
        return pose_rig(
            self.head,
            self.shaped,
            self._expression[chosen],
            self._rotations[chosen],
            self._cameras[chosen],
            self.limits,
            self.turns,
        )

    def refined_pose(self, indices: np.ndarray | Tensor, offsets: PoseOffsets) -> tuple[Pose, RigidMotion]:
        """Differentiable with respect to the offsets; see `backend.avatar.pose_refinement.refined_pose`."""
        chosen = torch.as_tensor(indices, device=self._cameras.device)
        return refined_pose(
            self.head,
            self.shaped,
            self._expression[chosen],
            self._rotations[chosen],
            self._cameras[chosen],
            offsets,
            self.limits,
            self.turns,
        )

    def vertices(self, indices: np.ndarray | Tensor, offsets: PoseOffsets) -> Tensor:
        """(B, N, 3) metres: the posed vertices with offsets of expression and joints; differentiable. The offset of the
        head's motion is left out; it moves the splats (`RigidMotion.move`).
        """
        chosen = torch.as_tensor(indices, device=self._cameras.device)
        return self.head(self.shaped, *offsets.added_to(self._expression[chosen], self._rotations[chosen])).vertices

    @torch.no_grad()
    def moved_tracks(self, indices: np.ndarray, offsets: PoseOffsets) -> list[Track]:
        """Copies of the tracks with offsets added to the frames `indices` (B,)."""
        motion = offsets.rigid_motion(head_centre(self.shaped)).matrices.cpu().numpy()
        expression, rotations, cameras = (
            np.concatenate([getattr(track, name) for track in self.tracks])
            for name in ("expression", "rotations", "head_to_camera")
        )
        expression[indices] += offsets.expression.cpu().numpy()
        rotations[indices, JAW:] += offsets.joints.cpu().numpy()
        cameras[indices] = cameras[indices] @ motion
        ends = np.cumsum([track.frame_count for track in self.tracks])[:-1]
        parts = zip(*(np.split(part, ends) for part in (expression, rotations, cameras)), strict=True)
        return [
            track.posed(expression=expression, rotations=rotations, head_to_camera=cameras)
            for track, (expression, rotations, cameras) in zip(self.tracks, parts, strict=True)
        ]

    def cameras(self, indices: np.ndarray | Tensor, size: int) -> Cameras:
        """The cameras of frames (B,) for square images of `size`; world space is head space."""
        chosen = torch.as_tensor(indices, device=self._cameras.device)
        intrinsics = self._intrinsics.clone()
        intrinsics[:, :2] *= (size / self._sizes)[:, None, None]
        return Cameras(intrinsics[self._track_of_frame[chosen]], self._cameras[chosen], size, size)
