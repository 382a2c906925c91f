"""What an installation will do on this machine, worked out and said before anything is downloaded.

PyTorch's CUDA build is several gigabytes, and of use only where gsplat, the rasteriser on the GPU, can be had too: as a
wheel that its project has built for this Python, PyTorch and CUDA, or compiled here by the CUDA toolkit. Else
everything runs on the CPU."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .gpu import Gpu, find_gpu, has_cuda_compiler
from .place import python_of

GIGABYTE: Final = 10**9
TORCH_INDEX: Final = "https://download.pytorch.org/whl"
CUDA_BUILDS: Final = (((13, 0), "cu130"), ((12, 6), "cu126"))
"""PyTorch's CUDA builds, newest first, with the CUDA that the driver must run at least."""

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
"""(system, Python, PyTorch, CUDA) that gsplat 1.5.3 is built for, of its index's list; older PyTorch is left out."""


@dataclass(frozen=True)
class Machine:
    """What a plan depends on."""

    system: str
    """`platform.system()`: Linux, Windows, Darwin."""
    python: tuple[int, int]
    gpu: Gpu | None
    compiler: bool
    """Whether CUDA code can be compiled."""


@dataclass(frozen=True)
class Step:
    """One program to run."""

    title: str
    command: tuple[str, ...]
    packages: int = 0
    """How many packages it installs, for a progress bar; 0: it does not tell."""
    optional: bool = False
    """Whether the backend works without it."""


@dataclass(frozen=True)
class Plan:
    folder: Path
    """The environment; emptied first."""
    requirements: Path
    """The lists."""
    steps: tuple[Step, ...]
    torch: str
    """`cpu`, or the name of a CUDA build."""
    download: float
    """Gigabytes, about."""
    disk: float
    """Gigabytes at the most, while it is being installed."""
    said: tuple[str, ...]
    """Sentences: what comes, and why."""

    @property
    def shortage(self) -> str | None:
        """A sentence when the disk has no room for it."""
        place = next(place for place in (self.folder, *self.folder.parents) if place.exists())
        free = shutil.disk_usage(place).free / GIGABYTE
        if free >= self.disk:
            return None
        return (
            f"The backend needs about {self.disk:.1f} GB and the disk of {place} has {free:.1f} GB left: "
            "free some space, then install again."
        )


def this_machine() -> Machine:
    """Asks the graphics driver, which may take a second: not for drawing code."""
    gpu = find_gpu()
    return Machine(platform.system(), sys.version_info[:2], gpu, gpu is not None and has_cuda_compiler())


def make_plan(machine: Machine, folder: Path, extension: Path, base_python: str) -> Plan:
    """The plan for `machine`: an environment at `folder`, from the lists in `extension`/requirements."""
    requirements = extension / "requirements"
    torch = _torch_version(requirements)
    build, gsplat, why = choose_rasteriser(machine, torch)
    python = str(python_of(folder))
    pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    index = _torch_index(machine.system, build)
    from_index = ("--extra-index-url", index) if index else ()
    lock = str(requirements / "backend.lock")
    steps = [
        Step("Making the environment", (base_python, "-m", "venv", "--clear", str(folder))),
        Step(
            "Installing the backend's packages",
            (*pip, "--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", lock),
            _count(Path(lock)),
        ),
        Step(
            "Installing PyTorch",
            (*pip, *from_index, "-r", str(requirements / "torch.txt")),
            1 if build == "cpu" else 16,
        ),
    ]
    if gsplat:
        steps.append(Step("Installing gsplat", (*pip, *gsplat, *_cuda_list(gsplat, requirements)), optional=True))
    steps.append(Step("Trying the backend out", (python, "-m", "backend", "doctor")))
    download, disk = (0.6, 3.0) if build == "cpu" else (3.5, 10.0)
    which = "for the CPU" if build == "cpu" else f"for the GPU (CUDA build {build})"
    said = (
        f"About {download:.1f} GB are downloaded and up to {disk:.0f} GB of disk are used, in {folder}.",
        f"PyTorch {torch} {which}.",
        why,
    )
    return Plan(folder, requirements, tuple(steps), build, download, disk, said)


def choose_rasteriser(machine: Machine, torch: str) -> tuple[str, tuple[str, ...], str]:
    """(PyTorch build, pip's arguments for gsplat or none, a sentence that says why)."""
    gpu = machine.gpu
    if gpu is None:
        return "cpu", (), "No NVIDIA GPU was found, so the CPU trains and renders: minutes to hours instead of minutes."
    builds = [name for least, name in CUDA_BUILDS if gpu.cuda >= least]
    if not builds or machine.system == "Darwin":
        return (
            "cpu",
            (),
            (
                f"The driver of the {gpu.name} runs CUDA {gpu.cuda[0]}.{gpu.cuda[1]}, and PyTorch {torch} "
                f"needs {'.'.join(map(str, CUDA_BUILDS[-1][0]))}: update the driver and install again to "
                "use the GPU. Until then the CPU trains and renders."
            ),
        )
    short = ".".join(torch.split(".")[:2])
    for build in builds:
        if (machine.system, machine.python, short, build) in GSPLAT_WHEELS:
            index = f"{GSPLAT_INDEX}/pt{short.replace('.', '')}{build}"
            return (
                build,
                ("--no-deps", "--index-url", index, f"gsplat=={GSPLAT_VERSION}"),
                (f"The {gpu.name} trains and renders, with the gsplat that is built for it."),
            )
    if machine.compiler:
        return (
            builds[0],
            ("--no-deps", "--require-hashes"),
            (f"The {gpu.name} trains and renders. gsplat compiles itself at the first use, which takes some minutes."),
        )
    return (
        "cpu",
        (),
        (
            f"There is a {gpu.name}, but gsplat, the rasteriser for GPUs, is not built for Python "
            f"{machine.python[0]}.{machine.python[1]} with "
            f"PyTorch {torch}, and the CUDA toolkit that could compile it is not installed: the CPU trains and renders. "
            "Install the toolkit (nvcc) and a C++ compiler, then install again, to use the GPU."
        ),
    )


def _torch_index(system: str, build: str) -> str | None:
    """Where the wanted build is served: the package index itself has one build a system."""
    if system == "Darwin" or (system == "Windows" and build == "cpu"):
        return None
    return f"{TORCH_INDEX}/{build}"


def _cuda_list(gsplat: tuple[str, ...], requirements: Path) -> tuple[str, ...]:
    return ("-r", str(requirements / "cuda.lock")) if "--require-hashes" in gsplat else ()


def _torch_version(requirements: Path) -> str:
    return re.search(r"^torch==(\S+)", (requirements / "torch.txt").read_text("utf-8"), re.MULTILINE)[1]


def _count(lock: Path) -> int:
    """How many packages of a list are for this system; near enough for a bar."""
    return len(re.findall(r"^[\w.-]+==(?!.*sys_platform)", lock.read_text("utf-8"), re.MULTILINE))
