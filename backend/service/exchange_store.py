"""The folder in which a worker keeps the files of clients on other machines.

    exchange/files/<sha256>              the contents of one file
             files/<sha256>.part         the beginning of one that is still being sent
             folders/<sha256>/NAME       a file or a folder that a request reads, made of these contents by links
             results/<32 hex digits>/…   what a job reads and writes
             notes/<sha256>.json         what a client has noted about a job's results

Everything is found by a hash, so that what was sent once is never sent again. When the folder is larger than its limit,
the entries that were not used for the longest time are removed (`backend.service.exchange_cleanup`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import EffigyError
from ..output_lock import beginning_of
from ..reading import read_json, reading
from ..storage import as_effigy_error, hash_file, rename, write_beside
from ..user_cache import user_cache

FILES, FOLDERS, RESULTS, NOTES = "files", "folders", "results", "notes"
BLOCK: Final = 1 << 20
"""Bytes that are hashed at once."""
_HASH = re.compile(r"[0-9a-f]{64}")
_RESULT = re.compile(r"[0-9a-f]{32}")


def exchange_folder() -> Path:
    """Where this user's worker keeps exchanged files: in the user's cache, or below EFFIGY_USER."""
    if override := os.environ.get("EFFIGY_USER"):
        return Path(override) / "exchange"
    return user_cache() / "exchange"


def checked_hash(value: object) -> str:
    """`value` if it is a SHA-256 hash in lower-case hexadecimal digits; raises an `EffigyError` otherwise."""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise EffigyError("A file of the exchange is named by something that is no SHA-256 hash.")
    return value


class ExchangeStore:
    """The folder, used from one thread. The names that its methods take have been checked by `plain_names`."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when it is first written to."""
        self.folder = folder
        self.used: set[Path] = set()
        """The entries that this worker has used: they are not removed while it runs."""
        self._hashing: dict[str, tuple[hashlib._Hash, int]] = {}
        """The hash of the first bytes of an unfinished file, and their number."""

    # --- contents

    def present(self, sha256: str, size: int) -> int:
        """How many bytes of this content are here, counted from its beginning."""
        complete = self._entry(FILES, sha256)
        if complete.is_file():
            self._use(complete)
            return size
        part = self._entry(FILES, f"{sha256}.part")
        here = part.stat().st_size if part.is_file() else 0
        # A part as long as the whole was left by a worker that ended before it had checked the hash.
        return here if here < size else 0

    def put(self, sha256: str, size: int, offset: int, data: bytes) -> None:
        """Append `data`, which starts at byte `offset` of a content of `size` bytes.

        Raises an `EffigyError` where an earlier byte is missing, where the complete content does not have its hash, and
        where the disk is full.
        """
        target, part = self._entry(FILES, sha256), self._entry(FILES, f"{sha256}.part")
        if target.is_file():
            return
        if offset + len(data) > size:
            raise EffigyError("More bytes of a file arrived than it has.")
        self._make(FILES)
        try:
            here = part.stat().st_size if part.exists() else 0
            if target.is_file():
                # A worker of another client has received the rest of it in this moment.
                return
            if offset > here:
                raise EffigyError(f"Bytes {here} to {offset} of a file are missing: start again.")
            # Never truncated here: a worker of another client may be receiving the same content. It is made for the
            # first bytes only, because it would lack them otherwise.
            flags = os.O_RDWR | (0 if offset else os.O_CREAT) | getattr(os, "O_BINARY", 0)
            with open(os.open(part, flags, 0o600), "r+b") as file:
                file.seek(offset)
                file.write(data)
                if offset + len(data) == size:
                    file.truncate(size)
            running = self._hash_until(sha256, part, offset)
            running.update(data)
            self._hashing[sha256] = running, offset + len(data)
            if offset + len(data) < size:
                return
            del self._hashing[sha256]
            if running.hexdigest() != sha256:
                part.unlink()
                raise EffigyError("A file arrived damaged, or it changed while it was sent: start again.")
            self._seal(part, target)
        except OSError as error:
            raise as_effigy_error(error, part) from error

    def read(self, sha256: str, offset: int, size: int) -> bytes:
        """`size` bytes of a content from byte `offset` on; fewer at its end."""
        path = self._entry(FILES, sha256)
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise EffigyError("A file of the exchange is no longer on the worker: start again.") from error

    # --- files and folders made of contents

    def lay_out(self, name: str, files: Mapping[str, str]) -> Path:
        """A folder `name` with these files (name → SHA-256), or one file if its own name is empty; for reading."""
        described = json.dumps([name, sorted(files.items())])
        entry = self._entry(FOLDERS, hashlib.sha256(described.encode()).hexdigest())
        if not entry.is_dir():
            self._make(FOLDERS)
            with write_beside(entry, durable=False) as temporary:
                self._fill(temporary, {f"{name}/{file}" if file else name: sha256 for file, sha256 in files.items()})
        self._use(entry)
        return entry / name

    def open_results(self, key: str, files: Mapping[str, str], note: str) -> tuple[Path, str]:
        """The folder for the results of the job `key`, with these files (name → SHA-256) in it, and the client's last
        note about it.

        The folder of an earlier job is used again if a note says that its results were not fetched, and no worker that
        is still running made it. Otherwise the folder is new and the note is empty.
        """
        noted = self._read_note(key)
        entry = self._entry(RESULTS, str(noted.get("folder", "")))
        before = noted.get("note")
        if not isinstance(before, str) or not before or not entry.is_dir() or _runs_elsewhere(noted):
            entry, before = self._entry(RESULTS, secrets.token_hex(16)), ""
        self._make(RESULTS)
        try:
            self._fill(entry, {name: sha256 for name, sha256 in files.items() if not (entry / name).exists()})
        except OSError as error:
            raise as_effigy_error(error, entry) from error
        self._use(entry)
        self._write_note(key, entry.name, note)
        return entry, before

    def note(self, key: str, note: str) -> None:
        """Replace the note about a job's results; an empty one means that they were fetched."""
        folder = self._read_note(key).get("folder")
        if isinstance(folder, str):
            self._write_note(key, folder, note)

    def collect(self, key: str, names: Sequence[str]) -> list[tuple[str, int, str]]:
        """(name, bytes, SHA-256) of the files that a job wrote: those of `names`, and those in folders of `names`.

        From here on `read` finds their contents. Links, and files and folders with a hidden name, are left out.
        """
        entry = self._entry(RESULTS, str(self._read_note(key).get("folder", "")))
        found = []
        for name in names:
            for path in regular_files(entry / name):
                try:
                    sha256 = hash_file(path)
                    target = self._entry(FILES, sha256)
                    if not target.exists():
                        self._make(FILES)
                        _link(path, target)
                        _protect(target)
                    self._use(target)
                    found.append((path.relative_to(entry).as_posix(), path.stat().st_size, sha256))
                except OSError as error:
                    raise as_effigy_error(error, path) from error
        return found

    # --- parts

    def _entry(self, kind: str, name: str) -> Path:
        return self.folder / kind / name

    def _make(self, kind: str) -> None:
        try:
            (self.folder / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            raise as_effigy_error(error, self.folder) from error

    def _use(self, entry: Path) -> None:
        if entry not in self.used:
            self.used.add(entry)
            with suppress(OSError):
                os.utime(entry)

    def _fill(self, folder: Path, files: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for parent in {(folder / name).parent for name in files}:
            parent.mkdir(parents=True, exist_ok=True)
        for name, sha256 in files.items():
            content = self._entry(FILES, sha256)
            if not content.is_file():
                raise EffigyError("A file of the exchange is no longer on the worker: start again.")
            _link(content, folder / name)

    def _hash_until(self, sha256: str, part: Path, offset: int) -> hashlib._Hash:
        running, hashed = self._hashing.get(sha256, (hashlib.sha256(), 0))
        if hashed != offset:
            running = hashlib.sha256()
            with open(part, "rb") as file:
                left = offset
                while left and (block := file.read(min(BLOCK, left))):
                    running.update(block)
                    left -= len(block)
        return running

    def _seal(self, part: Path, target: Path) -> None:
        rename(part, target)
        _protect(target)
        self._use(target)

    def _read_note(self, key: str) -> dict[str, object]:
        path = self._entry(NOTES, f"{key}.json")
        noted: object = None
        with suppress(EffigyError), reading(path, "note", "delete it"):
            noted = read_json(path, "note", "delete it")
        return noted if isinstance(noted, dict) and _RESULT.fullmatch(str(noted.get("folder"))) else {}

    def _write_note(self, key: str, folder: str, note: str) -> None:
        self._make(NOTES)
        with write_beside(self._entry(NOTES, f"{key}.json")) as temporary:
            worker = {"pid": os.getpid(), "began": beginning_of(os.getpid())}
            temporary.write_text(json.dumps({"folder": folder, "note": note, **worker}), "utf-8")


def regular_files(path: Path) -> Iterator[Path]:
    """The file `path`, or the files below the folder `path`, without links and hidden names."""
    if path.is_symlink():
        return
    if path.is_file():
        yield path
    elif path.is_dir():
        for child in sorted(path.iterdir()):
            if not child.name.startswith("."):
                yield from regular_files(child)


def _link(content: Path, path: Path) -> None:
    try:
        os.link(content, path)
    except FileExistsError:
        pass
    except OSError:
        # The file system does not support hard links.
        shutil.copyfile(content, path)


def _protect(path: Path) -> None:
    """Against a program that opens a linked file for writing. Windows would not let such a file be removed."""
    if os.name != "nt":
        path.chmod(0o400)


def _runs_elsewhere(noted: Mapping[str, object]) -> bool:
    """Whether the worker that wrote a note is another one than this and is running. A later process may have got its
    number, in a container in particular.
    """
    pid, began = noted.get("pid"), noted.get("began")
    if not isinstance(pid, int) or pid in (0, os.getpid()) or os.name == "nt":
        return False
    now = beginning_of(pid)
    return now is not None and not (began and now and began != now)
