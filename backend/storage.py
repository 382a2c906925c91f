"""Atomic writing of files and folders, their hashes, and the check of a file's format version."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .errors import EffigyError
from .file_names import shortened
from .output_files import (
    give_mode,
    may_be_recovered,
    put_in_place,
    recover_folder,
    remove_temporary,
    sync,
    sync_folder,
    temporary_beside,
    tidy,
)
from .output_lock import Owner, hold

IN_USE: Final = frozenset({5, 32, 33, 1224})
"""Windows' error codes for a file that another program has open or mapped: ERROR_ACCESS_DENIED (which has other causes
too), ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION, ERROR_USER_MAPPED_FILE."""
_TOO_LONG: Final = frozenset({123, 206})
"""Windows' error codes for a name that is too long, or that has characters that it refuses."""
RETRY_SECONDS: Final = 4.0
"""How long a file in use is waited for: virus scanners and search indexers hold a new file for less than a second."""


@contextmanager
def write_beside(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it onto `target` when the block ends well.

    Works for a file and for a folder (the caller makes either at the yielded path). Meanwhile the lock of `target`
    (`output_lock`) is held; what a killed writer left beside it is removed. On any exception the temporary is removed
    and an existing `target` is untouched. A full disk, a missing or an unwritable folder, another writer, and on
    Windows a file that another program keeps open for more than `RETRY_SECONDS`, become an `EffigyError`.

    `durable`: after a power cut the old or the new is at `target`, whole. It costs some milliseconds, and is left out
    for what one command makes again from what is durable: pictures, exports, reports, evaluations, caches.
    """
    target = Path(target)
    if target.name in ("", ".."):
        # `.` is the folder in which the command was started.
        target = target.resolve()
        if not target.name:
            raise EffigyError(f"{target} is a whole disk, which cannot be written: name a file or a folder on it.")
    temporary = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held(target, wait=RETRY_SECONDS):
            try:
                yield temporary
                give_mode(temporary, target)
                if durable:
                    sync(temporary)
                put_in_place(temporary, target, rename)
                if durable:
                    sync_folder(target.parent)
            finally:
                remove_temporary(temporary)
    except OSError as error:
        raise as_effigy_error(error, target) from error


@contextmanager
def held(target: Path, work: str = "write", wait: float = 0.0) -> Iterator[Owner | None]:
    """Hold the lock of an output (`output_lock.hold`), and remove what a killed writer of it has left."""
    with hold(target, work, wait) as ended:
        if ended:
            tidy(target, rename)
        yield ended


def recover(folder: Path) -> None:
    """Bring back a folder that a writer, killed in the moment between two renamings, has moved aside. A reader that
    finds no folder calls it; while the writer is alive, it waits for it.
    """
    if may_be_recovered(folder):
        # Where nothing may be written here, the reader says that there is no folder.
        with suppress(OSError, EffigyError), held(folder, wait=RETRY_SECONDS):
            recover_folder(folder, rename)


def rename(source: Path, target: Path) -> None:
    """Rename `source`, replacing a file at `target`. Windows refuses that while another program has either of them
    open: then it is tried again for `RETRY_SECONDS`, until an `EffigyError` is raised.
    """
    _when_free(lambda: source.replace(target), target if target.exists() else source)


def remove_file(path: Path) -> None:
    """Delete a file, if it exists. As with `rename`, a file that is open on Windows is waited for."""
    _when_free(lambda: path.unlink(missing_ok=True), path)


def _when_free(action: Callable[[], object], path: Path) -> None:
    until, pause = time.monotonic() + RETRY_SECONDS, 0.01
    while True:
        try:
            action()
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            if _is_marked_read_only(path):
                raise EffigyError(
                    f"{path} is marked as read-only: clear that mark in its properties, or choose another name."
                ) from error
            if time.monotonic() > until:
                raise EffigyError(
                    f"{path} cannot be replaced because another program has it open: close that program (a viewer, a "
                    "cloud drive, a virus scanner), then run again."
                ) from error
        time.sleep(pause)
        pause = min(2 * pause, 0.25)


def _is_marked_read_only(path: Path) -> bool:
    """Whether a file has Windows' attribute read-only, with which it can be neither replaced nor deleted."""
    try:
        attributes = getattr(path.stat(), "st_file_attributes", 0)
    except OSError:
        return False
    return path.is_file() and bool(attributes & stat.FILE_ATTRIBUTE_READONLY)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal digits. Raises an `OSError`."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_same_path(one: Path, other: Path) -> bool:
    """Whether two paths name the same file or folder, which need not exist. Windows and macOS do not distinguish upper
    and lower case.
    """

    def key(path: Path) -> str:
        full = os.path.realpath(path)
        return full.casefold() if sys.platform in ("win32", "darwin") else full

    return key(one) == key(other)


def as_effigy_error(error: OSError, target: Path) -> EffigyError:
    """The `EffigyError` for an operating-system error that occurred while writing `target`."""
    number = error.errno
    if number is None and (match := re.search(r"os error (\d+)", str(error))):
        # Libraries written in Rust (safetensors) give the error's number only in their message.
        number = int(match[1])
    if number in (errno.ENOSPC, errno.EDQUOT):
        return EffigyError(
            f"The disk that holds {target} is full: free some space or choose another folder, then run again."
        )
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EffigyError(
            f"{target} cannot be written: the folder is read-only for you. Choose a folder that you may write to."
        )
    if number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return EffigyError(
            f"{target} cannot be written: a file stands where a folder is needed, or the other way round."
        )
    if number == errno.ENAMETOOLONG or getattr(error, "winerror", None) in _TOO_LONG:
        return EffigyError(
            f"{target} cannot be written: the name “{shortened(target.name, 60)}…” is longer than the disk allows. "
            "Choose a shorter one, or a folder with a shorter path."
        )
    return EffigyError(f"{target} cannot be written: {error.strerror or error}.")


def check_schema(found: int, readable: int, what: str) -> None:
    """Refuse a file whose format is newer than this program reads."""
    if found > readable:
        raise EffigyError(
            f"{what} was written by a newer Effigy (format {found}; this one reads up to {readable}): "
            "update Effigy to open it."
        )
