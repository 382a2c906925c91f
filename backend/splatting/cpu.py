"""The CPU rasteriser as one differentiable PyTorch function: `cpu_forward` and `cpu_backward` joined."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch.autograd.function import FunctionCtx, once_differentiable

from .cpu_backward import SUMS, blend_backward, project_backward
from .cpu_forward import FIELDS, TILE_WIDTH, TILE_HEIGHT, blend, project, sort_into_tiles
from .jit import ONE_AT_A_TIME
from .types import Cameras, Raster, Splats


def rasterize_cpu(splats: Splats, cameras: Cameras) -> Raster:
    """Splats (B, G) seen by cameras (B) → pictures; gradients reach every field of the splats, none the cameras."""
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
        ctx: FunctionCtx,
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
        pictures, count = opacities.shape
        columns, rows = -(-width // TILE_WIDTH), -(-height // TILE_HEIGHT)
        table = np.empty((pictures, count, FIELDS), np.float32)
        touched = np.empty((pictures, count), np.int32)
        tile_start = np.empty((pictures, columns * rows + 1), np.int64)
        tile_end = np.empty((pictures, columns * rows), np.int64)
        color = torch.empty(pictures, height, width, 3)
        alpha = torch.empty(pictures, height, width)
        depth = torch.empty(pictures, height, width)
        with ONE_AT_A_TIME:
            project(*shapes, _array(colors), *camera, width, height, table, touched)
            base = np.zeros(pictures + 1, np.int64)
            np.cumsum(touched.sum(1, dtype=np.int64), out=base[1:])
            ids = np.empty(base[-1], np.int32)
            slots = np.empty(base[-1], np.int32)
            spans = np.empty((base[-1], 2), np.uint8)
            sort_into_tiles(table, touched, columns, rows, base, ids, slots, tile_start)
            blend(
                table, ids, spans, tile_start, tile_end, width, height, numba.get_num_threads(),
                color.numpy(), alpha.numpy(), depth.numpy(),
            )
        ctx.save_for_backward(color, alpha, depth)
        ctx.size = width, height
        ctx.inputs = shapes, camera
        ctx.sorted = table, touched, base, ids, slots, spans, tile_start, tile_end
        return color, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        pictures = [_array(picture) for picture in ctx.saved_tensors]
        shapes, camera = ctx.inputs
        table, touched, base, ids, slots, spans, tile_start, tile_end = ctx.sorted
        sums = np.empty((len(ids), SUMS), np.float32)
        by = [torch.empty(tuple(shape.shape)) for shape in shapes]
        by_colors = torch.empty(tuple(shapes[0].shape))
        threads = numba.get_num_threads()
        with ONE_AT_A_TIME:
            blend_backward(
                table, ids, spans, tile_start, tile_end, *ctx.size, threads, *pictures, *(_array(g) for g in gradients), sums
            )
            project_backward(
                *shapes, *camera, *ctx.size, threads, table, touched, base, slots, sums,
                *(tensor.numpy() for tensor in by), by_colors.numpy(),
            )  # fmt: skip
        return *by, by_colors, None, None, None, None
