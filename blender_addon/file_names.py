"""Names of files that are made from the names of datablocks, which may hold any character, and names to be shown."""

from __future__ import annotations

import re
from typing import Final

MAX_CHARACTERS: Final = 100
"""Together with a suffix and a number, a name then stays below the 255 bytes of most file systems in every script."""
_REFUSED: Final = re.compile(r'[\x00-\x1f\x7f\ud800-\udfff\\/:*?"<>|]')
"""Characters that Windows refuses in names, and halves of characters, which cannot be written as UTF-8."""
DEVICES: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])( *\..*)?", re.IGNORECASE)
"""Names that Windows keeps for devices, with any suffix (Microsoft, "Naming Files, Paths, and Namespaces")."""


def readable(name: str) -> str:
    """A file's name or path as text that Blender's interface and a terminal take, also if its bytes are no text."""
    return name.encode("utf-8", "replace").decode("utf-8")


def safe_file_name(name: str, suffix: str = "", otherwise: str = "avatar") -> str:
    """A file name like `name` that Windows, macOS and Linux all accept, and that names no folder.

    `suffix` is added unless `name` ends with it. A name of which nothing remains becomes `otherwise`.
    """
    stem = name[: -len(suffix)] if suffix and name.lower().endswith(suffix.lower()) else name
    stem = _REFUSED.sub("_", stem).strip(" .")
    while len(stem.encode()) > 2 * MAX_CHARACTERS or len(stem) > MAX_CHARACTERS:
        stem = stem[:-1].rstrip(" .")
    stem = stem or otherwise
    return f"{'_' if DEVICES.fullmatch(stem) else ''}{stem}{suffix}"
