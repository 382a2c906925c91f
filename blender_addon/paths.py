"""The paths that are stored in a .blend file, and everything that is done with them.

They are relative to the .blend file (`//`) once it has been saved, and are adjusted when it is saved elsewhere.
Relative paths are written with `/` on every system, so that a file from Windows works on a Linux render farm.

A stored path may be a stranger's: damaged, or chosen to do harm. `absolute` makes a path of it and reaches for nothing.
What runs without a click asks `trusted_paths.trusts` before it looks for the file. `check_written` decides whether the
artist's click may write there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import bpy
from bpy.app.handlers import persistent

from . import trusted_paths
from .errors import EffigyError

STORED: Final = ("capture", "avatar")
"""The path properties on a rig; also names of paths in its property `training`."""
LONGEST: Final = 4096
"""Characters of a path. Linux allows as many bytes; paths on Windows are shorter in practice."""
LONGEST_SETTINGS: Final = 1 << 16
"""Characters of the property `training`, whose two paths are its longest parts."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def absolute(path: str, owner: bpy.types.ID | None = None) -> Path:
    """The full path of a stored one, without `..`. `//` means the folder of the .blend, or of the library that `owner`
    is linked from. Does not look whether there is such a file. Raises an `EffigyError` for a text that can be no path.
    """
    if not _is_usable(path):
        whose = f" of “{owner.name}”" if owner else ""
        raise EffigyError(
            f"A path{whose} in this .blend is damaged or too long ({path[:60]!r}…): choose the file again."
        )
    if os.name != "nt" and path.startswith("//"):
        # Written on Windows by a version that kept the system's separators.
        path = path.replace("\\", "/")
    full = Path(bpy.path.abspath(path, library=owner.library if owner else None)).absolute()
    # As Blender shortens its own paths, also where a folder before `..` is a link: `stored` counted it as a folder, and
    # `trusted_paths` compares texts.
    return Path(os.path.normpath(full))


def is_file(path: Path) -> bool:
    """Whether there is such a file. Unlike that of `Path`, it has no error for a name that is too long or a folder that
    may not be searched.
    """
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def check_written(path: Path, owner: bpy.types.Object) -> None:
    """Refuses to write a file, or into a folder, that only a .blend names, unless it is below the folder of that
    .blend, where links are followed, or was chosen on this computer. `owner` has the path in its settings.
    """
    if trusted_paths.was_chosen(path):
        return
    folder = _blend_folder()
    with suppress(OSError, ValueError, RuntimeError):
        if folder is not None and path.resolve().is_relative_to(folder.resolve()):
            return
    raise EffigyError(
        f"“{owner.name}” would write to {path}, which is not in the folder of this .blend and was not chosen on this "
        "computer: choose the capture's folder again under Train, or save the .blend beside it."
    )


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


def settings_of(text: str) -> dict[str, Any] | None:
    """A rig's property `training` as a dictionary, in which the paths are texts; None if it is empty or damaged."""
    if not 0 < len(text) <= LONGEST_SETTINGS:
        return None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(settings, dict) or not all(isinstance(settings.get(name, ""), str) for name in STORED):
        return None
    return settings


def _is_usable(path: str) -> bool:
    if len(path) > LONGEST or _CONTROL.search(path):
        return False
    try:
        # Half of a character, as damaged JSON may hold it, names no file.
        os.fsencode(path)
    except ValueError:
        return False
    return True


def _owners() -> Iterator[bpy.types.Object]:
    """All objects of this file that store a path."""
    return (
        obj
        for obj in bpy.data.objects
        if obj.library is None and any(getattr(obj.effigy, name) for name in (*STORED, "training"))
    )


def _make_relative(origin: Path | None, target: Path | None) -> None:
    """Rewrites all stored paths relative to the folder `target`, or as full paths if that is None. Paths that are
    relative already are relative to `origin` (None: the file has not been saved, so there are none).
    """

    def rewritten(value: str) -> str:
        if not _is_usable(value):
            return value
        if value.startswith("//"):
            if os.name != "nt":
                value = value.replace("\\", "/")
            return value if origin is None else stored(Path(os.path.normpath(origin / value[2:])), target)
        if is_of_another_system(value):
            return value
        return stored(Path(value).absolute(), target)

    with trusted_paths.suspended():
        for obj in _owners():
            for name in STORED:
                if value := getattr(obj.effigy, name):
                    setattr(obj.effigy, name, rewritten(value))
            if params := settings_of(obj.effigy.training):
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
    """Restores the paths if a copy was saved elsewhere or saving failed, because then this file has not moved, or is
    still unsaved.
    """
    target, current = Path(filepath).absolute().parent, _blend_folder()
    if filepath and target != current:
        _make_relative(target, current)


handlers: Final = (
    ("save_pre", _before_saving),
    ("save_post", _after_saving),
    ("save_post_fail", _after_saving),
)
