"""Which NVIDIA GPU there is, asked of its driver; PyTorch is not needed for it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    name: str
    cuda: tuple[int, int]
    """The newest CUDA that the installed driver runs."""


def find_gpu() -> Gpu | None:
    """The first GPU that `nvidia-smi` names, or None; never raises, never takes longer than some seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    name = _ask([program, "--query-gpu=name", "--format=csv,noheader"])
    version = re.search(r"CUDA Version:\s*(\d+)\.(\d+)", _ask([program]))
    if not name.strip() or version is None:
        return None
    return Gpu(name.strip().splitlines()[0].strip(), (int(version[1]), int(version[2])))


def has_cuda_compiler() -> bool:
    """Whether gsplat could compile itself here: the CUDA toolkit and a C++ compiler on the path."""
    return shutil.which("nvcc") is not None and any(shutil.which(name) for name in ("c++", "g++", "clang++", "cl"))


def _ask(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
