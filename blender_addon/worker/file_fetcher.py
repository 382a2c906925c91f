"""Fetches files that a worker on another machine has made.

What the worker offers is not trusted: names, sizes and hashes are checked, and bytes are kept in a folder of this
client's until a file is complete and has its hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..errors import EffigyError
from ..output_lock import OutputInUseError, hold
from ..renaming import rename
from .file_exchange import PART_BYTES, WINDOW, Ask, Report, in_messages, list_in
from .plain_names import plain_names

MAX_FILES: Final = 1_000_000
"""Files that a worker may offer for one result."""
KEPT_FREE: Final = 100 * 10**6
"""Bytes that stay free on the disk when files are fetched."""
KEEP_SECONDS: Final = 7 * 24 * 3600.0
"""Partly fetched results are kept for this long."""
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file that the worker offers. Its name and hash are checked."""

    name: str
    size: int
    """Bytes."""
    sha256: str


class FileFetcher:
    """May be used from several threads, for different jobs."""

    def __init__(self, ask: Ask, staging: Path) -> None:
        """`staging`: a folder of this client's for contents that are being fetched; made when it is needed."""
        self.ask, self._staging = ask, staging
        self.bytes_fetched = 0
        """Contents that went through the line, for figures and tests."""

    def collect(self, key: str, names: Sequence[str]) -> list[RemoteFile]:
        """The files of a job's results below `names` that the worker offers, checked."""
        rows = list_in(self.ask("file.collect", {"key": key, "names": list(names)})(), "files")
        if len(rows) > MAX_FILES:
            raise EffigyError(f"The worker offers {len(rows)} files, which is more than a result can have.")
        found = []
        for row in rows:
            match row:
                case [str(name), int(size), str(sha256)] if size >= 0 and _HASH.fullmatch(sha256):
                    found.append(RemoteFile(name, size, sha256))
                case _:
                    raise EffigyError("The worker described a result in a way that is unknown here: update Effigy.")
        plain_names(file.name for file in found)
        for file in found:
            if not any(file.name == name or file.name.startswith(f"{name}/") for name in names):
                raise EffigyError(
                    f"The worker offers a file that was not asked for ({file.name}): nothing was fetched."
                )
        return found

    def fetch(self, key: str, files: Sequence[RemoteFile], noun: str, report: Report) -> dict[str, Path]:
        """Fetches contents; returns where each is, by hash, in a folder that `discard` removes."""
        self._remove_old()
        folder = self._staging / key
        contents = {file.sha256: file for file in files}
        total, stage = sum(file.size for file in contents.values()), f"Fetching {noun} from the worker"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            receivers = [_Receiver(file, folder) for file in contents.values()]
            done = sum(receiver.offset for receiver in receivers)
            if shutil.disk_usage(folder).free < total - done + KEPT_FREE:
                raise EffigyError(
                    f"The disk that holds {folder} has no room for {(total - done) / 1e6:.0f} MB from the worker: free "
                    "some space, then start again. What the worker has made is kept there."
                )
            waiting: deque[tuple[list[tuple[_Receiver, int]], Callable[[], Any]]] = deque()
            for wanted in in_messages((piece, piece[2]) for receiver in receivers for piece in receiver.wanted()):
                report(stage, done, total)
                rows = [[receiver.file.sha256, offset, size] for receiver, offset, size in wanted]
                waiting.append(
                    ([(receiver, size) for receiver, _, size in wanted], self.ask("file.get", {"parts": rows}))
                )
                if len(waiting) >= WINDOW:
                    done += self._received(waiting)
            while waiting:
                done += self._received(waiting)
                report(stage, done, total)
        except OSError as error:
            raise EffigyError(
                f"What the worker has made cannot be stored in {folder} ({error.strerror or error}): free some space, "
                "or make the folder writable, then start again."
            ) from error
        return {receiver.file.sha256: receiver.path for receiver in receivers}

    @contextmanager
    def held(self, key: str) -> Iterator[None]:
        """Keeps other Blenders of this user from fetching the same job's results. Raises an `EffigyError` where one is
        doing so.
        """
        with ExitStack() as lock:
            try:
                lock.enter_context(hold(self._staging / key, "Blender: fetching results"))
            except OutputInUseError as error:
                by = f" ({error.owner})" if error.owner else ""
                raise EffigyError(
                    f"Another Blender is fetching the same result{by}: wait until it has ended. It is kept on the "
                    "worker until then."
                ) from error
            except OSError as error:
                raise EffigyError(
                    f"What the worker has made cannot be stored in {self._staging} ({error.strerror or error}): free "
                    "some space, or make the folder writable, then start again."
                ) from error
            yield

    def discard(self, key: str) -> None:
        """Removes what `fetch` has stored for this job."""
        self._remove(self._staging / key)

    def _received(self, waiting: deque[tuple[list[tuple[_Receiver, int]], Callable[[], Any]]]) -> int:
        wanted, answer = waiting.popleft()
        parts = list_in(answer(), "parts")
        if len(parts) != len(wanted):
            raise EffigyError("The worker sent other parts of a file than were asked for: start again.")
        for (receiver, size), part in zip(wanted, parts, strict=True):
            receiver.append(_decoded(part, size))
            self.bytes_fetched += size
        return sum(size for _, size in wanted)

    def _remove_old(self) -> None:
        if self._staging.is_dir():
            for folder in self._staging.iterdir():
                with suppress(OSError):
                    if time.time() - folder.stat().st_mtime > KEEP_SECONDS:
                        self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Removes a folder of contents, by the names that this module gives them and by no other."""
        if _HASH.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            with suppress(OSError):
                for file in folder.iterdir():
                    if _HASH.fullmatch(file.name.removesuffix(".part")):
                        file.unlink()
                folder.rmdir()


class _Receiver:
    """Takes the bytes of one content in order."""

    def __init__(self, file: RemoteFile, folder: Path) -> None:
        self.file, self.path = file, folder / file.sha256
        self._part = folder / f"{file.sha256}.part"
        self._digest = hashlib.sha256()
        self.offset = file.size if self.path.is_file() else 0
        """Bytes that are here."""
        if self.offset == 0 and self._part.is_file():
            with open(self._part, "rb") as part:
                while block := part.read(1 << 20):
                    self._digest.update(block)
                    self.offset += len(block)
            if self.offset >= file.size:
                self._part.unlink()
                self._digest, self.offset = hashlib.sha256(), 0

    def wanted(self) -> Iterator[tuple[_Receiver, int, int]]:
        """(receiver, offset, bytes) of the pieces that are still missing."""
        if self.path.is_file():
            return
        offset = self.offset
        while True:
            size = min(PART_BYTES, self.file.size - offset)
            yield self, offset, size
            offset += size
            if offset >= self.file.size:
                return

    def append(self, data: bytes) -> None:
        with open(self._part, "ab") as part:
            part.write(data)
        self._digest.update(data)
        self.offset += len(data)
        if self.offset == self.file.size:
            if self._digest.hexdigest() != self.file.sha256:
                self._part.unlink()
                raise EffigyError(f"{self.file.name} arrived damaged from the worker: start again.")
            rename(self._part, self.path)


def _decoded(text: Any, size: int) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise EffigyError("A part of a file arrived damaged from the worker: start again.") from error
    if len(data) != size:
        raise EffigyError("A file on the worker changed while it was fetched: start again.")
    return data
