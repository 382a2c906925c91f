"""Which rasteriser draws Gaussians on a CUDA device: gsplat where it works, otherwise NVIDIA Warp.

gsplat compiles itself at its first use, which needs the CUDA toolkit and a C++ compiler. Where these are missing, as on
most artists' machines, Warp compiles its kernels with what its own wheel contains.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Literal

import torch

from .cuda import rasterize_cuda
from .self_test import Draw, fault_of

GpuBackend = Literal["cuda"]


@dataclass(frozen=True)
class GpuChoice:
    backend: GpuBackend | None
    """The `backend` of `rasterize` that works on the CUDA device, or None if none does."""
    explanation: str
    """The rasteriser and its version, and why the ones before it were not chosen; without a full stop."""


@lru_cache(maxsize=1)
def choose_gpu_rasterizer() -> GpuChoice:
    """Try the rasterisers on the current CUDA device, the fastest first; the answer is kept for the process.

    Each must draw and differentiate a small picture as the reference does. The first call may compile kernels.
    """
    return first_that_works((("cuda", "gsplat", "gsplat", rasterize_cuda),), torch.device("cuda"))


def first_that_works(candidates: tuple[tuple[GpuBackend, str, str, Draw], ...], device: torch.device) -> GpuChoice:
    """The first of `candidates` (backend, name, distribution, function) that passes the self-test on `device`."""
    faults: list[str] = []
    for backend, name, distribution, draw in candidates:
        fault = fault_of(draw, device)
        if fault is None:
            because = f", because {'; '.join(faults)}" if faults else ""
            return GpuChoice(backend, f"{name} {metadata.version(distribution)}{because}")
        faults.append(f"{name} cannot be used ({fault})")
    return GpuChoice(None, "; ".join(faults))
