"""The CUDA rasteriser: an adapter of gsplat to our types. Imported only when splats lie on a GPU."""

from __future__ import annotations

import torch

from ..errors import EffigyError
from .reference import LOW_PASS, NEAR
from .self_test import first_line
from .types import Cameras, Raster, Splats


def why_unavailable() -> str | None:
    """A message that names what is missing for the CUDA rasteriser, or None if it is available."""
    if not torch.cuda.is_available():
        return "The CUDA rasteriser needs an NVIDIA GPU and a CUDA build of PyTorch, which this machine does not have."
    try:
        from gsplat.cuda._backend import _C  # pyright: ignore[reportMissingImports]  (needs CUDA)
    except ModuleNotFoundError:
        return "The package gsplat is not installed (pip install gsplat==1.5.3)."
    except Exception as error:
        # gsplat compiles itself when it is imported. A compiler that fails raises RuntimeError, a library that cannot
        # be loaded ImportError or OSError.
        return f"gsplat is installed but its kernels cannot be built: {first_line(error)}."
    if _C is None:
        return "gsplat is installed but its kernels are not: it needs the CUDA toolkit (nvcc) to compile them once."
    return None


def rasterize_cuda(splats: Splats, cameras: Cameras) -> Raster:
    """Splats (B, G) rendered by cameras (B), all on one GPU → images. Gradients reach every field of the splats."""
    missing = why_unavailable()
    if missing:
        raise EffigyError(f"{missing} Rasterise on the CPU instead (backend 'cpu').")
    if not splats.means.is_cuda:
        raise EffigyError("The CUDA rasteriser was asked to draw splats that lie on the CPU. Move them with .cuda().")
    from gsplat import rasterization  # pyright: ignore[reportMissingImports]

    # gsplat's leading dimensions are (scene, camera): our B images are B scenes of one camera each.
    color_and_depth, alpha, _ = rasterization(
        splats.means,
        splats.quaternions,
        splats.scales,
        splats.opacities,
        splats.colors,
        cameras.world_to_camera[:, None],
        cameras.intrinsics[:, None],
        cameras.width,
        cameras.height,
        near_plane=NEAR,
        eps2d=LOW_PASS,
        packed=False,
        render_mode="RGB+D",
        rasterize_mode="classic",
    )
    return Raster(color_and_depth[:, 0, ..., :3], alpha[:, 0, ..., 0], color_and_depth[:, 0, ..., 3])
