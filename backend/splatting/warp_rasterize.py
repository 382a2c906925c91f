"""The Warp rasteriser as one differentiable PyTorch function: project, sort into tiles, blend, and the backward pass.

PyTorch's tensors are shared with Warp without a copy, and the kernels run on PyTorch's current stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..errors import EffigyError
from .types import Cameras, Raster, Splats
from .warp_blend import SUMS, THREADS_PER_TILE, blend, blend_backward, find_tiles, list_copies
from .warp_project import TILE_SIZE, project, project_backward
from .warp_setup import launching, wp

MAX_COPIES = 2**31 - 1
"""Copies of Gaussians, one for each tile that they touch, that 32-bit indices can count."""


def rasterize_warp(splats: Splats, cameras: Cameras) -> Raster:
    """Splats (B, G) rendered by cameras (B) → images. Gradients reach every field of the splats, not the cameras."""
    color, alpha, depth = _Rasterize.apply(
        splats.means, splats.quaternions, splats.scales, splats.opacities, splats.colors,
        cameras.intrinsics, cameras.world_to_camera, cameras.width, cameras.height,
    )  # fmt: skip
    return Raster(color, alpha, depth)


def _array(tensor: torch.Tensor, dtype: Any = wp.float32) -> Any:
    """A tensor's memory as a flat Warp array of scalars, vectors or 3 x 3 and 4 x 4 matrices."""
    shape = getattr(dtype, "_shape_", ())
    return wp.from_torch(tensor.detach().contiguous().reshape(-1, *shape), dtype=dtype)


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
        images, count = opacities.shape
        device = means.device
        columns, rows = -(-width // TILE_SIZE), -(-height // TILE_SIZE)
        tiles = columns * rows

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        table = empty(images * count, 3, 4)
        boxes = empty(images * count, 4, dtype=torch.int32)
        touched = empty(images * count, dtype=torch.int32)
        start, end = torch.zeros(2, images * tiles, dtype=torch.int32, device=device)
        color, alpha, depth = (
            empty(images, height, width, 3),
            empty(images, height, width),
            empty(images, height, width),
        )
        stops = empty(images, height, width, dtype=torch.int32)
        with launching(device) as on:
            rows_of_table = wp.from_torch(table, dtype=wp.vec4f)
            boxes_and_touched = [_array(boxes, wp.vec4i), _array(touched, wp.int32)]
            _launch(
                project, images * count, on,
                [*_shapes(means, quaternions, scales, opacities), _array(colors, wp.vec3f),
                 *_cameras(intrinsics, world_to_camera), count, width, height, rows_of_table, *boxes_and_touched],
            )  # fmt: skip
            ends = torch.cumsum(touched, 0)
            copies = int(ends[-1]) if len(ends) else 0
            if copies > MAX_COPIES:
                raise EffigyError("The Gaussians cover too much of the image to be drawn: choose a smaller image.")
            # Twice as long as the lists, because the radix sort needs as much memory again.
            keys, ids = empty(2 * copies, dtype=torch.int64), empty(2 * copies, dtype=torch.int32)
            if copies:
                _launch(
                    list_copies, images * count, on,
                    [rows_of_table, *boxes_and_touched, _array(ends, wp.int64), count, columns, tiles,
                     _array(keys, wp.int64), _array(ids, wp.int32)],
                )  # fmt: skip
                wp.utils.radix_sort_pairs(_array(keys, wp.int64), _array(ids, wp.int32), copies)
                _launch(
                    find_tiles, copies, on,
                    [_array(keys, wp.int64), copies, _array(start, wp.int32), _array(end, wp.int32)],
                )  # fmt: skip
            _launch(
                blend, images * tiles * THREADS_PER_TILE, on,
                [rows_of_table, *(_array(tensor, wp.int32) for tensor in (ids, start, end)), columns, tiles, width,
                 height, _array(color, wp.vec3f), _array(alpha), _array(depth), _array(stops, wp.int32)],
            )  # fmt: skip
        # Saved as tensors, so that PyTorch notices when one of them is overwritten before the backward pass.
        ctx.save_for_backward(means, quaternions, scales, opacities, intrinsics, world_to_camera, color, alpha, depth)
        ctx.size = columns, tiles, width, height
        ctx.sorted = table, touched, ids, start, stops
        return color, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *shapes, intrinsics, world_to_camera, color, alpha, depth = ctx.saved_tensors
        table, touched, ids, start, stops = ctx.sorted
        columns, tiles, width, height = ctx.size
        images, count = shapes[3].shape
        device = color.device
        sums = torch.zeros(images * count, SUMS, device=device)
        by = [torch.zeros(tensor.shape, device=device) for tensor in (*shapes, shapes[0])]
        with launching(device) as on:
            _launch(
                blend_backward, images * tiles * THREADS_PER_TILE, on,
                [wp.from_torch(table, dtype=wp.vec4f), _array(ids, wp.int32), _array(start, wp.int32), columns, tiles,
                 width, height, _array(color, wp.vec3f), _array(alpha), _array(depth), _array(stops, wp.int32),
                 _array(gradients[0], wp.vec3f), _array(gradients[1]), _array(gradients[2]), wp.from_torch(sums)],
            )  # fmt: skip
            _launch(
                project_backward, images * count, on,
                [*_shapes(*shapes), *_cameras(intrinsics, world_to_camera), count, width, height,
                 _array(touched, wp.int32), wp.from_torch(sums), *_shapes(*by[:4]), _array(by[4], wp.vec3f)],
            )  # fmt: skip
        return *by, None, None, None, None


def _shapes(means: torch.Tensor, quaternions: torch.Tensor, scales: torch.Tensor, opacities: torch.Tensor) -> list[Any]:
    return [_array(means, wp.vec3f), _array(quaternions, wp.vec4f), _array(scales, wp.vec3f), _array(opacities)]


def _cameras(intrinsics: torch.Tensor, world_to_camera: torch.Tensor) -> list[Any]:
    return [_array(intrinsics, wp.mat33f), _array(world_to_camera, wp.mat44f)]


def _launch(kernel: Any, threads: int, device: Any, arguments: Sequence[Any]) -> None:
    # On a GPU, a block of threads is a tile of pixels.
    wp.launch(kernel, threads, arguments, device=device, block_dim=THREADS_PER_TILE if device.is_cuda else None)
