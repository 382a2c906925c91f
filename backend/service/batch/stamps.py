"""Stamps: what a finished stage leaves beside its files, by which a later run of the batch recognises it.

A stamp holds the hash of everything that decided the stage's result, and the count and size of the files that it made.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import EffigyError
from ...reading import Damaged, read_json, reading
from ...storage import check_schema, hash_file, write_beside

SCHEMA: Final = 1


@dataclass(frozen=True)
class Stamp:
    key: str
    """Hash of the stage's inputs and settings."""
    run: str
    """A random name of the run that made the files. The key of the following stage contains it, so that everything
    after a stage that was done again is done again too."""
    seconds: float
    """How long the stage took, stopped attempts included."""
    figures: dict[str, Any]
    """What the batch's table shows of the stage."""
    outputs: dict[str, list[int]]
    """Name -> count and total bytes of the files there."""


def new_stamp(key: str, seconds: float, figures: dict[str, Any], outputs: tuple[Path, ...]) -> Stamp:
    return Stamp(key, secrets.token_hex(8), seconds, figures, _measure_all(outputs))


def save_stamp(path: Path, stamp: Stamp) -> None:
    with write_beside(path) as temporary:
        temporary.write_text(json.dumps({"schema": SCHEMA, **asdict(stamp)}, indent=1) + "\n", "utf-8")


def find_stamp(path: Path, key: str, outputs: tuple[Path, ...]) -> Stamp | None:
    """The stamp of a finished stage whose inputs and settings have this key and whose files are all there.

    None where there is no such stamp or it cannot be read: the stage is then done again. Raises an `EffigyError` where
    a newer Effigy wrote it.
    """
    try:
        with reading(path, "stamp", "delete it"):
            content = read_json(path, "stamp", "delete it")
            schema = int(content.pop("schema"))
            stamp = Stamp(**content) if schema <= SCHEMA else None
            if stamp and not (isinstance(stamp.figures, dict) and math.isfinite(stamp.seconds)):
                raise Damaged("its figures cannot be read")
    except EffigyError:
        return None
    check_schema(schema, SCHEMA, f"The stamp {path}")
    if stamp is None or stamp.key != key or stamp.outputs != _measure_all(outputs):
        return None
    return stamp


def key_of(stage: str, settings: dict[str, Any], inputs: dict[str, str | None]) -> str:
    """The hash of what decides a stage's result. `inputs`: name of an input -> its hash, or the run that made it."""
    text = json.dumps([SCHEMA, stage, settings, inputs], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_input(path: Path | None) -> str | None:
    """SHA-256 of an input's contents; None for no file."""
    return None if path is None else hash_file(path)


def _measure_all(outputs: tuple[Path, ...]) -> dict[str, list[int]]:
    return {path.name: _measure(path) for path in outputs}


def _measure(path: Path) -> list[int]:
    """Count and total bytes of the files at `path`, a file or a flat folder; zeros where there is nothing."""
    try:
        if not path.is_dir():
            return [1, path.stat().st_size]
        with os.scandir(path) as entries:
            sizes = [entry.stat().st_size for entry in entries]
    except OSError:
        return [0, 0]
    return [len(sizes), sum(sizes)]
