"""Puts fetched files where the artist wants them: each is written beside its place and swapped in."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import EffigyError
from ..renaming import rename


def place_files(files: Mapping[Path, Path]) -> None:
    """Writes each file (place → where its content is), in this order; a file that is there is replaced."""
    for place, content in files.items():
        with _sentences(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary = _beside(place)
            try:
                shutil.copyfile(content, temporary)
                rename(temporary, place)
            finally:
                with suppress(OSError):
                    temporary.unlink()


def place_folder(folder: Path, files: Mapping[str, Path]) -> None:
    """Writes a folder of these files (checked relative name → where its content is). A folder that is there is replaced
    as a whole, once everything is written.
    """
    temporary = _beside(folder)
    with _sentences(folder):
        try:
            for name, content in files.items():
                place = temporary / name
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(content, place)
            if folder.is_dir():
                retired = _beside(folder)
                rename(folder, retired)
                try:
                    rename(temporary, folder)
                except (OSError, EffigyError):
                    rename(retired, folder)
                    raise
                shutil.rmtree(retired, ignore_errors=True)
            else:
                rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_place(path: Path, *, replaces_folder: bool) -> None:
    """Refuses a place that cannot be written, before long work begins; leaves nothing behind.

    `replaces_folder`: the result is a folder that will replace the one at `path`, which must be empty or a capture.
    """
    if replaces_folder and path.is_dir() and not (path / "capture.json").is_file() and any(path.iterdir()):
        raise EffigyError(f"The folder {path} holds other files: choose a new folder for the capture.")
    folder = path.parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    with _sentences(path), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * 4096)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")


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
