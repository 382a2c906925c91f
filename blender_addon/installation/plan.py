"""Plans an installation on this machine: its commands, its sizes and its reasons, before anything is downloaded.

PyTorch's CUDA build is several gigabytes. It is useful only together with gsplat, the rasteriser for GPUs, which is
either a wheel that its project has built for this combination of Python, PyTorch and CUDA, or is compiled on this
machine with the CUDA toolkit. Where neither is possible, the CPU build is installed.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from .gpu import Gpu, find_gpu, has_cuda_compiler
from .place import python_of

GIGABYTE: Final = 10**9
TORCH_INDEX: Final = "https://download.pytorch.org/whl"
CUDA_BUILDS: Final = (((13, 0), "cu130"), ((12, 6), "cu126"))
"""PyTorch's CUDA builds, newest first: (lowest CUDA version that the driver must support, name of the build)."""

GSPLAT_INDEX: Final = "https://docs.gsplat.studio/whl"
GSPLAT_VERSION: Final = "1.5.3"
GSPLAT_WHEELS: Final = frozenset(
    {
        ("Linux", (3, 10), "2.4", "cu118"),
        ("Linux", (3, 10), "2.4", "cu121"),
        ("Linux", (3, 10), "2.4", "cu124"),
        ("Windows", (3, 10), "2.4", "cu124"),
    }
)
"""(system, Python, PyTorch, CUDA build) of the wheels of gsplat 1.5.3 on its index, for PyTorch 2.4 and newer."""


@dataclass(frozen=True)
class Machine:
    """The properties of a machine that a plan depends on."""

    system: str
    """`platform.system()`: Linux, Windows, Darwin."""
    python: tuple[int, int]
    gpu: Gpu | None
    compiler: bool
    """Whether CUDA code can be compiled here."""


@dataclass(frozen=True)
class Step:
    """One command of a plan."""

    title: str
    command: tuple[str, ...]
    packages: int = 0
    """Number of packages that it installs, for the progress bar; 0 if unknown."""
    optional: bool = False
    """Whether the backend also works if this step fails."""


@dataclass(frozen=True)
class Plan:
    folder: Path
    """The environment's folder. Its previous content is deleted first."""
    requirements: Path
    """The folder with the package lists."""
    steps: tuple[Step, ...]
    torch: str
    """PyTorch build: `cpu`, or the name of a CUDA build."""
    download: float
    """Approximate download, gigabytes."""
    disk: float
    """Largest disk use during the installation, gigabytes."""
    messages: tuple[str, ...]
    """Sentences for the user: what will be installed, and why."""

    @property
    def shortage(self) -> str | None:
        """A sentence if the disk has too little free space, otherwise None."""
        existing = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
        free = shutil.disk_usage(existing).free / GIGABYTE
        if free >= self.disk:
            return None
        return (
            f"The backend needs about {self.disk:.1f} GB and the disk of {existing} has {free:.1f} GB left: "
            "free some space, then install again."
        )


def this_machine() -> Machine:
    """Describes this machine. Asking the graphics driver may take a second, so do not call this while drawing."""
    gpu = find_gpu()
    return Machine(platform.system(), sys.version_info[:2], gpu, gpu is not None and has_cuda_compiler())


def make_plan(machine: Machine, folder: Path, extension: Path, base_python: str) -> Plan:
    """The plan for `machine`: an environment in `folder`, made by the interpreter `base_python` from the package lists
    in `extension`/requirements.
    """
    requirements = extension / "requirements"
    torch = _torch_version(requirements)
    choice = choose_rasteriser(machine, torch)
    build, gsplat = choice.torch_build, choice.gsplat_arguments
    python = str(python_of(folder))
    pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    index = _torch_index(machine.system, build)
    from_index = ("--extra-index-url", index) if index else ()
    lock = str(requirements / "backend.lock")
    steps = [
        Step("Creating the environment", (base_python, "-m", "venv", "--clear", str(folder))),
        Step(
            "Installing the backend's packages",
            (*pip, "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", lock),
            _package_count(Path(lock)),
        ),
        Step(
            "Installing PyTorch",
            (*pip, *from_index, "-r", str(requirements / "torch.txt")),
            1 if build == "cpu" else 16,
        ),
    ]
    if gsplat:
        steps.append(Step("Installing gsplat", (*pip, *gsplat, *_cuda_lock(gsplat, requirements)), optional=True))
    steps.append(Step("Testing the backend", (python, "-m", "backend", "doctor")))
    download, disk = (0.6, 3.0) if build == "cpu" else (3.5, 10.0)
    target = "for the CPU" if build == "cpu" else f"for the GPU (CUDA build {build})"
    messages = (
        f"About {download:.1f} GB are downloaded and up to {disk:.0f} GB of disk are used, in {folder}.",
        f"PyTorch {torch} {target}.",
        choice.reason,
    )
    return Plan(folder, requirements, tuple(steps), build, download, disk, messages)


