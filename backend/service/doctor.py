"""What this machine can do and what is missing, each with what to do about it."""

from __future__ import annotations

import importlib.metadata
import io
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

GIGABYTE = 10**9
ENOUGH_DISK = 5 * GIGABYTE
"""A capture of ten minutes at 512² with its mattes takes about this much."""


@dataclass(frozen=True)
class Finding:
    """One row: what was looked at, how it stands, and whether Effigy works without it."""

    subject: str
    state: str
    """`ok`, `missing` (something optional) or `broken` (Effigy does not work until it is mended)."""
    said: str


def examine() -> list[Finding]:
    """Every check, in the order in which the pipeline needs them; none of them raises."""
    checks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("Python", _python),
        ("PyTorch", _torch),
        ("GPU", _gpu),
        ("GPU rasteriser", _gsplat),
        ("CPU rasteriser", _numba),
        ("Video", _codecs),
        ("Detector", _detector),
        ("Open head", _open_head),
        ("vgg_hed weights", _hed),
        ("LPIPS weights", _lpips),
        ("Disk", _disk),
    )
    found = []
    for subject, check in checks:
        try:
            found.append(check())
        except Exception as error:  # a doctor reports what is broken, whatever it is
            found.append(Finding(subject, "broken", f"{type(error).__name__}: {error}"))
    return found


def show(findings: list[Finding]) -> str:
    """The table as text."""
    table = Table(box=None, pad_edge=False)
    for title in ("What", "State", ""):
        table.add_column(title)
    colour = {"ok": "green", "missing": "yellow", "broken": "red"}
    for finding in findings:
        table.add_row(finding.subject, f"[{colour[finding.state]}]{finding.state}[/]", escape(finding.said))
    return _text_of(table)


def _text_of(table: Table) -> str:
    console = Console(
        file=io.StringIO(), width=shutil.get_terminal_size((140, 24)).columns, force_terminal=sys.stdout.isatty()
    )
    console.print(table)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().splitlines())


def examine_avatar(path: Path) -> str:
    """What an avatar's file is made of, by part and precision, as a table; and what it was trained as."""
    from ..avatar.avatar import load_avatar, parts_of

    avatar = load_avatar(path)
    table = Table(box=None, pad_edge=False)
    for title, side in (("Part", "left"), ("numbers", "right"), ("kB", "right"), ("stored as", "left")):
        table.add_column(title, justify=side)
    for part in parts_of(path):
        table.add_row(escape(part.name), f"{part.numbers:,}", f"{part.bytes / 1e3:.1f}", " and ".join(part.types))
    table.add_row("the whole file", "", f"{path.stat().st_size / 1e3:.1f}", "")
    trained = ", ".join(f"{name} {value}" for name, value in avatar.metrics.items())
    return (
        f"{path}: {avatar.gaussian_count} Gaussians on the head model “{avatar.head_model.name}”"
        + (f"; {trained}" if trained else "")
        + f".\n{_text_of(table)}"
    )


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    import torch

    return Finding("PyTorch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "missing", "no CUDA device: everything runs on the CPU, training takes minutes to hours")
    device = torch.cuda.get_device_properties(0)
    return Finding("GPU", "ok", f"{device.name}, {device.total_memory / GIGABYTE:.0f} GB, CUDA {torch.version.cuda}")


def _gsplat() -> Finding:
    from ..splatting.cuda import why_unavailable

    missing = why_unavailable()
    if missing:
        return Finding("GPU rasteriser", "missing", missing)
    return Finding("GPU rasteriser", "ok", f"gsplat {importlib.metadata.version('gsplat')}")


def _numba() -> Finding:
    import numba

    return Finding(
        "CPU rasteriser", "ok", f"numba {numba.__version__}, shares PyTorch's threads, {os.cpu_count()} cores"
    )


def _codecs() -> Finding:
    import av

    readable = [name for name in ("h264", "hevc", "vp9", "av1", "prores", "mjpeg") if name in av.codecs_available]
    lacking = [] if _can_write("libx264") else ["libx264, so MP4 cannot be written"]
    said = f"PyAV {av.__version__} reads {', '.join(readable)}"
    return Finding("Video", "broken" if lacking else "ok", "; ".join([said, *lacking]))


def _can_write(codec: str) -> bool:
    import av

    try:
        return bool(av.Codec(codec, "w"))
    except ValueError:
        return False


def _detector() -> Finding:
    from ..footage.detector import FaceDetector
    from ..footage.matte import Matter

    FaceDetector().close()
    Matter()
    return Finding("Detector", "ok", f"MediaPipe {importlib.metadata.version('mediapipe')}: face landmarks, matte")


def _open_head() -> Finding:
    from ..head.formats import load_head

    model = load_head()
    return Finding(
        "Open head",
        "ok",
        f"{model.name}: {len(model.template)} vertices, {model.shape_basis.shape[2]} identity and "
        f"{model.expression_basis.shape[2]} expression components",
    )


def _hed() -> Finding:
    from ..training.perceptual import hed_features

    hed_features(depth=1)
    return Finding("vgg_hed weights", "ok", "training and `evaluate` compare pictures by them, as an eye would")


def _lpips() -> Finding:
    from ..training.perceptual import find_lpips

    found = find_lpips()
    if found is None:
        return Finding(
            "LPIPS weights",
            "missing",
            "Not needed to make or render avatars. `evaluate` leaves out this one measure "
            "of likeness, and gives vgg_hed, a similar one",
        )
    return Finding("LPIPS weights", "ok", f"`evaluate` gives this measure of likeness as well: {found[0]}")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return Finding("Disk", "ok" if free > ENOUGH_DISK else "missing", f"{free / GIGABYTE:.0f} GB free in this folder")
