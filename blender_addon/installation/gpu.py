"""Finds the NVIDIA GPU by asking its driver, which works without PyTorch."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

_TIMEOUT: Final = 10
"""Seconds for one call of `nvidia-smi`."""


@dataclass(frozen=True)
class Gpu:
    name: str
    cuda: tuple[int, int]
    """Newest CUDA version that the installed driver supports."""


def find_gpu() -> Gpu | None:
    """The first GPU that `nvidia-smi` lists, or None. Never raises; takes at most two times `_TIMEOUT`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    name = _output_of([program, "--query-gpu=name", "--format=csv,noheader"])
    version = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", _output_of([program]))
    if not name.strip() or version is None:
        return None
    return Gpu(name.strip().splitlines()[0].strip(), (int(version[1]), int(version[2])))


def has_cuda_compiler() -> bool:
    """Whether gsplat can be compiled here: both nvcc and a C++ compiler are on the PATH."""
    return shutil.which("nvcc") is not None and any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))


def _output_of(command: list[str]) -> str:
    """Standard output of a command, or an empty string if it fails to run."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
