"""Where the private environment lies and whether it is whole: a stamp is written into it when everything else is."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

SCHEMA: Final = 1
STAMP: Final = "effigy-backend.json"
LISTS: Final = ("backend.lock", "torch.txt")
"""What it is made from; another version of these means another environment."""


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def read_stamp(folder: Path) -> dict[str, Any] | None:
    """What the finished environment says of itself, or None where none was finished."""
    try:
        stamp = json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return stamp if isinstance(stamp, dict) and stamp.get("schema") == SCHEMA else None


def write_stamp(folder: Path, requirements: Path, torch: str) -> None:
    text = json.dumps({"schema": SCHEMA, "requirements": hash_of(requirements), "torch": torch})
    (folder / STAMP).write_text(text, "utf-8")


def private_python(folder: Path) -> Path | None:
    """The interpreter of a finished environment; None where there is none, or where Blender's Python under it is
    gone."""
    python = python_of(folder)
    # `exists` follows the link to the Python that the environment was made from.
    return python if read_stamp(folder) and python.exists() else None


def is_outdated(folder: Path, requirements: Path) -> bool:
    """Whether a finished environment is of other lists than this version of the extension wants."""
    stamp = read_stamp(folder)
    return stamp is not None and stamp.get("requirements") != hash_of(requirements)


def hash_of(requirements: Path) -> str:
    digest = hashlib.sha256()
    for name in LISTS:
        digest.update((requirements / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()
