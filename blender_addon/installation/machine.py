"""The properties of a machine that an installation depends on, and which machines are supported."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from typing import Final

from .gpu import Gpu, ask_driver, has_cuda_compiler

CUDA_BUILD: Final = "cu130"
"""The CUDA build of PyTorch that is installed. NVIDIA Warp 1.19 has the same CUDA 13 runtime."""
OLDEST_CAPABILITY: Final = (7, 5)
"""CUDA 13 supports Turing (GeForce GTX 16 and RTX 20) and newer."""
OLDEST_DRIVER: Final = (580,)
OLDEST_CUDA: Final = (13, 0)
"""The CUDA version of driver 580."""
OLDEST_MACOS: Final = (14, 0)
"""PyTorch 2.13's wheels are tagged macosx_14_0_arm64."""
OLDEST_GLIBC: Final = (2, 28)
PYTHONS: Final = ((3, 11), (3, 12), (3, 13))
"""The Python versions for which every package has a wheel: 3.11 and 3.13 are Blender's, 3.12 some distributions'."""
MAX_PATH: Final = 259
"""Longest path of a file on Windows without long paths: MAX_PATH, 260, counts a terminating zero."""
SUPPORTED: Final = (
    "Supported are Windows 10 and 11 (x64), Linux (x86-64, glibc 2.28 or newer) and macOS 14 or newer on Apple "
    "silicon, with Blender 4.2 or newer."
)
_MACHINES: Final = {"Windows": ("AMD64",), "Linux": ("x86_64",), "Darwin": ("arm64",)}
_PLATFORMS: Final = {"Windows": "win_amd64", "Linux": "manylinux_2_28_x86_64", "Darwin": "macosx_14_0_arm64"}


@dataclass(frozen=True)
class Machine:
    system: str
    """`platform.system()`: Linux, Windows, Darwin."""
    python: tuple[int, int]
    gpu: Gpu | None = None
    compiler: bool = False
    """Whether CUDA code can be compiled here."""
    processor: str = ""
    """`platform.machine()`; empty: the supported one of the system."""
    version: tuple[int, ...] = ()
    """Version of macOS, or of glibc on Linux; empty if it is not known."""
    driver_complaint: str = ""
    """What the NVIDIA driver's program says where it names no GPU."""
    store: bool = False
    """Whether Blender comes from the Microsoft Store."""
    long_paths: bool = False
    """Whether Windows allows paths of more than 259 characters."""


def this_machine() -> Machine:
    """Describes this machine. Asking the graphics driver may take seconds, so do not call this while drawing."""
    report = ask_driver()
    system = platform.system()
    version = platform.mac_ver()[0] if system == "Darwin" else platform.libc_ver()[1] if system == "Linux" else ""
    return Machine(
        system,
        (sys.version_info.major, sys.version_info.minor),
        report.gpu,
        report.gpu is not None and has_cuda_compiler(),
        platform.machine(),
        tuple(map(int, re.findall(r"\d+", version))),
        report.complaint,
        system == "Windows" and "\\windowsapps\\" in sys.executable.lower(),
        _long_paths(),
    )


def platform_of(machine: Machine) -> str:
    """The tag of the machine's wheels, for instance `win_amd64`."""
    return _PLATFORMS[machine.system]


def why_unsupported(machine: Machine) -> str | None:
    """Why the backend cannot be installed on this machine, with what to do, as sentences; None if it can."""
    system, processor = machine.system, machine.processor
    if system not in _MACHINES:
        return f"The backend's packages do not exist for {system}. {SUPPORTED}"
    if system == "Darwin" and processor not in ("", "arm64"):
        return (
            "This Blender is made for Intel Macs, for which PyTorch is no longer made: on a Mac with Apple silicon "
            f"install Blender for Apple silicon; on an Intel Mac use another machine as the worker. {SUPPORTED}"
        )
    if processor and processor not in _MACHINES[system]:
        return (
            f"The backend's packages do not exist for {system} on {processor}: use Blender for "
            f"{_MACHINES[system][0]}, or another machine as the worker. {SUPPORTED}"
        )
    version = ".".join(map(str, machine.version))
    if system == "Darwin" and machine.version and machine.version < OLDEST_MACOS:
        return f"This is macOS {version}, and PyTorch needs macOS 14: update macOS, then install. {SUPPORTED}"
    if system == "Linux" and machine.version and machine.version < OLDEST_GLIBC:
        return (
            f"This Linux has glibc {version}, and the backend's packages need 2.28: use a newer release of your "
            f"distribution. {SUPPORTED}"
        )
    if machine.python not in PYTHONS:
        return (
            f"This Blender contains Python {machine.python[0]}.{machine.python[1]}, for which the backend's packages "
            f"are not made: use Blender from blender.org. {SUPPORTED}"
        )
    if machine.store:
        return (
            "Blender from the Microsoft Store keeps its Python where no environment can be made from it: install "
            "Blender from blender.org or Steam, or choose an interpreter that has the packages with Use This Python."
        )
    return None


def _long_paths() -> bool:
    """Whether long paths are enabled in Windows' registry; True on other systems."""
    if os.name != "nt":
        return True
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return winreg.QueryValueEx(key, "LongPathsEnabled")[0] == 1
    except OSError:
        return False
