"""The refinement of a clip's track while an avatar trains on it, and the refined track afterwards."""

from __future__ import annotations

import torch
from torch import Tensor

from ..avatar.graph_avatar import GraphAvatar
from ..avatar.pose_refinement import Motion, Refinement, middle_of
from ..avatar.posing import Pose
from ..formats.track import Track
from ..head.model import JAW
from .frames import Batch, TrainingFrames

REFINED_TRACK = "track_refined.npz"
BATCH = 16


class Refining:
    """A `Refinement` bound to the frames that it refines and the networks whose codes guide it."""

    def __init__(self, networks: GraphAvatar, frames: TrainingFrames) -> None:
        self.networks, self.frames = networks, frames
        self.refinement = Refinement(
            networks.settings.latent_size, frames.poses.head.expression_size, frames.frame_count
        ).to(frames.device)

    def pose(self, batch: Batch, rows: Tensor, elsewhere: Tensor) -> tuple[Pose, Motion, Tensor]:
        """The refined pose of a batch of these rows, the motion of its splats, and what the offsets cost. `elsewhere`
        (M,): rows whose offsets' mean is kept at zero.
        """
        codes = self._codes(batch.pose)
        units = self.refinement.units(batch.times, codes)
        pose, motion = self.frames.refined(rows, self.refinement.offsets(units))
        return pose, motion, self.refinement.penalty(units, batch.times, codes, self.frames.times(elsewhere))

    @torch.no_grad()
    def _codes(self, tracked: Pose) -> Tensor:
        # The codes describe the mesh to the refinement; they are trained for what the decoders make of them.
        return self.networks.codes(tracked)

    @torch.no_grad()
    def refined_track(self, track: Track) -> Track:
        """A new track: its training frames refined, all others as they were."""
        expression, rotations, cameras = (
            part.copy() for part in (track.expression, track.rotations, track.head_to_camera)
        )
        for start in range(0, len(self.frames), BATCH):
            rows = torch.arange(start, min(start + BATCH, len(self.frames)))
            indices = self.frames.indices[rows.numpy()]
            offsets = self.refinement(self.frames.times(rows), self._codes(self.frames.poses.pose(indices)))
            motion = offsets.motion_about(middle_of(self.frames.poses.shaped))
            expression[indices] += offsets.expression.cpu().numpy()
            rotations[indices, JAW:] += offsets.joints.cpu().numpy()
            cameras[indices] = cameras[indices] @ motion.matrices.cpu().numpy()
        return track.posed(expression=expression, rotations=rotations, head_to_camera=cameras)
