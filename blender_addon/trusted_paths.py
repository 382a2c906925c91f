r"""Which paths of a .blend are followed before the artist asks for it: those that were used on this computer before.

Blender draws panels and 3D Views, asks `poll` and runs handlers without a click, also in a .blend that a stranger has
made. There even the question whether a file exists can do harm: Windows signs in to the server of a path such as
`\\server\share`, a path below a network drive may never answer, and an avatar that is there starts the backend. What
runs by itself therefore asks `trusts` first, which reads no file but its own list.

A path becomes trusted when the artist chooses it, when a script sets it, when Effigy itself writes the file, or with
the button Look for Its Files. That button is about reading: it does not make a path one that was chosen, and only to
those does Effigy write (`paths.check_written`). Where Blender is set to run the Python scripts of every .blend, nothing
is held back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import bpy

from . import preferences
from .errors import EffigyError
from .output_files import temporary_beside
from .renaming import rename

FILE: Final = "trusted_paths.json"
"""In the extension's user folder."""
MOST: Final = 10_000
"""Paths that are kept, those trusted last."""
MOST_BYTES: Final = 64 << 20
"""A larger list is damaged and is not read."""


@dataclass
class _Trusted:
    """The module's state."""

    keys: dict[str, bool] = field(default_factory=dict)
    """Whether the path was chosen, in the order in which they were trusted."""
    stamp: tuple[int, int] | None = None
    """Time of the last change and size of the list's file when it was read."""
    suspended: bool = False


_trusted: Final = _Trusted()


def trusts(path: Path) -> bool:
    """Whether a full path may be followed without a click. Looks at no other file than the list of trusted paths."""
    return _found(path) is not None


def was_chosen(path: Path) -> bool:
    """Whether a full path was chosen on this computer, or set by a script or by Effigy, so that it may be written."""
    return _found(path) is True


def _found(path: Path) -> bool | None:
    if bpy.context.preferences.filepaths.use_scripts_auto_execute:
        return True
    key = _key(path)
    if not _trusted.keys.get(key):
        # Another Blender may have added it meanwhile.
        _read()
    return _trusted.keys.get(key)


def trust(*paths: Path, chosen: bool = True) -> None:
    """Adds full paths to the list. `chosen`: whether they may be written as well. Does nothing inside `suspended`."""
    if _trusted.suspended:
        return
    keys = [_key(path) for path in paths]
    if all(_trusted.keys.get(key, False) >= chosen and key in _trusted.keys for key in keys):
        return
    _read()
    for key in keys:
        _trusted.keys[key] = _trusted.keys.pop(key, False) or chosen
    for key in list(_trusted.keys)[:-MOST]:
        del _trusted.keys[key]
    # A list that cannot be stored is valid until Blender is closed.
    with suppress(OSError, EffigyError):
        _write()


def is_suspended() -> bool:
    """Whether paths are being rewritten that are not the artist's choice."""
    return _trusted.suspended


@contextmanager
def suspended() -> Iterator[None]:
    """While paths are rewritten that are not the artist's choice, nothing becomes trusted."""
    before, _trusted.suspended = _trusted.suspended, True
    try:
        yield
    finally:
        _trusted.suspended = before


def _key(path: Path) -> str:
    return os.path.normcase(os.path.normpath(path))


def _file() -> Path:
    return Path(bpy.utils.extension_path_user(preferences.PACKAGE, path=FILE, create=False))


def _read() -> None:
    """Adds what the list's file holds, if it has changed since it was read."""
    try:
        status = _file().stat()
        stamp = status.st_mtime_ns, status.st_size
        if stamp == _trusted.stamp or status.st_size > MOST_BYTES:
            return
        stored = json.loads(_file().read_text("utf-8"))
        _trusted.stamp = stamp
        for key, chosen in stored.items() if isinstance(stored, dict) else ():
            _trusted.keys[key] = _trusted.keys.get(key, False) or chosen is True
    except (OSError, ValueError, RecursionError):
        # Without the list the artist is asked again.
        return


def _write() -> None:
    path = preferences.user_folder() / FILE
    temporary = temporary_beside(path)
    try:
        temporary.write_text(json.dumps(_trusted.keys, indent=0), "utf-8")
        rename(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _read()
