"""Holds the environment that Install Backend made while this process runs in it.

The extension removes an environment that it has replaced, unless a process holds a shared lock on its stamp file; the
other side is `blender_addon/installation/place.py`. On Windows a file that is open cannot be removed, so no lock is
needed there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

STAMP: Final = "effigy-backend.json"

_held: IO[bytes] | None = None
"""The locked file. The system releases the lock when the process ends."""


def hold_environment(folder: Path | None = None) -> None:
    """Lock the stamp of the environment in `folder`, by default the one that this interpreter belongs to. Without a
    stamp, as in a checkout, nothing happens.
    """
    global _held
    if os.name == "nt":
        return
    import fcntl

    with suppress(OSError):
        file = open((folder or Path(sys.prefix)) / STAMP, "rb")  # noqa: SIM115  (it stays open until the process ends)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _held = file
