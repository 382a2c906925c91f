"""A small picture that a rasteriser must draw, and differentiate, as the reference does before it is used on a device.

A GPU can be present and still give wrong or no results: kernels that fail to compile, a PyTorch build without code for
the card, a driver that is too old. Only drawing shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from .reference import rasterize_reference
from .types import Cameras, Raster, Splats

GAUSSIANS = 60
WIDTH, HEIGHT = 40, 24
"""Neither is a multiple of a tile's side, so that tiles at the picture's edges are drawn as well."""
MAX_IMAGE_ERROR = 1e-3
"""Largest absolute difference of a pixel. gsplat and the reference agree to this (`tests/backend`)."""
MAX_GRADIENT_ERROR = 1e-2
"""Norm of the difference of a gradient, relative to the norm of the gradient."""

Draw = Callable[[Splats, Cameras], Raster]


def small_scene(device: torch.device) -> tuple[Splats, Cameras]:
    """One image of random Gaussians, some behind the camera and some beyond the picture's edges, on a device."""
    generator = torch.Generator().manual_seed(7)
    splats = Splats(
        means=0.5 * torch.randn(1, GAUSSIANS, 3, generator=generator),
        quaternions=torch.randn(1, GAUSSIANS, 4, generator=generator),
        scales=torch.exp(0.7 * torch.randn(1, GAUSSIANS, 3, generator=generator) - 2.5),
        opacities=torch.rand(1, GAUSSIANS, generator=generator),
        colors=torch.rand(1, GAUSSIANS, 3, generator=generator),
    )
    view = torch.eye(4)
    view[0, 0] = view[2, 2] = math.cos(0.3)
    view[0, 2], view[2, 0] = math.sin(0.3), -math.sin(0.3)
    view[2, 3] = 1.2
    intrinsics = torch.tensor([[40.0, 0, WIDTH / 2 + 1], [0, 42.0, HEIGHT / 2 - 1], [0, 0, 1]])
    on_device = Splats(*(tensor.to(device) for tensor in vars(splats).values()))
    return on_device, Cameras(intrinsics[None].to(device), view[None].to(device), WIDTH, HEIGHT)


def fault_of(draw: Draw, device: torch.device) -> str | None:
    """Why `draw` cannot be used on `device`, as a sentence without its full stop, or None where it can.

    Colour, alpha, depth and the gradients of all fields of the splats are compared with the reference's.
    """
    try:
        images, gradients = _drawn(draw, device, torch.float32)
    except Exception as error:
        # Compilers, drivers and extension modules raise every kind of exception.
        return first_line(error)
    true_images, true_gradients = _drawn(rasterize_reference, torch.device("cpu"), torch.float64)
    for name, truth in true_images.items():
        error = float((images[name] - truth).abs().max())
        if not error <= MAX_IMAGE_ERROR:
            return f"it draws a wrong picture ({name} differs from the reference by {error:.2g})"
    for name, truth in true_gradients.items():
        error = float((gradients[name] - truth).norm() / truth.norm())
        if not error <= MAX_GRADIENT_ERROR:
            return f"its gradient of the {name} is wrong by {100 * error:.2g} %"
    return None


def first_line(error: BaseException) -> str:
    """The first line of an exception's message without its full stop, at most 200 characters, or its type's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0].rstrip(".") if lines else type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"


def _drawn(
    draw: Draw, device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The images of the small scene, and the gradients of a fixed weighting of them, as float64 on the CPU."""
    with torch.inference_mode(False), torch.enable_grad():
        splats, cameras = small_scene(device)
        leaves = Splats(*(tensor.to(dtype).requires_grad_() for tensor in vars(splats).values()))
        cameras = Cameras(cameras.intrinsics.to(dtype), cameras.world_to_camera.to(dtype), WIDTH, HEIGHT)
        images = vars(draw(leaves, cameras))
        generator = torch.Generator().manual_seed(8)
        weights = [torch.rand(image.shape, generator=generator) for image in images.values()]
        loss = sum(
            ((image * weight.to(image)).sum() for image, weight in zip(images.values(), weights, strict=True)),
            torch.zeros((), device=device),
        )
        gradients = torch.autograd.grad(loss, list(vars(leaves).values()))
    return (
        {name: image.detach().double().cpu() for name, image in images.items()},
        {name: gradient.double().cpu() for name, gradient in zip(vars(leaves), gradients, strict=True)},
    )
