"""Keeps the work of another Blender that has saved the same .blend meanwhile.

Blender replaces a .blend without looking whether it is still the one that was opened: of two artists who have the same
file open, the second to save would discard the work of the first. For files with rigs, the other version is therefore
kept beside the file before it is replaced, and the artist is told.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bpy
from bpy.app.handlers import persistent

from .file_names import numbered
from .renaming import unused
from .reporting import report_soon
from .rig.rig_properties import is_part


@dataclass
class _OpenFile:
    """The module's state."""

    path: str = ""
    stamp: tuple[int, int] | None = None
    """Time of the last change (nanoseconds) and size (bytes) of the file as this Blender has read or written it."""


_open: Final = _OpenFile()


def _stamp_of(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


@persistent
def _remember(*_: object) -> None:
    _open.path = bpy.data.filepath
    _open.stamp = _stamp_of(_open.path) if _open.path else None


@persistent
def _keep_other(filepath: str, *_: object) -> None:
    """Handler: before a file is saved."""
    if not filepath or filepath != _open.path or _open.stamp is None:
        return
    now = _stamp_of(filepath)
    if now is None or now == _open.stamp or not any(is_part(obj, "armature") for obj in bpy.data.objects):
        return
    path = Path(filepath)
    kept = unused(numbered(path, " of another Blender"))
    try:
        _link_or_copy(path, kept)
    except OSError as error:
        report_soon(
            f"{path.name} was saved by another Blender since it was opened here, and its version could not be kept "
            f"({error.strerror or error}): it may still be {path.name}1. Save under another name next time."
        )
        return
    report_soon(
        f"{path.name} was saved by another Blender since it was opened here: its version is kept as {kept.name}, and "
        f"{path.name} holds yours."
    )


def _link_or_copy(source: Path, target: Path) -> None:
    """`target` keeps what `source` holds now. Blender never writes into an existing file: it renames a new one."""
    try:
        os.link(source, target)
    except OSError:
        # Not every file system has hard links.
        shutil.copy2(source, target)


handlers: Final = (("load_post", _remember), ("save_post", _remember), ("save_pre", _keep_other))


def register() -> None:
    # Blender gives an extension no access to its data while it enables it.
    bpy.app.timers.register(_remember, first_interval=0.0)


def unregister() -> None:
    if bpy.app.timers.is_registered(_remember):
        bpy.app.timers.unregister(_remember)
