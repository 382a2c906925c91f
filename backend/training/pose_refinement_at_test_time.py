"""Test-time pose optimisation of held-out frames: an estimate of the score that perfect tracking would give.

The avatar is fixed; expression, jaw, eyes and head pose of one frame are optimised to fit its image. Papers report such
scores as the avatar's own. Here they are reported separately, and only tell how much of the error is the tracker's.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..avatar.avatar import Avatar
from ..avatar.enhancer import enhance
from ..avatar.pose_refinement import offsets_from_units
from ..avatar.render import Frame, frames_of
from ..splatting.rasterize import rasterize
from ..splatting.types import Raster, Splats
from .frames import TrackPoses

STEPS = 40
RATE = 0.3
"""In units of the pose refinement: at first about a third of a degree, 1 mm or 0.03 of a coefficient per step."""


def draw_with_optimised_pose(
    avatar: Avatar, poses: TrackPoses, index: int, size: int, truth: np.ndarray, steps: int = STEPS
) -> Frame:
    """The frame rendered with the pose that fits `truth` (size, size, 3) uint8, over white, best.

    The optimisation starts from the tracked pose and keeps the best step, so the mean absolute difference never grows.
    """
    device = avatar.device
    target = torch.as_tensor(truth, device=device)[None].float() / 255
    units = torch.zeros(1, poses.head.expression_size + 15, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([units], RATE)
    cameras = poses.cameras(np.array([index]), size)
    best: tuple[Raster, Splats] | None = None
    least = math.inf
    for step in range(steps + 1):
        pose, motion = poses.refined_pose(np.array([index]), offsets_from_units(units))
        splats = motion.move(avatar.networks(pose)[0])
        raster = rasterize(splats, cameras)
        loss = (raster.color + (1 - raster.alpha[..., None]) - target).abs().mean()
        if loss.item() < least:
            least, best = loss.item(), (raster, splats)
        if step < steps:
            for group in optimizer.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        assert best is not None, "the loop runs at least once"
        raster = Raster(*(tensor.detach() for tensor in vars(best[0]).values()))
        splats = Splats(*(tensor.detach() for tensor in vars(best[1]).values()))
        return frames_of(enhance(avatar.enhancer, raster, splats, cameras))[0]
