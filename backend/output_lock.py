"""Locks that keep two writers from one output: a file `.NAME.lock` beside it, which says who is writing.

The operating system's lock on that file decides, so a writer that was killed holds nothing. The text in the file names
its owner: what it does, its process, when that process began, its host, and since when it writes. Where a file system
knows no locks, or where the text names another host, whose locks may not be seen here, a heartbeat decides: the owner
renews the file's time every `HEARTBEAT_SECONDS`, and an owner whose file does not change for `WATCH_SECONDS` is dead.
Only changes are looked at, never the clocks of two machines.

The extension has this same file, because it does not import the backend; a test compares the two. A library such as
filelock would give the operating system's lock alone, and Blender's Python does not bring it along.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import stat
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

from .errors import EffigyError
from .file_names import MOST_BYTES, with_end

HEARTBEAT_SECONDS: Final = 4.0
WATCH_SECONDS: Final = 14.0
"""More than three heartbeats: network drives may show a change some seconds late."""
_SECONDS_BETWEEN_TRIES: Final = 0.05
_ASIDE: Final = 9
"""Characters that the name of an abandoned lock gets while it is removed."""
_TRIES: Final = 100
"""Times that a lock's file is expected to be gone after it was locked; then the drive does not number its files."""
_LONGEST_TEXT: Final = 2000
"""Bytes of a lock's file that are read."""
_LOCKED_BYTE: Final = 1 << 30
"""Windows forbids reading locked bytes, so one is locked that lies behind the text."""
_HELD_BY_OTHER: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EBADF})
"""Error numbers with which a file system says that it knows no locks. EBADF: it locks only files that are open for
writing (NFS), and this one belongs to another user."""


class OutputInUseError(EffigyError):
    """Another process is writing the same output. `owner` says who, in words; it is empty if that is not known."""

    def __init__(self, sentence: str, owner: str = "") -> None:
        super().__init__(sentence)
        self.owner = owner


@dataclass(frozen=True)
class Owner:
    """Who has a lock."""

    work: str
    """The command, or what else is done: `train`."""
    process: int
    began: str
    """When the process began, in the system's own form; empty where the system does not tell. With it, a later process
    of the same number is told apart."""
    host: str
    since: str
    """ISO 8601, UTC."""

    def in_words(self) -> str:
        try:
            since = f"{datetime.fromisoformat(self.since).astimezone():%Y-%m-%d %H:%M}"
        except (ValueError, OverflowError, OSError):
            since = self.since
        return f"“{self.work}”, process {self.process} on {self.host}, since {since}"


@dataclass
class _Held:
    file: int
    count: int = 1


_held: dict[Path, _Held] = {}
"""The locks of this process by their files."""
_guard = threading.Lock()
_heart: list[threading.Thread] = []
"""The running thread of `_beat`, if there is one."""


@contextmanager
def hold(target: Path, work: str = "write", wait: float = 0.0, lock_file: Path | None = None) -> Iterator[Owner | None]:
    """Keep other processes from writing `target`, which need not exist. A process may hold one lock several times.

    Yields the owner of a lock that was left behind, if its process has ended without releasing it: what it left
    half-made can be removed. Otherwise yields None. `wait`: seconds to wait for another owner. `lock_file`: the lock's
    file, if it is not `.NAME.lock`. Raises an `OutputInUseError`, and an `OSError` about `target` if no lock can be
    made.
    """
    path = lock_file or lock_of(target)
    made = [] if path.parent.exists() else [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        # Folders of the kernel such as /proc answer that there is no file.
        number = errno.EACCES if error.errno == errno.ENOENT else error.errno
        raise OSError(number, error.strerror, str(target)) from error
    until = time.monotonic() + wait
    left = None
    try:
        while not _is_held_again(path):
            try:
                left = _acquire(path, work)
                break
            except OutputInUseError as error:
                if time.monotonic() < until:
                    time.sleep(_SECONDS_BETWEEN_TRIES)
                    continue
                raise OutputInUseError(_sentence(target, error.owner), error.owner) from None
            except OSError as error:
                raise OSError(error.errno, error.strerror or str(error), str(target)) from error
        try:
            yield left
        finally:
            _release(path)
    finally:
        # Of a command that failed, nothing is left.
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def lock_of(target: Path) -> Path:
    """The lock's file. It lies beside the output's real place, however the folder is reached; a link at `target` itself
    is not followed, because it may be a stranger's.
    """
    target = target.absolute()
    return Path(os.path.realpath(target.parent)) / with_end(target.name, ".lock", ".", MOST_BYTES - _ASIDE)


def _in_use(owner: Owner | None) -> OutputInUseError:
    return OutputInUseError("in use", owner.in_words() if owner else "")


def _sentence(target: Path, owner: str) -> str:
    by = f" ({owner})" if owner else ""
    return (
        f"{target} is being written by another program of Effigy{by}: wait until it has ended, or stop it, then start "
        "again; or choose another place."
    )


def _is_held_again(path: Path) -> bool:
    with _guard:
        if held := _held.get(path):
            held.count += 1
        return held is not None


def _acquire(path: Path, work: str) -> Owner | None:
    """Take the lock; returns the dead owner that had it before. Raises an `OutputInUseError` with the owner's name."""
    left = None
    for tries in count():
        file, is_new, is_writable = _open(path)
        is_ours = False
        try:
            locks_work = _lock(file)
            if tries < _TRIES and not _is_at(file, path):
                # Its owner removed it in the moment between opening and locking.
                continue
            owner = _read(file)
            if not is_new and (owner or not locks_work):
                _raise_if_alive(path, file, owner, locks_work)
                left = owner or left
            if not is_new and not (locks_work and is_writable):
                _remove_abandoned(path, owner)
                continue
            try:
                _write(file, work)
            except OSError:
                if is_new:
                    path.unlink()
                raise
            _keep(path, file)
            is_ours = True
            return left
        finally:
            if not is_ours:
                os.close(file)
    raise AssertionError("count() does not end")


def _keep(path: Path, file: int) -> None:
    with _guard:
        _held[path] = _Held(file)
        if not _heart:
            _heart.append(threading.Thread(target=_beat, name="effigy-lock", daemon=True))
            _heart[0].start()


def _release(path: Path) -> None:
    with _guard:
        held = _held[path]
        held.count -= 1
        if held.count:
            return
        del _held[path]
    # On Windows an open file cannot be removed; if another process has opened it meanwhile, it stays, as that one's.
    if sys.platform == "win32":
        os.close(held.file)
        with suppress(OSError):
            path.unlink()
        return
    if _is_at(held.file, path):
        with suppress(OSError):
            path.unlink()
    os.close(held.file)


def _open(path: Path) -> tuple[int, bool, bool]:
    """The open file, whether it was made here, and whether it can be written."""
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    while True:
        if path.is_symlink():
            raise OSError(errno.ELOOP, f"{path.name} is a link: remove it")
        with suppress(FileExistsError):
            return _made(path, flags | os.O_CREAT | os.O_EXCL), True, True
        is_writable = True
        try:
            file = os.open(path, flags)
        except FileNotFoundError:
            continue
        except PermissionError:
            # Of another user. It can be locked, but not written.
            file, is_writable = os.open(path, (flags & ~os.O_RDWR) | os.O_RDONLY), False
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EEXIST, f"{path.name} is no file")
        return file, False, is_writable


