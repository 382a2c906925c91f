"""Checks of this machine: what Effigy can do here, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from ..errors import EffigyError, missing_library
from .results import BROKEN, MISSING, OK, AvatarContents, Finding

GIGABYTE = 10**9
MIN_FREE_DISK = 5 * GIGABYTE
"""A capture of ten minutes at 512² with its mattes takes about this much."""


def examine(train_on: str | None = None) -> list[Finding]:
    """Run every check, in the order in which the pipeline needs them. A check that fails becomes a finding.

    `train_on` (auto, cpu or cuda): train and draw a tiny avatar on this device as well, which takes ten seconds.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", _python),
        ("PyTorch", _torch),
        ("GPU", _gpu),
        ("GPU rasteriser", _gpu_rasterizer),
        ("CPU rasteriser", _numba),
        ("Video", _codecs),
        ("Detector", _detector),
        ("Open head", _open_head),
        ("Image comparison", _hed),
        ("LPIPS", _lpips),
        ("Disk", _disk),
    ]
    if train_on is not None:
        checks.append(("Training", lambda: _training(train_on)))
    found = []
    for subject, check in checks:
        try:
            found.append(check())
        except EffigyError as error:
            found.append(Finding(subject, BROKEN, str(error)))
        except Exception as error:
            # Whatever a check meets, the others still run and the user sees all findings.
            found.append(Finding(subject, BROKEN, missing_library(error) or f"{type(error).__name__}: {error}"))
    return found


def examine_avatar(path: Path) -> AvatarContents:
    """What an avatar's file contains, by part and precision."""
    from ..avatar.avatar import file_parts, load_avatar

    avatar = load_avatar(path)
    return AvatarContents(
        avatar=path,
        gaussians=avatar.gaussian_count,
        head_name=avatar.head_model.name,
        metrics=avatar.metrics,
        parts=tuple(file_parts(path)),
        bytes=path.stat().st_size,
    )


def _python() -> Finding:
    return Finding("Python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    import torch

    return Finding("PyTorch", OK, f"{torch.__version__}, {torch.get_num_threads()} threads")


def _gpu() -> Finding:
    from ..devices import usable_cuda

    report = usable_cuda()
    if not report.usable:
        return Finding("GPU", MISSING, report.reason)
    import torch

    device = torch.cuda.get_device_properties(0)
    return Finding("GPU", OK, f"{device.name}, {device.total_memory / GIGABYTE:.0f} GB, CUDA {torch.version.cuda}")


def _gpu_rasterizer() -> Finding:
    from ..devices import usable_cuda

    report = usable_cuda()
    if report.rasteriser is None:
        return Finding("GPU rasteriser", MISSING, "none, because no GPU is used: numba draws on the CPU")
    return Finding("GPU rasteriser", OK, report.rasteriser)


def _training(device: str) -> Finding:
    from ..devices import give_up_cuda
    from .device_check import check_device

    try:
        return Finding("Training", OK, check_device(device))
    except RuntimeError as error:
        if device != "auto" or give_up_cuda(error) is None:
            raise
    # The training would have gone on on the CPU; a GPU that fails at the picture ends no installation either.
    return Finding("Training", OK, check_device(device))


def _numba() -> Finding:
    import numba

    return Finding("CPU rasteriser", OK, f"numba {numba.__version__}, shares PyTorch's threads, {os.cpu_count()} cores")


def _codecs() -> Finding:
    import av

    readable = [name for name in ("h264", "hevc", "vp9", "av1", "prores", "mjpeg") if name in av.codecs_available]
    lacking = [] if _can_write("libx264") else ["libx264, so MP4 cannot be written"]
    explanation = f"PyAV {av.__version__} reads {', '.join(readable)}"
    return Finding("Video", BROKEN if lacking else OK, "; ".join([explanation, *lacking]))


def _can_write(codec: str) -> bool:
    import av

    try:
        return bool(av.Codec(codec, "w"))
    except ValueError:
        return False


def _detector() -> Finding:
    from ..footage.detector import FaceDetector
    from ..footage.matte import MattingModel

    FaceDetector().close()
    MattingModel()
    return Finding("Detector", OK, f"MediaPipe {importlib.metadata.version('mediapipe')}: face landmarks, matte")


def _open_head() -> Finding:
    from ..head.formats import load_head

    model = load_head()
    return Finding(
        "Open head",
        OK,
        f"{model.name}: {len(model.template)} vertices, {model.shape_basis.shape[2]} identity and "
        f"{model.expression_basis.shape[2]} expression components",
    )


def _hed() -> Finding:
    from ..training.perceptual import hed_features

    hed_features(depth=1)
    return Finding("Image comparison", OK, "training judges images by a network, much as an eye does")


def _lpips() -> Finding:
    from ..training.perceptual import find_lpips

    found = find_lpips()
    if found is None:
        return Finding(
            "LPIPS",
            MISSING,
            "not installed. Only developers need it, to compare avatars with published figures: nothing is missing to "
            "make or render avatars",
        )
    return Finding("LPIPS", OK, f"the command `evaluate` measures it as well: {found[0]}")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("Disk", OK if free > MIN_FREE_DISK else MISSING, f"{free / GIGABYTE:.0f} GB free in this folder")
