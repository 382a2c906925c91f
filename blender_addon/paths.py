"""Paths in a .blend: relative to it (`//`) where it has a place, and still right after it is saved somewhere else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import bpy
from bpy.app.handlers import persistent

STORED: Final = ("capture", "avatar")
"""The path properties of a rig."""


def absolute(path: str, owner: bpy.types.ID | None = None) -> Path:
    """A stored path as a full one; `//` is relative to the .blend, or to the library that `owner` is linked from."""
    return Path(bpy.path.abspath(path, library=owner.library if owner else None)).absolute()


def stored(path: Path, folder: Path | None = None) -> str:
    """A full path as it is stored: relative to `folder`, by default that of the .blend, if there is one."""
    if folder is None and not bpy.data.filepath:
        return str(path)
    try:
        return bpy.path.relpath(str(path), start=str(folder) if folder else None)
    except ValueError:
        # Another drive on Windows.
        return str(path)


def _owners() -> Iterator[bpy.types.Object]:
    return (
        obj for obj in bpy.data.objects if obj.library is None and any(getattr(obj.effigy, name) for name in STORED)
    )


def _move(origin: Path | None, target: Path) -> None:
    """Write all stored paths relative to `target`; relative ones lie relative to `origin` until now (None: there are
    none)."""

    def moved(value: str) -> str:
        if value.startswith("//"):
            return value if origin is None else stored(Path(os.path.normpath(origin / value[2:])), target)
        return stored(Path(value).absolute(), target)

    for obj in _owners():
        for name in STORED:
            if value := getattr(obj.effigy, name):
                setattr(obj.effigy, name, moved(value))
        if obj.effigy.training:
            params = json.loads(obj.effigy.training)
            obj.effigy.training = json.dumps(params | {name: moved(params[name]) for name in STORED if name in params})


def _here() -> Path | None:
    return Path(bpy.data.filepath).parent if bpy.data.filepath else None


@persistent
def _before_saving(filepath: str, *_: object) -> None:
    if filepath:
        _move(_here(), Path(filepath).absolute().parent)


@persistent
def _after_saving(filepath: str, *_: object) -> None:
    """Where a copy was saved elsewhere, or saving failed, this file still is where it was."""
    target, here = Path(filepath).absolute().parent, _here()
    if filepath and here is not None and target != here:
        _move(target, here)


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
