"""Plans an installation on this machine: its commands, its sizes and its reasons, before anything is downloaded.

PyTorch comes from where a hash or an exact build tag decides the build, so that a CPU build never takes the place of a
CUDA build:

- Windows and macOS, CPU: the package index, `torch==2.13.0` with the hashes in torch.lock.
- Linux, CUDA: the same list (there the package index has the build for CUDA 13.0), and NVIDIA's libraries with the
  hashes in torch-cuda.lock.
- Windows, CUDA, and Linux, CPU: PyTorch's own index and no other, `torch==2.13.0+cu130` or `torch==2.13.0+cpu`. The tag
  is part of the version, so that pip takes no other build. If that index cannot be reached, the installation fails.

A GPU needs NVIDIA Warp besides PyTorch (warp.lock): its wheel contains the compiler of its kernels.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from .figures import load_figures
from .machine import (
    CUDA_BUILD,
    MAX_PATH,
    OLDEST_CAPABILITY,
    OLDEST_CUDA,
    OLDEST_DRIVER,
    Machine,
    platform_of,
    why_unsupported,
)
from .place import Environments, python_of

GIGABYTE: Final = 10**9
TORCH_INDEX: Final = "https://download.pytorch.org/whl"
PIP_WHEEL: Final = "pip-26.3-py3-none-any.whl"
"""pip itself, in the folder of the package lists. Blender's Pythons bring pip 23.2 to 25, which cannot resume an
interrupted download (from 25.1) and, below 24.2, do not trust the system's certificates, as a studio's proxy needs."""
PIP_LIST: Final = "pip.lock"
"""The list that installs this wheel into an environment, so that extras can be added to it later."""
RUN_MODULE: Final = Path(__file__).with_name("run_module.py")
CUDA_OF_BUILD: Final = {"cpu": "cpu", CUDA_BUILD: "13.0"}
"""PyTorch build -> what `torch.version.cuda` says in it, with `cpu` for None."""
CHECK_TORCH: Final = (
    "import sys, torch; found = torch.version.cuda or 'cpu'; sys.exit(None if found == sys.argv[1] else "
    "f'the wrong PyTorch was installed: {torch.__version__}, CUDA {found} instead of {sys.argv[1]}')"
)
_FILE_SYSTEM: Final = 1.1
"""An environment of 30,000 files takes up to this much more on a disk than its files have bytes."""
PIP_OPTIONS: Final = (
    *("--disable-pip-version-check", "--no-input", "--progress-bar", "raw", "--only-binary", ":all:", "--no-deps"),
    *("--retries", "5", "--timeout", "30", "--resume-retries", "20"),
    # The settings of the user's pip may say otherwise.
    *("--no-user", "--target="),
)


@dataclass(frozen=True)
class Step:
    """One command of a plan."""

    title: str
    command: tuple[str, ...]
    download: int = 0
    """Bytes that it downloads at most, for the progress bar."""
    optional: bool = False
    """Whether the backend also works if this step fails."""
    source: str = "The package index"
    """Where it downloads from, as the beginning of a sentence."""


@dataclass(frozen=True)
class Plan:
    environments: Environments
    folder: Path
    """The new environment's folder. It does not exist before the installation."""
    requirements: Path
    """The folder with the package lists."""
    steps: tuple[Step, ...]
    torch: str
    """PyTorch build: `cpu`, or the name of a CUDA build."""
    download: int
    """Download, bytes."""
    disk: int
    """Largest disk use during the installation, bytes."""
    messages: tuple[str, ...]
    """Sentences for the user: what will be installed, and why."""
    refusal: str | None = None
    """Why nothing can be installed on this machine, and what to do; None if it can."""

    @property
    def shortage(self) -> str | None:
        """A sentence if the disk has too little free space, otherwise None."""
        root = self.environments.root
        existing = next(folder for folder in (root, *root.parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        if free >= self.disk:
            return None
        return (
            f"The backend needs about {_gigabytes(self.disk)} GB while it is installed, and the disk of {existing} has "
            f"{_gigabytes(free)} GB left: free some space, then install again."
        )


class Choice(NamedTuple):
    """The PyTorch build, and why."""

    torch: str
    """`cpu`, or the name of a CUDA build."""
    reason: str
    """A sentence for the user."""


class _Packages(NamedTuple):
    """One call of `pip install`."""

    title: str
    arguments: tuple[str, ...]
    lists: tuple[str, ...]
    """Names in the table of figures."""
    source: str = "The package index"
    optional: bool = False


def make_plan(machine: Machine, environments: Environments, extension: Path, base_python: str) -> Plan:
    """The plan for `machine`: a new environment in `environments`, made by the interpreter `base_python` from the
    package lists in `extension`/requirements.
    """
    requirements = extension / "requirements"
    folder = environments.fresh_folder()
    if refusal := why_unsupported(machine):
        return Plan(environments, folder, requirements, (), "cpu", 0, 0, (refusal,), refusal)
    torch = torch_version(requirements)
    choice = choose_torch(machine, torch)
    figures = load_figures(requirements, platform_of(machine), machine.python)
    packages = _packages(machine, choice.torch, torch, requirements)
    downloads = [sum(figures[name].download for name in group.lists) for group in packages]
    unpacked = round(_FILE_SYSTEM * sum(figures[name].unpacked for group in packages for name in group.lists))
    # pip keeps each download in its cache, so that another try need not repeat it, and in a temporary folder.
    disk = unpacked + sum(downloads) + max(downloads)
    python, wheel = str(python_of(folder)), str(requirements / PIP_WHEEL)
    cache = ("--cache-dir", str(environments.downloads))
    steps = [Step("Creating the environment", _module(base_python, wheel, "venv", "--without-pip", str(folder)))]
    for group, download in zip(packages, downloads, strict=True):
        command = _module(python, wheel, "pip", "install", *PIP_OPTIONS, *cache, *group.arguments)
        steps.append(Step(group.title, command, download, group.optional, group.source))
    steps += [
        Step("Checking PyTorch", (python, "-c", CHECK_TORCH, CUDA_OF_BUILD[choice.torch])),
        Step("Testing the backend", _module(python, wheel, "backend", "doctor", "--check")),
    ]
    target = "for the CPU" if choice.torch == "cpu" else f"for the GPU (CUDA build {choice.torch})"
    messages = [
        f"{_gigabytes(sum(downloads))} GB are downloaded. The backend takes {_gigabytes(unpacked)} GB in "
        f"{environments.root}, and {_gigabytes(disk)} GB while it is installed.",
        f"PyTorch {torch} {target}.",
        choice.reason,
    ]
    if refusal := _path_problem(
        machine, folder, max(figures[name].longest for group in packages for name in group.lists)
    ):
        messages.append(refusal)
    return Plan(
        environments, folder, requirements, tuple(steps), choice.torch, sum(downloads), disk, tuple(messages), refusal
    )


def choose_torch(machine: Machine, torch: str) -> Choice:
    """Chooses the PyTorch build from the GPU's compute capability and its driver; `torch` is PyTorch's version."""
    gpu = machine.gpu
    on_cpu = "The CPU trains and renders."
    if machine.system == "Darwin":
        return Choice("cpu", "On a Mac the CPU trains and renders: training on Apple's GPUs is not supported.")
    if gpu is None:
        if machine.driver_complaint:
            return Choice(
                "cpu",
                f"The NVIDIA driver's nvidia-smi names no GPU and says “{machine.driver_complaint}”: if this machine "
                f"has an NVIDIA GPU, install its driver (580 or newer) again, then the backend. {on_cpu}",
            )
        return Choice("cpu", "No NVIDIA GPU was found, so the CPU trains and renders. Training takes minutes to hours.")
    if gpu.capability and gpu.capability < OLDEST_CAPABILITY:
        return Choice(
            "cpu",
            f"The {gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]}) is older than PyTorch "
            f"{torch} and NVIDIA Warp support: they need GeForce GTX 16, RTX 20 or newer (7.5). {on_cpu}",
        )
    new_enough = gpu.driver >= OLDEST_DRIVER if gpu.driver else gpu.cuda is not None and gpu.cuda >= OLDEST_CUDA
    if not new_enough:
        driver = f" {'.'.join(map(str, gpu.driver))}" if gpu.driver else ""
        return Choice(
            "cpu",
            f"The driver{driver} of the {gpu.name} is too old for the GPU to be used: update the NVIDIA driver to 580 "
            "or newer, then install again. Until then the CPU trains and renders.",
        )
    also = " gsplat is added, and compiles itself at its first use." if machine.compiler else ""
    return Choice(CUDA_BUILD, f"The {gpu.name} trains and renders.{also}")


def torch_version(requirements: Path) -> str:
    """PyTorch's version in the package lists."""
    found = re.search(r"^torch==([\w.]+)", (requirements / "torch.lock").read_text("utf-8"), re.MULTILINE)
    assert found, "torch.lock names no version of PyTorch"
    return found[1]


def torch_key(system: str, build: str, torch: str) -> str:
    """The list, or the exact version, from which a PyTorch build is installed: a name in the table of figures."""
    on_package_index = system == "Darwin" or (build == "cpu") == (system == "Windows")
    return "torch.lock" if on_package_index else f"torch=={torch}+{build}"


def _packages(machine: Machine, build: str, torch: str, requirements: Path) -> list[_Packages]:
    """The calls of `pip install`, in their order."""

    def locked(title: str, *names: str, optional: bool = False) -> _Packages:
        files = (part for name in names for part in ("-r", str(requirements / name)))
        return _Packages(title, ("--require-hashes", *files), names, optional=optional)

    key = torch_key(machine.system, build, torch)
    if key == "torch.lock":
        pytorch = locked("Installing PyTorch", key, *(() if build == "cpu" else ("torch-cuda.lock",)))
    else:
        index = f"{TORCH_INDEX}/{build}"
        pytorch = _Packages("Installing PyTorch", ("--index-url", index, key), (key,), f"PyTorch's index {index}")
    backend = locked("Installing the backend's packages", "backend.lock")
    with_pip = (*backend.arguments, "-r", str(requirements / PIP_LIST))
    groups = [backend._replace(arguments=with_pip), pytorch]
    if build != "cpu":
        groups.append(locked("Installing NVIDIA Warp", "warp.lock"))
        if machine.compiler:
            groups.append(locked("Installing gsplat", "cuda.lock", optional=True))
    return groups


def _module(python: str, pip_wheel: str, module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs a module as `python -m` does, and ends when this process ends."""
    return (python, str(RUN_MODULE), pip_wheel, module, *arguments)


def _path_problem(machine: Machine, folder: Path, longest: int) -> str | None:
    """A sentence if a file of the environment would have a longer path than Windows allows, otherwise None."""
    if machine.system != "Windows" or machine.long_paths:
        return None
    length = len(str(folder)) + len("\\Lib\\site-packages\\") + longest
    if length <= MAX_PATH:
        return None
    return (
        f"The longest path in {folder} would have {length} characters, and Windows allows {MAX_PATH}: let an "
        "administrator enable long paths (group policy “Enable Win32 long paths”), restart Blender, then install."
    )


def _gigabytes(size: int) -> str:
    return f"{size / GIGABYTE:.1f}"
