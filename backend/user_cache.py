"""The folder in which the system wants files of this user that can be made or fetched again."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    r"""Effigy's folder in the user's cache, which is not created here.

    Windows: %LOCALAPPDATA%\Effigy; macOS: ~/Library/Caches/Effigy; elsewhere: $XDG_CACHE_HOME/effigy, by default
    ~/.cache/effigy.
    """
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "Effigy"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "Effigy"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "effigy"
