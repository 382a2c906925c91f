"""Renaming of files and folders that may be in use for a moment."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from .errors import EffigyError

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
