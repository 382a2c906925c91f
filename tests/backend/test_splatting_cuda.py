"""gsplat on CUDA renders the same image as the reference; without CUDA the user gets an error that says so."""

from __future__ import annotations

import pytest
import torch
from test_splatting_cpu import SCENES, draw_with_gradients, random_scene

from backend.errors import EffigyError
from backend.splatting.cuda import why_unavailable
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Splats

MISSING = why_unavailable()


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_cuda_renders_and_differentiates_like_the_reference(scene):
    splats, cameras = scene()
    on_gpu = Splats(*(tensor.cuda() for tensor in vars(splats).values()))
    there = Cameras(cameras.intrinsics.cuda(), cameras.world_to_camera.cuda(), cameras.width, cameras.height)
    leaves = Splats(*(tensor.detach().requires_grad_() for tensor in vars(on_gpu).values()))
    raster = rasterize(leaves, there)
    generator = torch.Generator().manual_seed(99)
    loss = sum((image * torch.randn(image.shape, generator=generator).cuda()).sum() for image in vars(raster).values())
    gradients = torch.autograd.grad(loss, list(vars(leaves).values()))
    truth, true_gradients = draw_with_gradients(splats, cameras, "reference", torch.float64)
    for name, image in vars(raster).items():
        torch.testing.assert_close(image.cpu().double(), getattr(truth, name), atol=1e-3, rtol=0, msg=name)
    for (name, truly), gradient in zip(true_gradients.items(), gradients, strict=True):
        assert (gradient.cpu() - truly).norm() <= 1e-2 * truly.norm(), name


@pytest.mark.skipif(MISSING is None, reason="This machine has CUDA and gsplat.")
def test_requesting_cuda_without_it_raises_an_error_with_a_sentence():
    with pytest.raises(EffigyError, match="Rasterise on the CPU instead"):
        rasterize(*random_scene(), backend="cuda")
