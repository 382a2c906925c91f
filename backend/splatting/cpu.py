"""The CPU rasteriser as one differentiable PyTorch function: project, sort into tiles, blend, and the backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from .cpu_blend import blend, blend_backward
from .cpu_project import SUMS, project, project_backward
from .cpu_tiles import FIELDS, TILE_HEIGHT, TILE_WIDTH, sort_into_tiles
from .threads import share
from .types import Cameras, Raster, Splats


def rasterize_cpu(splats: Splats, cameras: Cameras) -> Raster:
    """Splats (B, G) rendered by cameras (B) → images. Gradients reach every field of the splats, not the cameras."""
    color, alpha, depth = _Rasterize.apply(
        splats.means, splats.quaternions, splats.scales, splats.opacities, splats.colors,
        cameras.intrinsics, cameras.world_to_camera, cameras.width, cameras.height,
    )  # fmt: skip
    return Raster(color, alpha, depth)


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: torch.Tensor,
        quaternions: torch.Tensor,
        scales: torch.Tensor,
        opacities: torch.Tensor,
        colors: torch.Tensor,
        intrinsics: torch.Tensor,
        world_to_camera: torch.Tensor,
        width: int,
        height: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shapes = [_array(tensor) for tensor in (means, quaternions, scales, opacities)]
        camera = [_array(intrinsics), _array(world_to_camera)]
        images, count = opacities.shape
        columns, rows = -(-width // TILE_WIDTH), -(-height // TILE_HEIGHT)
        table = np.empty((images, count, FIELDS), np.float32)
        touched = np.empty((images, count), np.int32)
        tile_start = np.empty((images, columns * rows + 1), np.int64)
        tile_end = np.empty((images, columns * rows), np.int64)
        color = torch.empty(images, height, width, 3)
        alpha = torch.empty(images, height, width)
        depth = torch.empty(images, height, width)
        share(project, *shapes, _array(colors), *camera, width, height, table, touched)
        base = np.zeros(images + 1, np.int64)
        np.cumsum(touched.sum(1, dtype=np.int64), out=base[1:])
        first = np.empty((images, count), np.int64)
        ids = np.empty(base[-1], np.int32)
        slots = np.empty(base[-1], np.int32)
        spans = np.empty((base[-1], 2), np.uint8)
        share(sort_into_tiles, table, touched, columns, rows, base, first, ids, slots, tile_start, parts=images)
        share(
            blend, table, ids, spans, tile_start, tile_end, width, height, color.numpy(), alpha.numpy(), depth.numpy()
        )
        # Saved as tensors, so that PyTorch notices when one of them is overwritten before the backward pass.
        ctx.save_for_backward(means, quaternions, scales, opacities, intrinsics, world_to_camera, color, alpha, depth)
        ctx.size = width, height
        ctx.sorted = table, touched, first, ids, slots, spans, tile_start, tile_end
        return color, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        saved = [_array(tensor) for tensor in ctx.saved_tensors]
        splats_and_cameras, images = saved[:6], saved[6:]
        table, touched, first, ids, slots, spans, tile_start, tile_end = ctx.sorted
        sums = np.empty((len(ids), SUMS), np.float32)
        by = [torch.empty(tensor.shape) for tensor in ctx.saved_tensors[:4]]
        by.append(torch.empty_like(by[0]))
        share(
            blend_backward, table, ids, spans, tile_start, tile_end, *ctx.size,
            *images, *(_array(gradient) for gradient in gradients), sums,
        )  # fmt: skip
        share(
            project_backward, *splats_and_cameras, *ctx.size, table, touched, first, slots, sums,
            *(tensor.numpy() for tensor in by),
        )  # fmt: skip
        return *by, None, None, None, None
