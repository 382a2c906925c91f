"""The sizes of the package lists and the lengths of their paths, measured on the package index beforehand.

`python3 build.py wheels` writes them into requirements/wheels.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILE: Final = "wheels.json"


@dataclass(frozen=True)
class Figures:
    """One package list on one platform."""

    packages: int
    download: int
    """Bytes of the wheels."""
    unpacked: int
    """Bytes of the installed files, bytecode included."""
    longest: int
    """Characters of the longest path below `site-packages`, bytecode and its temporary names included."""


def load_figures(requirements: Path, platform: str, python: tuple[int, int]) -> Mapping[str, Figures]:
    """List -> figures, for one platform tag and Python version, from the folder of the package lists."""
    table = json.loads((requirements / FILE).read_text("utf-8"))
    rows = table["platforms"][f"{platform}, Python {python[0]}.{python[1]}"]
    fields = Figures.__dataclass_fields__
    return {name: Figures(**{field: row[field] for field in fields}) for name, row in rows.items()}
