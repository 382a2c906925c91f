"""The random numbers of one training step, drawn on the CPU and copied to the device of training.

They are functions of seed and step, so that a resumed run sees the same frames as an uninterrupted one. They are drawn
for the whole batch, so that results do not depend on the number of workers among which its frames are distributed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .frames import TrainingFrames
from .transfers import to_device

MEAN_ROWS = 8
"""Pose refinement keeps the mean of its offsets over all frames at zero. Each step estimates this mean on random
frames, as many as this for each frame of the step."""


@dataclass(frozen=True)
class StepDraws:
    """Random numbers for B frames of a step; tensors lie on the device of training."""

    rows: Tensor
    """(B,) int64: the frames, as indices into `TrainingFrames`."""
    noise: Tensor
    """(B, condition size) that is added to `Pose.conditions`."""
    background: Tensor
    """(B, 3) in [0, 1]: the colour behind each frame; see `losses.image_loss`."""
    crops: list[list[int]]
    """B times (y, x), pixels: top-left corners of the crops of the perceptual loss; see `losses.image_loss`."""
    other_rows: Tensor
    """(B, MEAN_ROWS) int64: see `PoseRefiner.pose`."""
    fitted: Tensor
    """(B,) bool: the frames that are asked for in the poses of `TrainingFrames.add_poses`."""

    def split(self, parts: int) -> list[StepDraws]:
        """The draws for at most `parts` equal parts of the batch."""
        size = -(-len(self.crops) // parts)
        return [
            StepDraws(
                self.rows[start : start + size],
                self.noise[start : start + size],
                self.background[start : start + size],
                self.crops[start : start + size],
                self.other_rows[start : start + size],
                self.fitted[start : start + size],
            )
            for start in range(0, len(self.crops), size)
        ]


def draw_step(
    frames: TrainingFrames,
    rows: Tensor,
    batch: int,
    *,
    seed: int,
    step: int,
    condition_noise: float,
    crop_range: int,
) -> StepDraws:
    """The draws of step number `step` with `batch` frames, chosen from `rows` (R,).

    `condition_noise` is the standard deviation of `StepDraws.noise`; `crop_range` is the image's side minus the crop's,
    pixels.
    """
    generator = torch.Generator().manual_seed(seed + step)
    noise = condition_noise * torch.randn((batch, frames.condition_size), generator=generator)
    background = torch.rand((batch, 3), generator=generator)
    # The perceptual crop stays in the middle half of the image, where the head is.
    corners = 0.25 + 0.5 * torch.rand((batch, 2), generator=generator)
    other_rows = torch.randint(len(frames), (batch, MEAN_ROWS), generator=generator)
    fitted = torch.rand(batch, generator=generator) < 0.5
    return StepDraws(
        to_device(rows_of_step(rows, batch, seed, step), frames.device),
        to_device(noise, frames.device),
        to_device(background, frames.device),
        (corners * crop_range).long().tolist(),
        to_device(other_rows, frames.device),
        to_device(fitted, frames.device),
    )


def rows_of_step(rows: Tensor, batch: int, seed: int, step: int) -> Tensor:
    """(batch,): the elements of `rows` (R,) that step number `step` uses. Each epoch visits every row once, in shuffled
    order.
    """
    count = len(rows)
    positions = torch.arange(step * batch, (step + 1) * batch)
    orders = {
        epoch: torch.randperm(count, generator=torch.Generator().manual_seed(seed + 7919 * epoch))
        for epoch in set((positions // count).tolist())
    }
    return rows[torch.stack([orders[position // count][position % count] for position in positions.tolist()])]
