"""Where the backend's private environment lies, and whether it is complete and up to date.

The installation writes a stamp file into the environment as its last step. An environment without a stamp was
interrupted and is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SCHEMA: Final = 1
STAMP: Final = "effigy-backend.json"
REQUIREMENT_FILES: Final = ("backend.lock", "torch.txt")
"""The package lists that the environment is made from. When they change, the environment is outdated."""


@dataclass(frozen=True)
class Stamp:
    """Written into a complete environment."""

    requirements: str
    """`hash_of` the package lists that it was made from."""
    torch: str
    """PyTorch build: `cpu`, or the name of a CUDA build."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Stamp:
        return cls(str(data.get("requirements", "")), str(data.get("torch", "")))


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, whether it exists or not."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp of the environment in `folder`, or None if no environment was completed there."""
    try:
        data = json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return Stamp.from_json(data) if isinstance(data, dict) and data.get("schema") == SCHEMA else None


def write_stamp(folder: Path, requirements: Path, torch: str) -> None:
    """Marks the environment in `folder` as complete."""
    text = json.dumps({"schema": SCHEMA, "requirements": hash_of(requirements), "torch": torch})
    (folder / STAMP).write_text(text, "utf-8")


def private_python(folder: Path) -> Path | None:
    """The interpreter of a complete environment. None if there is no such environment, or if the Python of Blender that
    it was made from is gone.
    """
    python = python_of(folder)
    # `exists` follows the symbolic link to the Python that the environment was made from.
    return python if read_stamp(folder) and python.exists() else None


def is_outdated(folder: Path, requirements: Path) -> bool:
    """Whether a complete environment was made from other package lists than those in `requirements`."""
    stamp = read_stamp(folder)
    return stamp is not None and stamp.requirements != hash_of(requirements)


def hash_of(requirements: Path) -> str:
    """SHA-256 over the package lists in the folder `requirements`, independent of their line ends."""
    digest = hashlib.sha256()
    for name in REQUIREMENT_FILES:
        digest.update((requirements / name).read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()
