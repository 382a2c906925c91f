"""The devices that a user can choose for training, and the one answer to the question whether the GPU can be used.

`choose_device("auto")`, the worker, `doctor` and the installation's final check all ask `usable_cuda`. It does not read
version numbers alone: it allocates memory on the GPU and draws a picture, and keeps the answer for the process.
"""

from __future__ import annotations

import platform
import subprocess
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from . import child_process
from .errors import EffigyError

if TYPE_CHECKING:
    import torch

DEVICES: Final = ("auto", "cpu", "cuda")
CUDA: Final = "cuda"
"""PyTorch's name of the GPU."""
NVIDIA_SMI_SECONDS: Final = 20
"""nvidia-smi answers within a second, except where it has to start the driver first."""
WSL_FOLDER: Final = "/usr/lib/wsl/lib"
"""Where the Linux of Windows (WSL) has nvidia-smi, in a folder that is not on every program's PATH."""
NO_GPU: Final = "There is no NVIDIA GPU here: everything runs on the CPU, and training takes minutes to hours."
APPLE_SILICON: Final = (
    "Apple's GPU is not used: no rasteriser and no sparse matrices of PyTorch run on it. Training and drawing run on "
    "the CPU, and training takes minutes to hours."
)


@dataclass(frozen=True)
class DeviceReport:
    """Whether the CUDA device can be used for training and drawing."""

    usable: bool
    gpu: str | None
    """Name of the GPU; None where neither PyTorch nor the driver's tool nvidia-smi names one."""
    reason: str
    """A sentence: why the GPU is not used, or which GPU is used."""
    rasteriser: str | None = None
    """Which rasteriser draws on the GPU and why, without a full stop; None where the GPU is not usable."""


_report: DeviceReport | None = None
_asking = threading.Lock()
_given_up: DeviceReport | None = None
"""The report before `give_up_cuda`."""


def usable_cuda() -> DeviceReport:
    """Whether this process can use the GPU, and why not.

    The first call tries it: CUDA's start, the build's kernels for this card, an allocation, and a picture that is
    compared with the reference rasteriser's. This takes seconds on a machine with a GPU, more where kernels have to be
    compiled, and nothing elsewhere. Later calls return the same answer, unless `give_up_cuda` was called.
    """
    global _report
    # Of two threads that ask at once, one waits, or both would compile the kernels.
    with _asking:
        if _report is None:
            _report = _examine()
        return _report


