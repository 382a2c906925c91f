"""Renaming of files and folders that may be in use for a moment, and new files that replace none."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from .errors import EffigyError
from .file_names import numbered
from .output_files import temporary_beside

IN_USE: Final = frozenset({5, 32, 33, 1224})
"""Windows' error codes for a file that another program has open or mapped: ERROR_ACCESS_DENIED (which has other causes
too), ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE."""
RETRY_SECONDS: Final = 2.0
"""How long a file in use is waited for: virus scanners and search indexers hold a new file for less than a second."""


def rename(source: Path, target: Path) -> None:
    """Rename `source`, replacing a file at `target`. Windows refuses that while another program has either of them
    open: then it is tried again for `RETRY_SECONDS`, until an `EffigyError` is raised. Any other failure is an
    `OSError`.
    """
    until, pause = time.monotonic() + RETRY_SECONDS, 0.01
    while True:
        try:
            source.replace(target)
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            if time.monotonic() > until:
                raise EffigyError(
                    f"{target} cannot be replaced because another program has it open, or because it is marked as "
                    "read-only: close that program (a viewer, a cloud drive, a virus scanner), then try again."
                ) from error
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def unused(path: Path, taken: Collection[Path] = ()) -> Path:
    """`path`, with a number added if something is there, a broken link among others, or if it is one of `taken`."""
    number, chosen = 1, path
    while os.path.lexists(chosen) or chosen in taken:
        number += 1
        chosen = numbered(path, f"-{number}")
    return chosen


def write_new(path: Path, data: bytes) -> Path:
    """Writes a file at `path`, or where that name is taken at one with a number, and returns where. The file is
    complete when it appears, and replaces none, also if another program takes the name meanwhile. Raises an `OSError`.
    """
    temporary = temporary_beside(path)
    try:
        # `x`: a link that someone has put there is not followed.
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        while True:
            chosen = unused(path)
            with suppress(FileExistsError):
                _rename_to_new(temporary, chosen)
                return chosen
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _rename_to_new(source: Path, target: Path) -> None:
    """Renames a file. Raises a `FileExistsError` if there is a `target` already."""
    if os.name == "nt":
        source.rename(target)
        return
    try:
        # Unlike a rename, which replaces a file there.
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems, such as exFAT, have no hard links.
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        source.rename(target)
