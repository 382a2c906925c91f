"""An enhancer as 2x super-resolution, for `bench.detail`: the Gaussians are drawn at half the size."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.avatar.enhancer import HEAD_RADIUS, Enhancer, enhance, head_depth
from backend.avatar.graph_avatar import GraphAvatar
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Raster, Splats
from backend.training.frames import TrainingFrames
from backend.training.losses import image_loss
from backend.training.step_draws import rows_of_step

from .patches import PatchedFrames


class Doubling(Enhancer):
    """An enhancer of images at half the size, whose residual is added to the image enlarged to the whole size."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        # No pixel-unshuffle: the input has the U-Net's resolution.
        self.fine.first = nn.Conv2d(4, width, 3, padding=1)

    def forward(self, raster: Raster, depth: Tensor, scale: float = 1.0) -> Raster:
        with torch.no_grad():
            relative = (raster.depth - raster.alpha * depth[:, None, None]) / HEAD_RADIUS
            inputs = torch.cat((raster.color, raster.alpha[..., None]), -1).permute(0, 3, 1, 2)
            large = functional.interpolate(inputs, scale_factor=2, mode="bicubic", align_corners=False).clamp_min(0)
        relative = relative[:, None]
        half, quarter = functional.avg_pool2d(relative, 2), functional.avg_pool2d(relative, 4)
        fine = self.fine(inputs, relative)
        middle = self.middle(functional.avg_pool2d(fine, 2), half)
        coarse = self.coarse(functional.avg_pool2d(middle, 2), quarter)
        x = self.middle_up(torch.cat((functional.interpolate(coarse, scale_factor=2), middle), 1), half)
        x = self.fine_up(torch.cat((functional.interpolate(x, scale_factor=2), fine), 1), relative)
        residual = functional.pixel_shuffle(self.out(x), 2)
        alpha = large[:, 3].clamp_max(1)
        color = large[:, :3] + residual * alpha[:, None]
        return Raster(color.permute(0, 2, 3, 1), alpha, alpha)


def halved(cameras: Cameras) -> Cameras:
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, :2] *= 0.5
    return replace(cameras, intrinsics=intrinsics, width=cameras.width // 2, height=cameras.height // 2)


def train_doubling(networks: GraphAvatar, frames: TrainingFrames, width: int, minutes: float, seed: int) -> Doubling:
    """An enhancer that doubles what the finished `networks` draw, trained for so much processor time."""
    doubling, step = Doubling(width), 0
    # Even corners, so that the halved image's pixels are whole.
    patched = PatchedFrames(frames, 1, seed, 2)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(doubling.parameters(), 2e-3)
    started = time.process_time()
    end = started + 60 * minutes * torch.get_num_threads()
    while time.process_time() < end:
        done = (time.process_time() - started) / (end - started)
        optimizer.param_groups[0]["lr"] = 2e-3 * (0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * done)))
        rows = rows_of_step(torch.arange(len(patched)), 4, seed, step)
        batch = patched.batch(rows, frames.size // 2)
        background = torch.rand((4, 3), generator=generator)
        with torch.no_grad():
            splats = networks(batch.pose)[0]
            small = rasterize(splats, halved(batch.cameras))
        image = doubling(small, head_depth(splats, batch.cameras))
        loss = image_loss(image, batch, background, None, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
    return doubling.eval()


def drawn(splats: Splats, cameras: Cameras, enhancer: Enhancer | None) -> Raster:
    if isinstance(enhancer, Doubling):
        raster = enhancer(rasterize(splats, halved(cameras)), head_depth(splats, cameras))
        return replace(raster, color=torch.minimum(raster.color.clamp_min(0), raster.alpha[..., None]))
    return enhance(enhancer, rasterize(splats, cameras), splats, cameras)
