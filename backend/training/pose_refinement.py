"""Pose refinement during training: the track's poses are corrected jointly with the networks, then saved as a track."""

from __future__ import annotations

import torch
from torch import Tensor

from ..avatar.graph_avatar import GraphAvatar
from ..avatar.pose_refinement import PoseRefinementNetwork, RigidMotion, offsets_from_units
from ..avatar.posing import Pose
from ..formats.track import Track
from .frames import Batch, TrainingFrames

REFINED_TRACK = "track_refined.npz"
BATCH = 16


class PoseRefiner:
    """A `PoseRefinementNetwork` together with the training frames that it refines and the avatar networks that guide
    it.
    """

    def __init__(self, networks: GraphAvatar, frames: TrainingFrames) -> None:
        self.networks, self.frames = networks, frames
        self.refinement = PoseRefinementNetwork(
            networks.code_size, frames.poses.head.expression_size, frames.frame_count
        ).to(frames.device)

    def pose(self, batch: Batch, rows: Tensor, other_rows: Tensor) -> tuple[Pose, RigidMotion, Tensor]:
        """The refined poses of a batch with these rows, the rigid motion of its splats, and the penalty of the offsets.

        `other_rows` (M,): rows over which the mean of the offsets is kept at zero.
        """
        codes = self._codes(batch.pose)
        units = self.refinement.units(batch.times, codes)
        pose, motion = self.frames.refined_pose(rows, offsets_from_units(units))
        return pose, motion, self.refinement.penalty(units, batch.times, codes, self.frames.times(other_rows))

    @torch.no_grad()
    def _codes(self, tracked: Pose) -> Tensor:
        # Without gradient: the codes only describe the pose here, and are trained by the Gaussians alone.
        return self.networks.codes(tracked)

    @torch.no_grad()
    def refined_tracks(self) -> list[Track]:
        """Copies of the tracks in which the training frames are refined and all other frames are unchanged."""
        units = [
            self.refinement.units(
                self.frames.times(rows), self._codes(self.frames.poses.pose(self.frames.indices[rows.numpy()]))
            )
            for rows in torch.arange(len(self.frames)).split(BATCH)
        ]
        return self.frames.poses.moved_tracks(self.frames.indices, offsets_from_units(torch.cat(units)))
