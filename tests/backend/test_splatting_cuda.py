"""gsplat and Warp on CUDA render the same image as the reference; without CUDA the user gets an error that says so."""

from __future__ import annotations

import pytest
import torch
from test_splatting_cpu import SCENES, assert_agrees_with_reference, draw_with_gradients, random_scene

from backend.errors import EffigyError
from backend.splatting.cuda import why_unavailable
from backend.splatting.rasterize import rasterize
from backend.splatting.types import Cameras, Raster, Splats

MISSING = why_unavailable()


def drawn_on_the_gpu(splats: Splats, cameras: Cameras, backend: str) -> tuple[Raster, dict[str, torch.Tensor]]:
    """Images and gradients of a rasteriser on the GPU, on the CPU; the weighting is that of `draw_with_gradients`."""
    leaves = Splats(*(tensor.detach().cuda().requires_grad_() for tensor in vars(splats).values()))
    there = Cameras(cameras.intrinsics.cuda(), cameras.world_to_camera.cuda(), cameras.width, cameras.height)
    raster = rasterize(leaves, there, backend=backend)
    generator = torch.Generator().manual_seed(99)
    loss = sum((image * torch.randn(image.shape, generator=generator).cuda()).sum() for image in vars(raster).values())
    gradients = torch.autograd.grad(loss, list(vars(leaves).values()))
    return (
        Raster(*(image.detach().cpu() for image in vars(raster).values())),
        {name: gradient.cpu() for name, gradient in zip(vars(splats), gradients, strict=True)},
    )


@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_gsplat_renders_and_differentiates_like_the_reference(scene):
    splats, cameras = scene()
    raster, gradients = drawn_on_the_gpu(splats, cameras, "cuda")
    truth, true_gradients = draw_with_gradients(splats, cameras, "reference", torch.float64)
    for name, image in vars(raster).items():
        torch.testing.assert_close(image.double(), getattr(truth, name), atol=1e-3, rtol=0, msg=name)
    for name, truly in true_gradients.items():
        assert (gradients[name] - truly).norm() <= 1e-2 * truly.norm(), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_warp_on_a_gpu_meets_the_bars_of_the_rasterisers_on_a_cpu(scene):
    pytest.importorskip("warp", reason="NVIDIA Warp (warp-lang) is not installed here")
    splats, cameras = scene()
    assert_agrees_with_reference(splats, cameras, *drawn_on_the_gpu(splats, cameras, "warp"))


@pytest.mark.skipif(MISSING is None, reason="This machine has CUDA and gsplat.")
def test_requesting_cuda_without_it_raises_an_error_with_a_sentence():
    with pytest.raises(EffigyError, match="Rasterise on the CPU instead"):
        rasterize(*random_scene(), backend="cuda")
