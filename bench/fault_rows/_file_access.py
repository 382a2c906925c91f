"""Records which files Python code reaches for: every look, reading, writing, deleting, and every start of a program.

It uses Python's audit events, and replaces the functions of `os` that look at a file, for which there are none. What
Blender itself does in C is not seen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

LOOKS: Final = ("stat", "lstat", "access", "readlink")
READS: Final = ("os.listdir", "os.scandir")
WRITES: Final = (
    "os.chmod",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "shutil.rmtree",
)
PROGRAMS: Final = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system")
CONNECTIONS: Final = ("socket.connect", "socket.getaddrinfo")


@dataclass
class Access:
    """What was reached for. A path is as the code gave it."""

    seen: list[str] = field(default_factory=list)
    """Files and folders that were looked at, read or listed."""
    written: list[str] = field(default_factory=list)
    """Files and folders that were made, changed, moved or deleted."""
    started: list[str] = field(default_factory=list)
    """Programs, and connections to other machines."""

    def outside(self, *folders: Path) -> list[str]:
        """What was seen or written elsewhere than below these folders, where links are followed. The folders on the way
        to them may be looked at.
        """
        roots = [os.path.realpath(folder) for folder in folders]
        way = {str(parent) for root in roots for parent in Path(root).parents}
        seen = [path for path in self.seen if not _is_below(path, roots) and os.path.realpath(path) not in way]
        return [*seen, *(path for path in self.written if not _is_below(path, roots))]


_active: list[Access] = []
_hooked: list[bool] = []


@contextmanager
def recorded() -> Iterator[Access]:
    """What is reached for while the context lasts, in all threads."""
    if not _hooked:
        # An audit hook cannot be removed.
        sys.addaudithook(_on_event)
        _hooked.append(True)
    access, replaced = Access(), {name: getattr(os, name) for name in LOOKS}
    for name, function in replaced.items():
        setattr(os, name, _noted(function, access))
    _active.append(access)
    try:
        yield access
    finally:
        _active.remove(access)
        for name, function in replaced.items():
            setattr(os, name, function)


def _noted(function: Callable[..., Any], access: Access) -> Callable[..., Any]:
    def look(path: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(path, int):
            access.seen.append(os.fsdecode(path))
        return function(path, *arguments, **options)

    return look


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active:
        return
    paths = [os.fsdecode(value) for value in arguments[:2] if isinstance(value, (str, bytes, os.PathLike))]
    for access in _active:
        # A file that is already open is opened again by its number, and what follows is its mode.
        if event == "open" and not isinstance(arguments[0], int):
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            (access.written if changes else access.seen).append(paths[0])
        elif event in READS:
            access.seen += paths[:1]
        elif event in WRITES:
            access.written += paths
        elif event in PROGRAMS or event in CONNECTIONS:
            access.started.append(f"{event} {arguments[:2]}")


def _is_below(path: str, roots: list[str]) -> bool:
    place = os.path.realpath(path)
    return any(place == root or place.startswith(f"{root}{os.sep}") for root in roots)
