"""Which rasteriser draws Gaussians on a CUDA device: gsplat where it works, otherwise NVIDIA Warp.

gsplat compiles itself at its first use, which needs the CUDA toolkit and a C++ compiler. Where these are missing, as on
most artists' machines, Warp compiles its kernels with what its own wheel contains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from typing import Final, Literal

import torch

from ..errors import EffigyError
from .cuda import rasterize_cuda, why_unavailable
from .self_test import Draw, fault_of
from .types import Cameras, Raster, Splats

GpuBackend = Literal["cuda", "warp"]


@dataclass(frozen=True)
class Candidate:
    """A rasteriser that may work on the GPU."""

    backend: GpuBackend
    name: str
    distribution: str
    """The package that it is installed with."""
    draw: Draw


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
    return first_that_works(CANDIDATES, torch.device("cuda"))


def first_that_works(candidates: Sequence[Candidate], device: torch.device) -> GpuChoice:
    """The first of the candidates that passes the self-test on `device`."""
    faults: list[str] = []
    for candidate in candidates:
        fault = fault_of(candidate.draw, device)
        if fault is None:
            because = f", because {'; '.join(faults)}" if faults else ""
            return GpuChoice(candidate.backend, f"{candidate.name}{_version_of(candidate)}{because}")
        faults.append(f"{candidate.name} cannot be used ({fault})")
    return GpuChoice(None, "; ".join(faults))


def _version_of(candidate: Candidate) -> str:
    """The version after a space; empty for a package that was not installed by a package manager."""
    try:
        return f" {metadata.version(candidate.distribution)}"
    except metadata.PackageNotFoundError:
        return ""


def _rasterize_gsplat(splats: Splats, cameras: Cameras) -> Raster:
    if missing := why_unavailable():
        raise EffigyError(missing)
    return rasterize_cuda(splats, cameras)


def _rasterize_warp(splats: Splats, cameras: Cameras) -> Raster:
    # Warp is an optional package: where it is absent, this import raises the sentence that says so.
    from .warp_rasterize import rasterize_warp

    return rasterize_warp(splats, cameras)


CANDIDATES: Final = (
    Candidate("cuda", "gsplat", "gsplat", _rasterize_gsplat),
    Candidate("warp", "NVIDIA Warp", "warp-lang", _rasterize_warp),
)
"""In the order in which they are tried."""
