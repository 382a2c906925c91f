"""Held-out frames with the pose fitted again at test time: what a score would be if tracking were perfect.

The avatar is fixed; expression, jaw, eyes and the head's motion of one frame are fitted to its picture. Papers report
such figures as if they were the avatar's own. Here they only say how much of the error is the tracker's, and stand
apart.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..avatar.avatar import Avatar
from ..avatar.enhancer import enhance
from ..avatar.pose_refinement import EXPRESSION_UNIT, JOINT_UNIT, SHIFT_UNIT, TURN_UNIT, Offsets
from ..avatar.render import Frame, frames_of
from ..splatting.rasterize import rasterize
from ..splatting.types import Raster, Splats
from .frames import TrackPoses

STEPS = 40
RATE = 0.3
"""In the refinement's units: about a third of a degree, 1 mm or 0.03 of a coefficient a step at first."""


def draw_refitted(
    avatar: Avatar, poses: TrackPoses, index: int, size: int, truth: np.ndarray, steps: int = STEPS
) -> Frame:
    """The frame drawn with the pose that explains `truth` (size, size, 3) uint8 over white best; it starts as tracked,
    and ends no worse by mean absolute difference.
    """
    device = avatar.device
    wanted = torch.as_tensor(truth, device=device)[None].float() / 255
    units = torch.zeros(1, poses.head.expression_size + 15, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([units], RATE)
    cameras = poses.cameras(np.array([index]), size)
    best: tuple[Raster, Splats] | None = None
    least = math.inf
    for step in range(steps + 1):
        expression, joints, turn, shift = units.split((poses.head.expression_size, 9, 3, 3), 1)
        offsets = Offsets(
            EXPRESSION_UNIT * expression,
            (JOINT_UNIT * joints).unflatten(1, (3, 3)),
            torch.cat((TURN_UNIT * turn, SHIFT_UNIT * shift), 1),
        )
        pose, motion = poses.refined(np.array([index]), offsets)
        splats = motion.move(avatar.networks(pose)[0])
        raster = rasterize(splats, cameras)
        loss = (raster.color + (1 - raster.alpha[..., None]) - wanted).abs().mean()
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
