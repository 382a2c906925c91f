"""Registry of the user's head model files, by which an avatar finds its head model from the fingerprint.

The open head ships with Effigy. A FLAME file stays where the user put it; tracking with it records its path in the
user's data folder.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import EffigyError
from ..progress import SILENT, Progress
from ..reading import read_json, reading, shown
from ..storage import write_beside
from .formats import load_head
from .model import ADDED_MOUTH, HeadModel, file_fingerprint

_EXPRESSIONS: Final = ".expressions"
"""Ends the key of an entry that says how many components of a head model are expressions. Earlier versions look for
fingerprints alone."""


def user_folder() -> Path:
    """Effigy's data folder of this user; the environment variable EFFIGY_USER overrides it."""
    if override := os.environ.get("EFFIGY_USER"):
        return Path(override)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or home) / "Effigy"
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / "Effigy"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share") / "effigy"


def _known() -> dict[str, str]:
    path = user_folder() / "heads.json"
    with suppress(EffigyError), reading(path, "list of head models", "delete it"):
        content = read_json(path, "list of head models", "delete it")
        return {str(fingerprint): str(file) for fingerprint, file in content.items()}
    return {}


def known_files() -> list[Path]:
    """The files of the head models that the registry knows."""
    return [Path(path) for key, path in _known().items() if not key.endswith(_EXPRESSIONS)]


def load_users_head(
    path: Path | None, progress: Progress = SILENT, expression_count: int | None = None
) -> tuple[HeadModel, int | None]:
    """The user's head model, or the open head for None, and how many of its components the user has said to be
    expressions: now, or when the same file was opened before.
    """
    if path is not None and expression_count is None:
        known, here = _known(), str(Path(path).resolve())
        counts = [known.get(key + _EXPRESSIONS, "") for key, file in known.items() if file == here]
        expression_count = next((int(count) for count in reversed(counts) if count.isdecimal()), None)
    return load_head(path, progress, expression_count=expression_count), expression_count


def remember_head(model: HeadModel, path: Path, expression_count: int | None = None) -> None:
    """Record that the file `path` contains this head model, if `expression_count` of its components are taken for
    expressions.
    """
    # What is known is read while nobody else writes it, so that no entry is lost.
    with write_beside(user_folder() / "heads.json") as temporary:
        fingerprint = file_fingerprint(model.fingerprint)
        known = {key: file for key, file in _known().items() if key.removesuffix(_EXPRESSIONS) != fingerprint}
        known[fingerprint] = str(Path(path).resolve())
        if expression_count is not None:
            known[fingerprint + _EXPRESSIONS] = str(expression_count)
        temporary.write_text(json.dumps(known, indent=1), "utf-8")


def find_head(name: str, fingerprint: str, needed_by: str) -> HeadModel:
    """The head model with this fingerprint; raises an `EffigyError` that tells the user which file `needed_by`
    needs.

    What was made before FLAME files got a mouth inside finds its head without one.
    """
    bundled = load_head()
    if bundled.fingerprint == fingerprint:
        return bundled
    known, mouth, of_file = _known(), fingerprint.endswith(ADDED_MOUTH), file_fingerprint(fingerprint)
    known_path, count = known.get(of_file), known.get(of_file + _EXPRESSIONS, "")
    if known_path and Path(known_path).is_file():
        split = int(count) if count.isdecimal() else None
        model = load_head(Path(known_path), expression_count=split, is_known=not count, mouth=mouth)
        if model.fingerprint == fingerprint:
            return model
        # Earlier versions took every file's lengths for metres, and refused those that made no head.
        with suppress(EffigyError):
            model = load_head(Path(known_path), expression_count=split, is_known=not count, in_metres=True, mouth=mouth)
            if model.fingerprint == fingerprint:
                return model
    raise EffigyError(
        f"{needed_by} needs the head model “{shown(name)}” (fingerprint {shown(fingerprint)}), which is not here: "
        "track any capture with that file once (--head FILE), then run again."
    )
