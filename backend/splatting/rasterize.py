"""`rasterize`: the common interface of all rasterisers of Gaussians. It checks its arguments and selects the
backend.
"""

from __future__ import annotations

from typing import Literal

import torch

from ..errors import EffigyError
from .types import Cameras, Raster, Splats

Backend = Literal["auto", "cpu", "cuda", "warp", "reference"]


def rasterize(splats: Splats, cameras: Cameras, *, backend: Backend = "auto") -> Raster:
    """Rasterise B sets of G Gaussians with B cameras.

    Args:
        splats: world space, fields (B, G, ...); Gaussians with opacity below 1/255 are not drawn.
        cameras: B pinhole cameras of one image size, with the splats on one device.
        backend: "cpu" (numba), "cuda" (gsplat), "warp" (NVIDIA Warp, on a GPU or a CPU), "reference" (slow PyTorch, any
            float dtype), or "auto": by the device on which the splats lie, numba on a CPU, and on a GPU gsplat where it
            works and Warp otherwise.

    Returns:
        colour (B, H, W, 3) premultiplied on black, alpha and accumulated depth (B, H, W), differentiable by every
        field of the splats. Cameras get no gradient: to refine a pose, move the splats.

    """
    _check(splats, cameras)
    if backend == "auto":
        if splats.means.is_cuda:
            from .gpu_choice import choose_gpu_rasterizer

            choice = choose_gpu_rasterizer()
            if choice.backend is None:
                raise EffigyError(f"No rasteriser works on the GPU: {choice.explanation}. Use the device cpu.")
            backend = choice.backend
        else:
            backend = "cpu"
    if backend == "reference":
        from .reference import rasterize_reference

        return rasterize_reference(splats, cameras)
    for name, tensor in vars(splats).items():
        if tensor.dtype != torch.float32:
            raise EffigyError(f"The rasteriser takes float32, but splats.{name} is {tensor.dtype}. Convert it first.")
    if backend == "cpu":
        if splats.means.is_cuda:
            raise EffigyError("The CPU rasteriser was asked to draw splats that lie on the GPU. Move them with .cpu().")
        from .cpu import rasterize_cpu

        return rasterize_cpu(splats, cameras)
    if backend == "cuda":
        from .cuda import rasterize_cuda

        return rasterize_cuda(splats, cameras)
    if backend == "warp":
        from .warp_rasterize import rasterize_warp

        return rasterize_warp(splats, cameras)
    raise EffigyError(f"There is no rasteriser '{backend}'. Choose auto, cpu, cuda, warp or reference.")


def _check(splats: Splats, cameras: Cameras) -> None:
    """Check shapes, devices and the image size; the error names the wrong field."""
    if splats.means.ndim != 3 or splats.means.shape[-1] != 3:
        raise EffigyError(f"splats.means must be (images, Gaussians, 3), but is {tuple(splats.means.shape)}.")
    images, count = splats.means.shape[:2]
    expected = {
        "quaternions": (splats.quaternions, (images, count, 4)),
        "scales": (splats.scales, (images, count, 3)),
        "opacities": (splats.opacities, (images, count)),
        "colors": (splats.colors, (images, count, 3)),
        "intrinsics": (cameras.intrinsics, (images, 3, 3)),
        "world_to_camera": (cameras.world_to_camera, (images, 4, 4)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise EffigyError(
                f"'{name}' must be {shape} to go with splats.means {tuple(splats.means.shape)}, "
                f"but is {tuple(tensor.shape)}."
            )
        if tensor.device != splats.means.device:
            raise EffigyError(f"'{name}' lies on {tensor.device}, but splats.means on {splats.means.device}.")
    if cameras.width < 1 or cameras.height < 1:
        raise EffigyError(f"An image of {cameras.width} x {cameras.height} pixels cannot be drawn.")
