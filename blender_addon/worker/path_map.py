r"""Folders that both this machine and the worker's machine reach, each under its own path.

On the studio's server the same folder may be `P:\film` for Windows and `/mnt/film` for Linux.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import EffigyError

_WINDOWS = re.compile(r"[A-Za-z]:([\\/]|$)|[\\/]{2}[^\\/]")
"""The beginning of a full path of Windows: a drive, or a server."""


@dataclass(frozen=True)
class PathMap:
    """Pairs of a local and a remote folder. The longest folder that contains a path decides.

    Paths of Windows are compared without regard to upper and lower case, and with either slash; other paths exactly.
    """

    rows: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, str]]) -> PathMap:
        """From the rows of the preferences. Rows of which both sides are empty are left out; raises an `EffigyError`
        for one that is half filled or not a full path.
        """
        checked = []
        for local, remote in ((local.strip(), remote.strip()) for local, remote in rows):
            if not local and not remote:
                continue
            for side, path in (("on this machine", local), ("on the worker's machine", remote)):
                if not is_full(path):
                    raise EffigyError(
                        f"Shared Folders in Effigy's preferences: the folder {side} must be a full path, but is "
                        f"“{path}”. Fill both sides, or remove the row."
                    )
            checked.append((local, remote))
        return cls(tuple(checked))

    def to_remote(self, path: str) -> str | None:
        """The worker's path of a file or folder here, or None if no row contains it."""
        return _replaced(path, self.rows)

    def to_local(self, path: str) -> str | None:
        """The path here of a file or folder of the worker, or None if no row contains it."""
        return _replaced(path, [(remote, local) for local, remote in self.rows])


def is_full(path: str) -> bool:
    """Whether this is a full path on either system."""
    return path.startswith("/") or _WINDOWS.match(path) is not None


def joined(folder: str, *parts: str) -> str:
    """A path below a full path, with the separator of that path's system. A part may hold several, joined by `/`."""
    separator = "\\" if _WINDOWS.match(folder) else "/"
    names = [name for part in parts for name in part.split("/") if name]
    return separator.join([folder.rstrip("\\/") if separator == "\\" else folder.rstrip("/"), *names])


def _replaced(path: str, rows: Iterable[tuple[str, str]]) -> str | None:
    best: tuple[int, str] | None = None
    for folder, other in rows:
        below = _below(path, folder)
        # `..` could lead out of the shared folder.
        if below is not None and ".." not in below and (best is None or len(_parts(folder)) > best[0]):
            best = len(_parts(folder)), joined(other, *below) if below else other
    return best[1] if best else None


def _below(path: str, folder: str) -> list[str] | None:
    """The parts of `path` below `folder`, or None if it is not in it."""
    windows = _WINDOWS.match(folder) is not None
    if windows != (_WINDOWS.match(path) is not None):
        return None
    parts, prefix = _parts(path), _parts(folder)
    start = parts[: len(prefix)]
    if windows:
        start, prefix = [part.casefold() for part in start], [part.casefold() for part in prefix]
    return parts[len(prefix) :] if start == prefix else None


def _parts(path: str) -> list[str]:
    separators = r"[\\/]+" if _WINDOWS.match(path) else r"/+"
    return [part for part in re.split(separators, path) if part]