class RasteriserChoice(NamedTuple):
    """What the backend will rasterise with."""

    torch_build: str
    """`cpu`, or the name of a CUDA build."""
    gsplat_arguments: tuple[str, ...]
    """pip's arguments that install gsplat; empty on the CPU."""
    reason: str
    """A sentence for the user."""


def choose_rasteriser(machine: Machine, torch: str) -> RasteriserChoice:
    """Chooses the PyTorch build and how gsplat is installed; `torch` is PyTorch's version."""
    gpu = machine.gpu
    if gpu is None:
        return _on_cpu("No NVIDIA GPU was found, so the CPU trains and renders: minutes to hours instead of minutes.")
    builds = [name for oldest, name in CUDA_BUILDS if gpu.cuda >= oldest]
    if not builds or machine.system == "Darwin":
        return _on_cpu(
            f"The driver of the {gpu.name} supports CUDA {gpu.cuda[0]}.{gpu.cuda[1]}, and PyTorch {torch} "
            f"needs {'.'.join(map(str, CUDA_BUILDS[-1][0]))}: update the driver and install again to "
            "use the GPU. Until then the CPU trains and renders."
        )
    short = ".".join(torch.split(".")[:2])
    for build in builds:
        if (machine.system, machine.python, short, build) in GSPLAT_WHEELS:
            index = f"{GSPLAT_INDEX}/pt{short.replace('.', '')}{build}"
            return RasteriserChoice(
                build,
                ("--no-deps", "--index-url", index, f"gsplat=={GSPLAT_VERSION}"),
                f"The {gpu.name} trains and renders, with a ready-made build of gsplat.",
            )
    if machine.compiler:
        return RasteriserChoice(
            builds[0],
            ("--no-deps", "--require-hashes"),
            f"The {gpu.name} trains and renders. gsplat is compiled at its first use, which takes some minutes.",
        )
    return _on_cpu(
        f"There is a {gpu.name}, but gsplat, the rasteriser for GPUs, is not built for Python "
        f"{machine.python[0]}.{machine.python[1]} with PyTorch {torch}, and the CUDA toolkit that could compile it is "
        "not installed: the CPU trains and renders. To use the GPU, install the CUDA toolkit (nvcc) and a C++ "
        "compiler, then install the backend again."
    )


def _on_cpu(reason: str) -> RasteriserChoice:
    return RasteriserChoice("cpu", (), reason)


def _torch_index(system: str, build: str) -> str | None:
    """The index that serves this build of PyTorch, or None for the standard package index, which has one build for each
    system.
    """
    if system == "Darwin" or (system == "Windows" and build == "cpu"):
        return None
    return f"{TORCH_INDEX}/{build}"


def _cuda_lock(gsplat: tuple[str, ...], requirements: Path) -> tuple[str, ...]:
    """Pip's arguments for the list with gsplat's hash, where gsplat comes from the standard package index."""
    return ("-r", str(requirements / "cuda.lock")) if "--require-hashes" in gsplat else ()


def _torch_version(requirements: Path) -> str:
    return re.search(r"^torch==(\S+)", (requirements / "torch.txt").read_text("utf-8"), re.MULTILINE)[1]


def _package_count(lock: Path) -> int:
    """Approximate number of a list's packages that are installed on this system, for the progress bar: those for one
    system only are not counted.
    """
    return len(re.findall(r"^[\w.-]+==(?!.*sys_platform)", lock.read_text("utf-8"), re.MULTILINE))
