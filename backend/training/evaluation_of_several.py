"""Evaluation on several captures: a folder for each, and one file with the figures of all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import EffigyError
from ..formats.capture import Capture
from ..storage import write_beside
from .report import SCHEMA, Metrics


def folders_for(captures: Sequence[Capture], out: Path) -> list[Path]:
    """Where each capture is evaluated to: `out` itself for one, folders in it with the captures' names for several.

    Raises an `EffigyError` where two captures have the same name, for which a disk may take `Ann` and `ann`.
    """
    if len(captures) == 1:
        return [out]
    names = [capture.folder.stem for capture in captures]
    lower = [name.casefold() for name in names]
    twice = next((name for name in names if lower.count(name.casefold()) > 1), None)
    if twice is not None:
        raise EffigyError(f"Two captures are named “{twice}”, as their results would be: evaluate them one by one.")
    return [out / name for name in names]


def write_summary(measured: Mapping[str, Metrics], out: Path) -> Path:
    """Write the figures of several captures, by their names, to metrics.json in `out`, and return its path."""
    path = out / "metrics.json"
    captures: dict[str, dict[str, Any]] = {name: metrics.to_json() for name, metrics in measured.items()}
    for figures in captures.values():
        # It is in the capture's own file.
        del figures["per_frame"]
    with write_beside(path, durable=False) as file:
        text = json.dumps({"schema": SCHEMA, "captures": captures}, indent=1, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")
    return path