def _made(path: Path, flags: int) -> int:
    file = os.open(path, flags, 0o666)
    if os.name == "posix":
        # Whoever else may write in this folder must be able to open it, also if the owner's umask hides new files.
        with suppress(OSError):
            os.fchmod(file, os.fstat(file).st_mode & 0o777 | 0o444)
    return file


def _lock(file: int) -> bool:
    """Lock the file for this process until it is closed; False if the file system knows no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        if error.errno in _HELD_BY_OTHER:
            raise _in_use(_read(file)) from None
        raise
    return True


def _raise_if_alive(path: Path, file: int, owner: Owner | None, locks_work: bool) -> None:
    """Raise an `OutputInUseError` if the owner of this file, which the system lets us have, is alive all the same."""
    if owner and owner.host == socket.gethostname() and _may_be_of_this_start(owner.began):
        if locks_work:
            return
        began = beginning_of(owner.process)
        if began is None or (began and owner.began and began != owner.began):
            return
        if began and began == owner.began:
            raise _in_use(owner)
    before = os.fstat(file).st_mtime_ns
    until = time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(min(1.0, WATCH_SECONDS / 4))
        try:
            # Opened again, because only then network drives ask for the file's present time.
            with open(path, "rb") as again:
                changed = os.fstat(again.fileno()).st_mtime_ns != before
        except FileNotFoundError:
            changed = True
        if changed:
            raise _in_use(owner)


def _may_be_of_this_start(began: str) -> bool:
    """Whether a process may have begun since this machine was started. Otherwise it may run on another machine of the
    same name, such as a copy of a virtual machine.
    """
    here = beginning_of(os.getpid())
    return not began or not here or began.partition(" ")[0] == here.partition(" ")[0]


def _remove_abandoned(path: Path, dead: Owner | None) -> None:
    """Remove the file of a dead owner. Of several processes that do it at once, the renaming succeeds for one; if
    another has removed it before and has made its own, that is put back.
    """
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        path.rename(aside)
        file = os.open(aside, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            is_of_another = _read(file) != dead
        finally:
            os.close(file)
        if is_of_another and not os.path.lexists(path):
            aside.rename(path)
        else:
            aside.unlink()


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except OSError:
        return False


def _write(file: int, work: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    owner = Owner(work, os.getpid(), beginning_of(os.getpid()) or "", socket.gethostname(), now)
    text = json.dumps(asdict(owner)).encode() + b"\n"
    # Not emptied first: where the disk is full, the dead owner's name stays, and the next writer still tidies up.
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, text)
    os.ftruncate(file, len(text))


def _read(file: int) -> Owner | None:
    """The owner that the text names; None if there is none yet, or none that can be understood."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        data = json.loads(os.read(file, _LONGEST_TEXT))
        words = {name: _plain(str(data[name])) for name in ("work", "began", "host", "since")}
        return Owner(process=int(data["process"]), **words)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _plain(text: str) -> str:
    return "".join(letter for letter in text[:100] if letter.isprintable())


def beginning_of(process: int) -> str | None:
    """When a process of this host began; None if there is no such process, empty if the system does not tell."""
    if sys.platform == "win32":
        return ""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except OSError:
        pass
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        # The 22nd field of proc(5); the second one, a name in brackets, may contain blanks.
        return f"{boot} {Path(f'/proc/{process}/stat').read_text('utf-8', 'replace').rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return ""


def _beat() -> None:
    """Renew the times of the files of held locks, until there are none."""
    while True:
        time.sleep(HEARTBEAT_SECONDS)
        with _guard:
            paths = list(_held)
            if not paths:
                _heart.clear()
                return
        _renew(paths)


def _renew(locks: list[Path]) -> None:
    for path in locks:
        # Who removes a lock by hand takes it from its owner. A link may be a stranger's.
        with suppress(OSError):
            os.utime(path, follow_symlinks=os.utime not in os.supports_follow_symlinks)
