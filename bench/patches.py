"""Patches of training images at full resolution, with the cameras that draw only them, for `bench.detail`.

A patch is what a camera sees whose principal point is moved by the patch's corner (the sliding window of Tri2-plane,
section 3.3), so that drawing it takes no longer than drawing a whole image of its size.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from backend.splatting.types import Cameras
from backend.training.frames import Batch, TrainingFrames


def cut(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Images (B, H, W, ...) → their patches (B, side, side, ...); `corners` (B, 2) are (y, x) of the first pixel."""
    return torch.stack(
        [image[y : y + side, x : x + side] for image, (y, x) in zip(images, corners.tolist(), strict=True)]
    )


def patch_cameras(cameras: Cameras, corners: Tensor, side: int) -> Cameras:
    """The cameras of the patches, from those of the whole images."""
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, :2, 2] -= corners.flip(-1)
    return replace(cameras, intrinsics=intrinsics, width=side, height=side)


class PatchedFrames(TrainingFrames):
    """Training frames of which every so many batches show patches at full resolution, half as wide as the images, and
    the other batches whole images.
    """

    def __init__(self, frames: TrainingFrames, every: int, seed: int, multiple: int = 1) -> None:
        """Corners of the patches are multiples of `multiple` pixels."""
        self.__dict__ |= frames.__dict__
        self._every, self._multiple, self._batches = every, multiple, 0
        self._generator = torch.Generator().manual_seed(seed)

    def batch(self, rows: Tensor, size: int, fitted: Tensor | None = None) -> Batch:
        """As that of TrainingFrames; patches where `size` is half of `self.size` and it is a patch's turn."""
        side = self.size // 2
        if size != side:
            return super().batch(rows, size, fitted)
        self._batches += 1
        if self._batches % self._every:
            return super().batch(rows, size, fitted)
        whole = super().batch(rows, self.size, fitted)
        steps = (self.size - side) // self._multiple + 1
        corners = self._multiple * torch.randint(steps, (len(rows), 2), generator=self._generator)
        return replace(
            whole,
            cameras=patch_cameras(whole.cameras, corners, side),
            color=cut(whole.color, corners, side),
            matte=cut(whole.matte, corners, side),
        )
