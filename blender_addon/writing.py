"""Writes files where the artist wants them: each is written beside its place and swapped in."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .errors import EffigyError
from .output_files import give_mode, put_in_place, remove_temporary, sync, sync_folder, temporary_beside, tidy
from .output_lock import hold
from .renaming import rename

WAIT_SECONDS: Final = 4.0
"""How long another writer of the same file is waited for."""


def write_file(place: Path, data: bytes, work: str) -> None:
    """Writes a file, and replaces one that is there. `work`: what is done, for another program that wants to write
    there. Raises an `EffigyError`.
    """
    with written(place, work) as temporary:
        temporary.write_bytes(data)


@contextmanager
def written(place: Path, work: str, wait: float = WAIT_SECONDS) -> Iterator[Path]:
    """Yields a temporary path beside `place`, which takes its place when the block ends well; the backend's
    `storage.write_beside` does the same. Nobody else writes `place` meanwhile, and a power cut leaves the old or the
    new.
    """
    temporary = temporary_beside(place)
    with sentences_about(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        with hold(place, work, wait) as ended:
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


@contextmanager
def sentences_about(place: Path) -> Iterator[None]:
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
        elif error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            why = f"{place} cannot be written: a file stands where a folder is needed, or the other way round."
        else:
            why = f"{place} cannot be written ({error.strerror or error}): choose another folder, then start again."
        raise EffigyError(why) from error
