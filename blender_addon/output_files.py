"""How an output takes its place: under which name it is made, with which mode, and how a power cut leaves the old or
the new.

The extension has this same file, because it does not import the backend; a test compares the two.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from .file_names import MOST_BYTES, beside, split, with_end

_HIDDEN: Final = "effigy-"
"""In the names of temporaries, so that no file of the user has such a name."""
_ANY: Final = "\0" * 8
"""Stands for the digits in a name of a temporary where any digits count; no name holds it."""
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
"""Flag of Linux' renameat2(2)."""
_RENAME_SWAP: Final = 2
"""Flag of macOS' renamex_np(2)."""
_SYNC_THREADS: Final = 16
"""A capture of 300 frames (600 files, 32 MB) on ext4: 1.8 to 2.1 s if its files are synchronised one after the other,
0.12 s with 4 threads and 0.06 s with 16, because the file system commits what arrives together at once."""
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""Error numbers with which a file system says that it cannot synchronise this file or folder."""

Rename = Callable[[Path, Path], None]


def temporary_beside(target: Path) -> Path:
    """A hidden name beside `target` under which it can be made. The suffix is kept, so that writers which choose a
    format by extension work on the temporary.
    """
    return target.with_name(_temporary_name(target, secrets.token_hex(4)))


def temporaries_of(target: Path) -> list[Path]:
    """What is being made for `target`, or was left by a killed writer."""
    return list(_beside(target, _temporary_names(target)))


def put_in_place(temporary: Path, target: Path, rename: Rename) -> None:
    """Give the finished `temporary` the name `target`. A folder that has this name is replaced as a whole; afterwards
    the old one is at `temporary`, or gone.

    Where the system can exchange two folders (Linux, macOS), there is one at `target` at every moment. Elsewhere there
    is none for a moment; if the process is killed in it, `tidy` brings the old one back.
    """
    if not (temporary.is_dir() and target.is_dir()):
        rename(temporary, target)
    elif not _exchange(temporary, target):
        retired = _retired(target)
        rename(target, retired)
        try:
            rename(temporary, target)
        except BaseException:
            rename(retired, target)
            raise
        # A link to a folder is replaced as well; the folder that it leads to is not touched.
        remove_temporary(retired)


def tidy(target: Path, rename: Rename) -> None:
    """Remove what a killed writer of `target` left beside it, and bring back a folder that it was just replacing.

    Call it only while holding the lock of `target` (`output_lock`), after its former owner is known to be dead. Only
    names that this module makes for this very target count, and no links.
    """
    recover_folder(target, rename)
    for path in _beside(target, _retired_names(target)):
        # The newer folder took its place: the process was killed while it removed the older one.
        if target.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    for path in _beside(target, _temporary_names(target)):
        remove_temporary(path)


def recover_folder(target: Path, rename: Rename) -> None:
    """Bring back the folder `target` if a writer was killed between moving it aside and putting another in its place.

    The caller holds the lock of `target`.
    """
    if not os.path.lexists(target):
        found = [path for path in _beside(target, _retired_names(target)) if path.is_dir()]
        if found:
            rename(max(found, key=lambda path: path.stat().st_mtime), target)


def may_be_recovered(target: Path) -> bool:
    """Whether there is no folder `target`, but one that was moved aside to be replaced."""
    return not os.path.lexists(target) and any(path.is_dir() for path in _beside(target, _retired_names(target)))


def remove_temporary(temporary: Path) -> None:
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        # If a file exists where a folder is needed, even this fails, and would hide an earlier error.
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def give_mode(temporary: Path, target: Path) -> None:
    """Give a finished file or folder the permissions of the one that it will replace, or those of any new one.

    Libraries may make their files for the owner alone (safetensors does). What is replaced keeps its permissions,
    because somebody may have chosen them: a face is nobody's business by default, and a studio's group may write.
    """
    if os.name == "nt":
        return
    try:
        before = target.lstat()
    except OSError:
        before = None
    now = temporary.lstat()
    if before and stat.S_IFMT(before.st_mode) == stat.S_IFMT(now.st_mode) and not stat.S_ISLNK(before.st_mode):
        own = stat.S_IRUSR | stat.S_IWUSR | (stat.S_IXUSR if stat.S_ISDIR(before.st_mode) else 0)
        mode = (before.st_mode & (0o2777 if stat.S_ISDIR(before.st_mode) else 0o777)) | own
    elif stat.S_ISREG(now.st_mode) and not now.st_mode & 0o077:
        mode = _mode_of_new_file(temporary)
    else:
        return
    if mode != now.st_mode & 0o7777:
        # Some network drives and memory cards know no permissions.
        with suppress(OSError):
            temporary.chmod(mode)


def sync(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk, so that it survives a power cut. Raises an
    `OSError`, in particular for a disk that turns out to be full only now.
    """
    if not path.is_dir():
        _fsync(path)
    else:
        folders, files = [], []
        for folder, _, names in os.walk(path):
            folders.append(Path(folder))
            files += [Path(folder, name) for name in names]
        with ThreadPoolExecutor(_SYNC_THREADS) as pool:
            for _ in pool.map(_fsync, files):
                pass
        for folder in reversed(folders):
            sync_folder(folder)
    _flush_drive(path)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Windows does that by itself. A folder that may be written and
    not read, such as a drop box, cannot be opened: there, the system decides when.
    """
    if os.name != "nt":
        with suppress(PermissionError):
            _fsync(folder)


def _fsync(path: Path) -> None:
    # Windows synchronises only a file that is open for writing.
    file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(file)


def _flush_drive(path: Path) -> None:
    """On macOS, fsync leaves data in the drive's own memory; one request writes out all of that."""
    if sys.platform == "darwin":
        import fcntl

        file = os.open(path, os.O_RDONLY)
        try:
            # Network drives do not know the request.
            with suppress(OSError):
                fcntl.fcntl(file, fcntl.F_FULLFSYNC)
        finally:
            os.close(file)


