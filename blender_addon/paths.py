"""The paths that are stored in a .blend file.

They are relative to the .blend file (`//`) once it has been saved, and are adjusted when it is saved elsewhere.
Relative paths are written with `/` on every system, so that a file from Windows works on a Linux render farm.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

import bpy
from bpy.app.handlers import persistent

STORED: Final = ("capture", "avatar")
"""The path properties on a rig; also names of paths in its property `training`."""


def absolute(path: str, owner: bpy.types.ID | None = None) -> Path:
    """The full path of a stored one. `//` means the folder of the .blend, or of the library that `owner` is linked
    from.
    """
    if os.name != "nt" and path.startswith("//"):
        # Written on Windows by a version that kept the system's separators.
        path = path.replace("\\", "/")
    return Path(bpy.path.abspath(path, library=owner.library if owner else None)).absolute()


def stored(path: Path, folder: Path | None = None) -> str:
    """The text to store for a full path: relative to `folder`, by default that of the .blend file if it has been
    saved.
    """
    if folder is None and not bpy.data.filepath:
        return str(path)
    try:
        relative = bpy.path.relpath(str(path), start=str(folder) if folder else None)
        return relative.replace("\\", "/") if os.name == "nt" and relative.startswith("//") else relative
    except ValueError:
        # On Windows there is no relative path to another drive.
        return str(path)


def is_of_another_system(path: str, windows: bool = os.name == "nt") -> bool:
    """Whether this is a full path of another kind of system: a drive or a server where this one has none (`windows`
    False), or a path from the root where this one has drives. It names nothing here and must be kept as it is.
    """
    if windows:
        return PurePosixPath(path).is_absolute() and not PureWindowsPath(path).is_absolute()
    return PureWindowsPath(path).is_absolute() and not PurePosixPath(path).is_absolute()


def _owners() -> Iterator[bpy.types.Object]:
    """All objects of this file that store a path."""
    return (
        obj for obj in bpy.data.objects if obj.library is None and any(getattr(obj.effigy, name) for name in STORED)
    )


def _make_relative(origin: Path | None, target: Path) -> None:
    """Rewrites all stored paths relative to the folder `target`. Paths that are relative already are relative to
    `origin` (None: the file has not been saved, so there are none).
    """

    def rewritten(value: str) -> str:
        if value.startswith("//"):
            if os.name != "nt":
                value = value.replace("\\", "/")
            return value if origin is None else stored(Path(os.path.normpath(origin / value[2:])), target)
        if is_of_another_system(value):
            return value
        return stored(Path(value).absolute(), target)

    for obj in _owners():
        for name in STORED:
            if value := getattr(obj.effigy, name):
                setattr(obj.effigy, name, rewritten(value))
        if obj.effigy.training:
            params = json.loads(obj.effigy.training)
            obj.effigy.training = json.dumps(
                params | {name: rewritten(params[name]) for name in STORED if name in params}
            )


def _blend_folder() -> Path | None:
    """The folder of the .blend file; None if it has not been saved."""
    return Path(bpy.data.filepath).parent if bpy.data.filepath else None


@persistent
def _before_saving(filepath: str, *_: object) -> None:
    if filepath:
        _make_relative(_blend_folder(), Path(filepath).absolute().parent)


@persistent
def _after_saving(filepath: str, *_: object) -> None:
    """Restores the paths if a copy was saved elsewhere or saving failed, because then this file has not moved."""
    target, current = Path(filepath).absolute().parent, _blend_folder()
    if filepath and current is not None and target != current:
        _make_relative(target, current)


def register() -> None:
    bpy.app.handlers.save_pre.append(_before_saving)
    bpy.app.handlers.save_post.append(_after_saving)
    bpy.app.handlers.save_post_fail.append(_after_saving)


def unregister() -> None:
    for handlers, function in (
        (bpy.app.handlers.save_pre, _before_saving),
        (bpy.app.handlers.save_post, _after_saving),
        (bpy.app.handlers.save_post_fail, _after_saving),
    ):
        if function in handlers:
            handlers.remove(function)
