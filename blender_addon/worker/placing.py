"""Puts fetched files where the artist wants them: each is written beside its place and swapped in."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from ..errors import EffigyError
from ..writing import sentences_about, written
from .file_sender import leads_elsewhere

WORK: Final = "Blender: fetching results"
WAIT_SECONDS: Final = 4.0
"""How long another writer of the same file is waited for."""


def place_files(files: Mapping[Path, Path]) -> None:
    """Writes each file (place → where its content is), in this order; a file that is there is replaced."""
    for place, content in files.items():
        with written(place, WORK, WAIT_SECONDS) as temporary:
            shutil.copyfile(content, temporary)


def place_folder(folder: Path, files: Mapping[str, Path], *, of_capture: bool = True) -> None:
    """Writes a folder of these files (checked relative name → where its content is). A folder that is there is replaced
    as a whole, once everything is written. `of_capture`: it must then be a capture, or empty.
    """
    with written(folder, WORK, WAIT_SECONDS) as temporary:
        for name, content in files.items():
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(content, place)
        if of_capture:
            # The artist may have put something there since the work began.
            _check_replaced(folder)


def check_no_links(folder: Path, names: Iterable[str]) -> None:
    """Refuses to write files (checked relative names) through a link in `folder`, which may be a stranger's."""
    for parent in {parent for name in names for parent in PurePosixPath(name).parents}:
        if parent.parts and leads_elsewhere(folder / parent):
            raise EffigyError(f"{folder / parent} is a link to another folder: remove it, then start again.")


def check_place(path: Path, *, replaces_folder: bool) -> None:
    """Refuses a place that cannot be written, before long work begins; leaves nothing behind.

    `replaces_folder`: the result is a folder that will replace the one at `path`, which must be empty or a capture.
    """
    if replaces_folder:
        _check_replaced(path)
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    with sentences_about(path), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)


def _check_replaced(folder: Path) -> None:
    if folder.is_dir() and not (folder / "capture.json").is_file() and any(folder.iterdir()):
        raise EffigyError(f"The folder {folder} holds other files: choose a new folder for the capture.")