def _mode_of_new_file(temporary: Path) -> int:
    """The permissions that a new file has there: by the user's umask, and by the folder's own rules where it has some.

    They are seen on a new file, because reading the umask changes it for a moment, in all threads.
    """
    probe = temporary.with_name(f"{temporary.name}~")
    file = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        return os.fstat(file).st_mode & 0o777
    finally:
        os.close(file)
        probe.unlink()


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False if the system or the file system cannot."""
    one_name, other_name = os.fsencode(one), os.fsencode(other)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "linux":
            return library.renameat2(_AT_FDCWD, one_name, _AT_FDCWD, other_name, _RENAME_EXCHANGE) == 0
        if sys.platform == "darwin":
            return library.renamex_np(one_name, other_name, _RENAME_SWAP) == 0
    except (OSError, AttributeError, TypeError):
        # A C library without this function; Windows has no C library of this name.
        pass
    return False


def _retired(target: Path) -> Path:
    return beside(target, f".{_HIDDEN}old-{secrets.token_hex(4)}", ".")


def _retired_names(target: Path) -> re.Pattern[str]:
    return _any_of(beside(target, f".{_HIDDEN}old-{_ANY}", ".").name)


def _temporary_names(target: Path) -> re.Pattern[str]:
    return _any_of(_temporary_name(target, _ANY), "~?")


def _temporary_name(target: Path, token: str) -> str:
    stem, suffix = split(target.name)
    # One byte is left for the `~` of `_mode_of_new_file`.
    return with_end(stem, f".{_HIDDEN}{token}{suffix}", ".", MOST_BYTES - 1)


def _any_of(name: str, end: str = "") -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(_ANY, "[0-9a-f]{8}") + end)


def _beside(target: Path, names: re.Pattern[str]) -> Iterator[Path]:
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in list(entries):
            if names.fullmatch(entry.name) and not entry.is_symlink():
                yield target.parent / entry.name
