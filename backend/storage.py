"""Atomic writing of files and folders, and the check of a file's format version."""

from __future__ import annotations

import errno
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import EffigyError


@contextmanager
def write_beside(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it onto `target` when the block ends well.

    Works for a file and for a folder (the caller makes either at the yielded path). On any exception the temporary is
    removed and an existing `target` is untouched. A full disk, a missing or an unwritable folder becomes an
    `EffigyError`.
    """
    target = Path(target)
    # The suffix is kept so that writers which choose a format by extension (OpenCV, PyAV) work on the temporary.
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if temporary.is_dir() and target.is_dir():
            retired = target.with_name(f".{target.name}.old{secrets.token_hex(4)}")
            target.replace(retired)
            temporary.replace(target)
            shutil.rmtree(retired, ignore_errors=True)
        else:
            temporary.replace(target)
    except OSError as error:
        raise as_effigy_error(error, target) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            # If a file exists where a folder is needed, even this fails, and would hide the error above.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


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
    return EffigyError(f"{target} cannot be written: {error.strerror or error}.")


def check_schema(found: int, readable: int, what: str) -> None:
    """Refuse a file whose format is newer than this program reads."""
    if found > readable:
        raise EffigyError(
            f"{what} was written by a newer Effigy (format {found}; this one reads up to {readable}): "
            "update Effigy to open it."
        )
