"""Sends files to a worker on another machine, as far as it lacks them."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..avatar_header import check_avatar_file
from ..errors import EffigyError
from ..image_run import images_of
from ..reading import reading
from .file_exchange import LIST_ENTRIES, PART_BYTES, WINDOW, Ask, Report, in_messages, list_in, text_in
from .plain_names import sendable


@dataclass(frozen=True)
class LocalFile:
    path: Path
    size: int
    """Bytes."""
    sha256: str


class FileSender:
    """May be used from several threads."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self._hashes: dict[Path, tuple[tuple[int, int], str]] = {}
        """By path: the file's stamp when it was hashed, and the hash."""
        self._opened: dict[Path, tuple[tuple[int, int], str]] = {}
        """By path: the file's stamp when it was sent, and its path at the worker."""
        self._locks: dict[Path, threading.Lock] = {}
        self._lock = threading.Lock()
        self.bytes_sent = 0
        """Contents that went through the line, for figures and tests."""

    def forget(self) -> None:
        """Another worker process answers from now on, whose files may be others."""
        self._opened.clear()

    def opened(self, path: Path) -> str | None:
        """The worker's path of a file that was sent and has not changed since. A deleted file counts as unchanged."""
        known = self._opened.get(path)
        if known is None:
            return None
        with suppress(OSError):
            return known[1] if _stamp(path) == known[0] else None
        return known[1]

    def open(self, path: Path, parts: Sequence[str], noun: str, report: Report, images: bool = False) -> str:
        """Sends a file, or the `parts` of a folder, as far as the worker lacks it; returns its path at the worker.

        With `images`, `path` may also name numbered images (`image_run`).
        """
        with self._lock:
            lock = self._locks.setdefault(path, threading.Lock())
        with lock:
            if remote := self.opened(path):
                return remote
            files = self.send(scan(path, parts, images), noun, report)
            rows = [[name, file.sha256] for name, file in files.items()]
            remote = text_in(self.ask("file.open", {"name": sendable(path.name), "files": rows})(), "path")
            if path.is_file():
                self._opened[path] = self._hashes[path][0], remote
            return remote

    def send(self, paths: Mapping[str, Path], noun: str, report: Report) -> dict[str, LocalFile]:
        """Sends the files that the worker lacks; returns all by their names. `noun` names them for the progress."""
        files = self._read(paths, f"Reading {noun}", report)
        contents = {file.sha256: file for file in files.values()}
        offsets: list[int] = []
        for some in _batches(list(contents.values()), LIST_ENTRIES):
            answer = self.ask("file.have", {"files": [[file.sha256, file.size] for file in some]})()
            offsets += list_in(answer, "offsets")
        total = sum(file.size for file in contents.values())
        missing = [
            (file, offset)
            for file, offset in zip(contents.values(), offsets, strict=True)
            if offset < file.size or not file.size
        ]
        done = total - sum(file.size - offset for file, offset in missing)
        stage = f"Sending {noun} to the worker"
        waiting: deque[tuple[int, Callable[[], Any]]] = deque()
        for parts in in_messages((piece, len(piece["data"])) for piece in _pieces(missing)):
            report(stage, done, total)
            sizes = sum(len(part["data"]) for part in parts)
            encoded = [part | {"data": base64.b64encode(part["data"]).decode("ascii")} for part in parts]
            waiting.append((sizes, self.ask("file.put", {"parts": encoded})))
            if len(waiting) >= WINDOW:
                done += self._arrived(waiting)
        while waiting:
            done += self._arrived(waiting)
            report(stage, done, total)
        return files

    def _arrived(self, waiting: deque[tuple[int, Callable[[], Any]]]) -> int:
        size, answer = waiting.popleft()
        answer()
        self.bytes_sent += size
        return size

    def _read(self, paths: Mapping[str, Path], stage: str, report: Report) -> dict[str, LocalFile]:
        """Hashes files, unless it has done so before and they have not changed."""
        try:
            total, done, files = sum(path.stat().st_size for path in paths.values()), 0, {}
            for name, path in paths.items():
                stamp = _stamp(path)
                known = self._hashes.get(path)
                if known is None or known[0] != stamp:
                    digest = hashlib.sha256()
                    with open(path, "rb") as file:
                        while block := file.read(1 << 22):
                            digest.update(block)
                            done += len(block)
                            report(stage, done, total)
                    self._hashes[path] = known = stamp, digest.hexdigest()
                files[name] = LocalFile(path, stamp[1], known[1])
        except OSError as error:
            raise EffigyError(f"{error.filename} cannot be read ({error.strerror or error}).") from error
        return files


def scan(path: Path, parts: Sequence[str], images: bool = False) -> dict[str, Path]:
    """The files to send of `path`, by their names below it; the name of a single file is empty. With `images`, `path`
    may be a folder of numbered images or their pattern.

    Of a folder only its files and folders named `parts` count, without hidden files. A link in it is refused, because
    it may name any other file of this machine, which the artist has not chosen to send; `path` itself may be one.
    """
    if path.is_file():
        return {"": path}
    found: dict[str, Path] = {}
    for part in parts if path.is_dir() else ():
        _scan_into(found, path / part, part)
    for name, image in images_of(path).items() if images else ():
        _scan_into(found, image, name)
    if not found:
        raise EffigyError(f"There is nothing at {path} that could be sent to the worker.")
    return found


def check_avatar(path: Path) -> None:
    """Refuses a file that is no avatar by its header. A file that is missing is not refused here."""
    if os.path.lexists(path):
        try:
            check_avatar_file(path)
        except EffigyError as error:
            raise EffigyError(f"{error} It was not sent to the worker.") from error


def _scan_into(found: dict[str, Path], path: Path, name: str) -> None:
    # `resolve` follows the junctions of Windows, which are no symbolic links.
    if path.is_symlink() or (path.is_dir() and leads_elsewhere(path)):
        raise EffigyError(
            f"{path} is a link to another place, which is not sent to the worker: put the file or folder itself there."
        )
    if path.is_file():
        found[name] = path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                _scan_into(found, child, f"{name}/{child.name}")


def leads_elsewhere(folder: Path) -> bool:
    """Whether a folder, which need not exist, is a link or a junction."""
    expected = folder.parent.resolve() / folder.name
    return os.path.normcase(folder.resolve()) != os.path.normcase(expected)


def _stamp(path: Path) -> tuple[int, int]:
    """Time of the last change (nanoseconds) and bytes of a file."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _pieces(files: Iterable[tuple[LocalFile, int]]) -> Iterator[dict[str, Any]]:
    """The contents from their offsets on, as parts of `file.put` with bytes. A file is read when it is its turn."""
    for file, offset in files:
        with reading(file.path, "file", "choose another one"), open(file.path, "rb") as source:
            source.seek(offset)
            while True:
                data = source.read(min(PART_BYTES, file.size - offset))
                yield {"sha256": file.sha256, "size": file.size, "offset": offset, "data": data}
                offset += len(data)
                if not data or offset >= file.size:
                    break


def _batches(entries: Sequence[LocalFile], size: int) -> Iterator[Sequence[LocalFile]]:
    for start in itertools.count(0, size):
        if start >= len(entries):
            return
        yield entries[start : start + size]
