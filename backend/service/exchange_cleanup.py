"""Keeps the folder of exchanged files (`exchange_store`) below its limit.

Only entries with the names that `exchange_store` gives are removed, only directly below its four folders, and never
through a link.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from .exchange_store import FILES, FOLDERS, NOTES, RESULTS, regular_files

DEFAULT_LIMIT: Final = 50 * 10**9
"""Bytes that the folder may take."""
LIMIT_VARIABLE: Final = "EFFIGY_EXCHANGE_GB"
KEEP_SECONDS: Final = 3 * 24 * 3600.0
"""An entry that was used in this time is not removed, because a job of another worker may be reading it."""
_REMOVABLE: Final = {
    FILES: re.compile(r"[0-9a-f]{64}(\.part)?"),
    FOLDERS: re.compile(r"[0-9a-f]{64}"),
    RESULTS: re.compile(r"[0-9a-f]{32}"),
    NOTES: re.compile(r"[0-9a-f]{64}\.json"),
}

Inode = tuple[int, int]
"""(device, number) of a file, which several names may share."""


def size_limit() -> int:
    """Bytes that the folder may take: EFFIGY_EXCHANGE_GB in the environment, otherwise DEFAULT_LIMIT."""
    try:
        return int(float(os.environ[LIMIT_VARIABLE]) * 10**9)
    except (KeyError, ValueError, OverflowError):
        return DEFAULT_LIMIT


def make_room(folder: Path, limit: int, used: Collection[Path], in_use: Collection[Path] = ()) -> None:
    """Remove the entries of `folder` that were not used for the longest time, until it takes `limit` bytes at most.

    `used`: entries that stay. `in_use`: files below entries that stay.
    """
    entries = sorted(_entries(folder), key=_used_at)
    sizes = {entry: _sizes(entry) for entry in entries}
    names = Counter(inode for files in sizes.values() for inode in files)
    total = sum({inode: size for files in sizes.values() for inode, size in files.items()}.values())
    now = time.time()
    for entry in entries:
        if total <= limit:
            return
        stays = entry in used or any(path.is_relative_to(entry) for path in in_use)
        if stays or now - _used_at(entry) < KEEP_SECONDS:
            continue
        for inode, size in sizes[entry].items():
            names[inode] -= 1
            total -= 0 if names[inode] else size
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink()


def _entries(folder: Path) -> Iterator[Path]:
    for kind, pattern in _REMOVABLE.items():
        place = folder / kind
        if place.is_dir() and not place.is_symlink():
            for entry in place.iterdir():
                if pattern.fullmatch(entry.name) and not entry.is_symlink():
                    yield entry


def _used_at(entry: Path) -> float:
    """Seconds since 1970; 0 where the entry is gone."""
    try:
        return entry.stat().st_mtime
    except OSError:
        return 0.0


def _sizes(entry: Path) -> dict[Inode, int]:
    """The bytes of the files of an entry."""
    found = {}
    for path in regular_files(entry):
        with suppress(OSError):
            status = path.stat()
            found[status.st_dev, status.st_ino] = status.st_size
    return found
