"""Finds the NVIDIA GPU by asking its driver, which works without PyTorch.

`nvidia-smi` answers two questions: the names, driver version and compute capabilities of the GPUs, as comma-separated
values, and the newest CUDA version that the driver supports, in the head of its usual table. The second answer counts
only where the driver's version cannot be read.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import child_process

_TIMEOUT: Final = 10
"""Seconds for one call of `nvidia-smi`."""
_QUERIES: Final = ("name,driver_version,compute_cap", "name,driver_version", "name")
"""Drivers before 2021 do not know the field `compute_cap`."""


@dataclass(frozen=True)
class Gpu:
    name: str
    driver: tuple[int, ...] | None = None
    """Version of the driver, for instance (580, 65, 6); None if it is not known."""
    capability: tuple[int, int] | None = None
    """Compute capability, for instance (8, 9); None if the driver does not tell it."""
    cuda: tuple[int, int] | None = None
    """Newest CUDA version that the driver supports; None if it is not known."""


@dataclass(frozen=True)
class DriverReport:
    """What the NVIDIA driver says about this machine."""

    gpu: Gpu | None
    """The GPU with the highest compute capability; the first one among equals."""
    complaint: str = ""
    """What `nvidia-smi` answered instead of naming a GPU; empty if there is no such program."""


def ask_driver() -> DriverReport:
    """The best GPU that `nvidia-smi` lists. Never raises; takes at most four times `_TIMEOUT`."""
    program = _find_nvidia_smi()
    if program is None:
        return DriverReport(None)
    complaint = ""
    for query in _QUERIES:
        code, output = _run([program, f"--query-gpu={query}", "--format=csv,noheader"])
        gpus = [gpu for line in output.splitlines() if (gpu := _gpu_of(line))] if code == 0 else []
        if gpus:
            cuda = _cuda_version(_run([program])[1])
            best = max(gpus, key=lambda gpu: gpu.capability or (0, 0))
            return DriverReport(Gpu(best.name, best.driver, best.capability, cuda))
        complaint = complaint or next(iter(output.split("\n")), "").strip()
    return DriverReport(None, complaint or "it names no GPU")


def has_cuda_compiler() -> bool:
    """Whether gsplat can be compiled here: both nvcc and a C++ compiler are on the PATH."""
    found = child_process.find_program
    return found("nvcc") is not None and any(found(name) for name in ("c++", "g++", "clang++", "cl"))


def _find_nvidia_smi() -> str | None:
    """The program's path: on the PATH, or where the driver puts it on Windows and in the Linux of Windows (WSL)."""
    if found := child_process.find_program("nvidia-smi"):
        return found
    places = [Path("/usr/lib/wsl/lib/nvidia-smi")]
    if os.name == "nt":
        windows, programs = os.environ.get("SYSTEMROOT"), os.environ.get("PROGRAMFILES")
        places = [Path(windows, "System32", "nvidia-smi.exe")] if windows else []
        places += [Path(programs, "NVIDIA Corporation", "NVSMI", "nvidia-smi.exe")] if programs else []
    return next((str(path) for path in places if path.is_file()), None)


def _gpu_of(line: str) -> Gpu | None:
    """The GPU of one line of `nvidia-smi --query-gpu=name,driver_version,compute_cap`; None if it names none."""
    name, *rest = (part.strip() for part in line.split(","))
    if not name or name.startswith("["):
        return None
    driver = re.fullmatch(r"\d+(\.\d+)*", rest[0]) if rest else None
    capability = re.fullmatch(r"(\d+)\.(\d+)", rest[1]) if len(rest) > 1 else None
    return Gpu(
        name,
        tuple(map(int, driver[0].split("."))) if driver else None,
        (int(capability[1]), int(capability[2])) if capability else None,
    )


def _cuda_version(table: str) -> tuple[int, int] | None:
    """The CUDA version in the head of `nvidia-smi`'s table. Since driver 610 it is called `CUDA UMD Version`."""
    found = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+)\.(\d+)", table)
    return (int(found[1]), int(found[2])) if found else None


def _run(command: list[str]) -> tuple[int, str]:
    """Exit code and output of a command. The code is not 0 if it cannot be run or does not end in time."""
    try:
        ended = child_process.run(command, _TIMEOUT)
    except (OSError, subprocess.SubprocessError) as error:
        return 1, f"{type(error).__name__}: {error}"
    return ended.returncode, ended.stdout or ended.stderr
