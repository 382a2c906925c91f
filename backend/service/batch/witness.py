"""The witness of a running batch: a file in the batch's folder, locked as long as the batch runs.

A machine of a cluster that does not see it does not share the folder, and a batch that finds the locked witness of
another one does not write into the same folder. The system releases the lock when the batch's process ends, however it
ends; the file that a killed batch has left is removed by the next one.
"""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from ...errors import EffigyError

_NAME: Final = re.compile(r"\.batch-[0-9a-f]{16}")
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})
"""Error numbers with which a file system says that it knows no locks."""


@contextmanager
def witness_in(out: Path, batch: str) -> Iterator[Path]:
    """Make the folder `out` and the witness of the batch with this name (16 hexadecimal digits), and remove the witness
    afterwards. Raises an `EffigyError` while another batch works in the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / f".batch-{batch}"
    file = _made(path)
    try:
        for other in out.iterdir():
            if _NAME.fullmatch(other.name) and other != path and other.is_file() and not other.is_symlink():
                _remove_if_left(other, out)
        yield path
    finally:
        file.close()
        path.unlink(missing_ok=True)


def _made(path: Path) -> IO[bytes]:
    """The new file, locked."""
    while True:
        file = open(path, "wb")  # noqa: SIM115  (it stays open as long as the batch runs)
        file.write(b"A machine that works on this batch sees this file.\n")
        file.flush()
        with suppress(OSError):
            _lock(file, wait=True)
        # Another batch that began before the file was locked may have taken it for one that was left.
        if path.exists():
            return file
        file.close()


def _remove_if_left(other: Path, out: Path) -> None:
    try:
        with _opened(other) as file:
            _lock(file, wait=False)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return
        raise EffigyError(
            f"Another batch is working in {out}: wait until it has ended, or choose another folder with --out."
        ) from error
    with suppress(OSError):
        other.unlink()


def _opened(path: Path) -> IO[bytes]:
    try:
        # A lock on a network drive may need a file that is open for writing.
        return open(path, "r+b")
    except PermissionError:
        # The file of another user.
        return open(path, "rb")


def _lock(file: IO[bytes], wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