def give_up_cuda(error: Exception) -> str | None:
    """Use the CPU for the rest of this process, after `error` was raised by work that may have run on the GPU.

    Returns a sentence about the failure; the caller says it once and does the work again on the CPU. Returns None, and
    changes nothing, if this process does not use the GPU or if `error` is none that a GPU causes: the caller raises it
    again. PyTorch and Warp raise a `RuntimeError` if memory runs out, kernels cannot be built, or the driver fails. A
    `RuntimeError` that has another cause is raised once more by the work on the CPU.
    """
    global _report, _given_up
    if _report is None or not _report.usable or not isinstance(error, RuntimeError):
        return None
    if is_out_of_memory(error):
        reason = f"The memory of the {_report.gpu} is not enough for this."
    else:
        from .splatting.self_test import first_line

        reason = f"The {_report.gpu} failed ({first_line(error)})."
    _given_up, _report = _report, replace(_report, usable=False, reason=reason, rasteriser=None)
    return reason


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory ran out, which smaller work need not do."""
    # torch.OutOfMemoryError is recognised by its name, because it is a RuntimeError of PyTorch alone.
    return type(error).__name__ == "OutOfMemoryError" or "out of memory" in str(error)


def take_cuda_back() -> None:
    """Undo `give_up_cuda`: the work failed on the CPU as well, so the cause was not the GPU, or it was too large for
    the GPU's memory, and later work need not be.
    """
    global _report
    _report = _given_up or _report


def choose_device(name: str) -> torch.device:
    """The PyTorch device for one of `DEVICES`; `auto` is the GPU where it is usable.

    Raises an `EffigyError` with the reason if the GPU was demanded and is not usable.
    """
    import torch

    if name == "cpu":
        return torch.device("cpu")
    report = usable_cuda()
    if name == "cuda" and not report.usable:
        raise EffigyError(f"{report.reason} Choose the device cpu or auto, or see `doctor`.")
    return torch.device(CUDA if report.usable else "cpu")


def _examine() -> DeviceReport:
    import torch

    try:
        torch.cuda.init()
        name = torch.cuda.get_device_name()
    except Exception as error:
        if (platform.system(), platform.machine()) == ("Darwin", "arm64"):
            return DeviceReport(False, None, APPLE_SILICON)
        gpu = _gpu_of_driver()
        return DeviceReport(False, gpu, _not_used(gpu, _why_cuda_does_not_start(error)) if gpu else NO_GPU)
    try:
        return _try(name)
    except Exception as error:
        # Drivers, compilers and extension modules raise every kind of exception, and none of them ends a training.
        from .splatting.self_test import first_line

        return DeviceReport(False, name, _not_used(name, first_line(error)))


def _try(name: str) -> DeviceReport:
    """The report on the GPU `name`, on which CUDA has started. Raises whatever the GPU's software raises."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    if not has_kernels_for(torch.cuda.get_arch_list(), major, minor):
        build = f"this build of PyTorch ({torch.__version__}) has no kernels for its compute capability {major}.{minor}"
        return DeviceReport(False, name, _not_used(name, f"{build}; install the backend again for another build"))
    if float(torch.ones(1000, device="cuda").sum()) != 1000:
        return DeviceReport(False, name, _not_used(name, "it adds numbers wrongly"))
    from .splatting.gpu_choice import choose_gpu_rasterizer

    choice = choose_gpu_rasterizer()
    if choice.backend is None:
        return DeviceReport(False, name, _not_used(name, f"no rasteriser works on it: {choice.explanation}"))
    return DeviceReport(True, name, f"The {name} is used.", choice.explanation)


def has_kernels_for(architectures: list[str], major: int, minor: int) -> bool:
    """Whether a build for `architectures` (`sm_86`, `compute_120`, …) runs on a GPU of a compute capability.

    Machine code (sm) runs on newer cards of the same major version; PTX (compute) is compiled for any newer card.
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        digits = "".join(character for character in number if character.isdigit())
        if not digits:
            continue
        built_major, built_minor = int(digits[:-1] or 0), int(digits[-1])
        if kind == "sm" and built_major == major and built_minor <= minor:
            return True
        if kind == "compute" and (built_major, built_minor) <= (major, minor):
            return True
    return False


def _not_used(gpu: str, cause: str) -> str:
    return f"The {gpu} is not used: {cause.rstrip('.')}. Everything runs on the CPU."


def _why_cuda_does_not_start(error: Exception) -> str:
    """The cause for which `torch.cuda.init` raised `error`, as a clause."""
    import torch

    from .splatting.self_test import first_line

    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is a build without CUDA; install the backend again"
    if "driver" in str(error) and "too old" in str(error):
        return f"its driver is too old for CUDA {torch.version.cuda}; update it to version 580 or newer"
    return first_line(error)


def _gpu_of_driver() -> str | None:
    """`NVIDIA GeForce RTX 4070 (driver 552.12)` as nvidia-smi says it, or None where there is none or it fails."""
    program = child_process.find_program("nvidia-smi") or child_process.find_program("nvidia-smi", {"PATH": WSL_FOLDER})
    if program is None:
        return None
    try:
        completed = child_process.run(
            [program, "--query-gpu=name,driver_version", "--format=csv,noheader"], NVIDIA_SMI_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = completed.stdout.splitlines()
    if completed.returncode or not lines:
        return None
    name, _, driver = (part.strip() for part in lines[0].partition(","))
    return f"{name} (driver {driver})" if driver else name or None
