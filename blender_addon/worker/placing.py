"""Puts fetched files where the artist wants them: each is written beside its place and swapped in."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Final

from ..errors import EffigyError
from ..output_files import give_mode, put_in_place, remove_temporary, sync, sync_folder, temporary_beside, tidy
from ..output_lock import hold
from ..renaming import rename
from .file_sender import leads_elsewhere

WAIT_SECONDS: Final = 4.0
"""How long another writer of the same file is waited for."""


def place_files(files: Mapping[Path, Path]) -> None:
    """Writes each file (place → where its content is), in this order; a file that is there is replaced."""
    for place, content in files.items():
        with _written(place) as temporary:
            shutil.copyfile(content, temporary)


def place_folder(folder: Path, files: Mapping[str, Path], *, of_capture: bool = True) -> None:
    """Writes a folder of these files (checked relative name → where its content is). A folder that is there is replaced
    as a whole, once everything is written. `of_capture`: it must then be a capture, or empty.
    """
    with _written(folder) as temporary:
        for name, content in files.items():
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(content, place)
        if of_capture:
            # The artist may have put something there since the work began.
            _check_replaced(folder)


@contextmanager
def _written(place: Path) -> Iterator[Path]:
    """Yields a temporary path beside `place`, which takes its place when the block ends well; the backend's
    `storage.write_beside` does the same. Nobody else writes `place` meanwhile, and a power cut leaves the old or the
    new.
    """
    temporary = temporary_beside(place)
    with _sentences(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with hold(place, "Blender: fetching results", WAIT_SECONDS) as ended:
            if ended:
                tidy(place, rename)
            try:
                yield temporary
                give_mode(temporary, place)
                sync(temporary)
                put_in_place(temporary, place, rename)
                sync_folder(place.parent)
            finally:
                remove_temporary(temporary)


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
    with _sentences(path), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)


def _check_replaced(folder: Path) -> None:
    if folder.is_dir() and not (folder / "capture.json").is_file() and any(folder.iterdir()):
        raise EffigyError(f"The folder {folder} holds other files: choose a new folder for the capture.")


@contextmanager
def _sentences(place: Path) -> Iterator[None]:
    """Errors of the operating system as an `EffigyError` about `place`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"The disk that holds {place} is full: free some space, or choose another folder, then start again."
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = (
                f"{place} cannot be written: the folder is read-only for you, or another program has the file open. "
                "Choose another folder, or close the program, then start again."
            )
        else:
            why = f"{place} cannot be written ({error.strerror or error}): choose another folder, then start again."
        raise EffigyError(why) from error
