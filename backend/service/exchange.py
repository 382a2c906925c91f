"""The worker's methods for clients on machines that do not share its files.

A client sends the files that a request reads, and fetches those that a job wrote. Contents are known by their SHA-256,
so that what is here already is not sent again, and an interrupted transfer goes on where it ended.

    file.have     {files: [[sha256, bytes], …]}         → {offsets: how many bytes of each are here}
    file.put      {parts: [{sha256, size, offset, data}]}  → {}; `data` in base64
    file.open     {name, files: [[name, sha256], …]}    → {path} of a folder of these files; of one file if its own name
                                                          in the list is empty
    file.output   {key, files: [[name, sha256], …], note} → {path, note}: a folder for a job's results with these files
                                                          in it, and what the client had noted about them
    file.note     {key, note}                           → {}; an empty note: the results were fetched
    file.collect  {key, names}                          → {files: [[name, bytes, sha256], …]} that the job wrote
    file.get      {parts: [[sha256, offset, bytes], …]} → {parts: [base64, …]}

The worker writes only below its own folder (`exchange_store`), under names that it makes; a client's names are relative
and plain (`plain_names`).
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable
from typing import Any, Final

from ..errors import EffigyError
from ..head.registry import known_files
from .exchange_cleanup import make_room, size_limit
from .exchange_store import ExchangeStore, checked_hash, exchange_folder
from .parameters import Parameters
from .plain_names import plain_name, plain_names

MAX_ENTRIES: Final = 1_000_000
"""Files that one message may list."""
MAX_BYTES: Final = 8 << 20
"""Bytes of contents that one message may carry."""
MAX_NOTE: Final = 1 << 16
"""Characters."""
CLEANUP_SECONDS: Final = 600.0
"""Least time between two searches for entries to remove."""


class Exchange:
    """The methods, called from one thread."""

    def __init__(self, store: ExchangeStore | None = None) -> None:
        self._store = store or ExchangeStore(exchange_folder())
        self._cleaned_at: float | None = None
        self.methods: dict[str, Callable[[Parameters], dict[str, Any]]] = {
            "file.have": self._have,
            "file.put": self._put,
            "file.open": self._open,
            "file.output": self._output,
            "file.note": self._note,
            "file.collect": self._collect,
            "file.get": self._get,
        }

    def _have(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("files")
        self._make_room()
        files = [(checked_hash(sha256), _count(size)) for sha256, size in _rows(parameters, "files", 2)]
        return {"offsets": [self._store.present(sha256, size) for sha256, size in files]}

    def _put(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("parts")
        for part in parameters.groups("parts"):
            part.allow_only("sha256", "size", "offset", "data")
            try:
                data = base64.b64decode(part.text("data"), validate=True)
            except (binascii.Error, ValueError) as error:
                raise EffigyError("The bytes of a file arrived damaged: start again.") from error
            sha256 = checked_hash(part.text("sha256"))
            self._store.put(sha256, part.integer("size", minimum=0), part.integer("offset", minimum=0), data)
        return {}

    def _open(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("name", "files")
        name = plain_name(parameters.text("name"))
        rows = _rows(parameters, "files", 2)
        if [file for file, _ in rows] == [""]:
            files = {"": checked_hash(rows[0][1])}
        else:
            files = _named(rows)
        return {"path": str(self._store.lay_out(name, files))}

    def _output(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("key", "files", "note")
        folder, before = self._store.open_results(
            checked_hash(parameters.text("key")), _named(_rows(parameters, "files", 2)), _note_of(parameters)
        )
        return {"path": str(folder), "note": before}

    def _note(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("key", "note")
        self._store.note(checked_hash(parameters.text("key")), _note_of(parameters))
        return {}

    def _collect(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("key", "names")
        names = plain_names(name for (name,) in _rows(parameters, "names", 1))
        return {"files": self._store.collect(checked_hash(parameters.text("key")), names)}

    def _get(self, parameters: Parameters) -> dict[str, Any]:
        parameters.allow_only("parts")
        parts = [
            (checked_hash(sha256), _count(offset), _count(size))
            for sha256, offset, size in _rows(parameters, "parts", 3)
        ]
        if sum(size for _, _, size in parts) > MAX_BYTES:
            raise EffigyError(f"A message of the exchange may carry {MAX_BYTES >> 20} MB at most.")
        return {"parts": [base64.b64encode(self._store.read(*part)).decode("ascii") for part in parts]}

    def _make_room(self) -> None:
        now = time.monotonic()
        if self._cleaned_at is None or now - self._cleaned_at > CLEANUP_SECONDS:
            self._cleaned_at = now
            make_room(self._store.folder, size_limit(), self._store.used, known_files())


def _rows(parameters: Parameters, name: str, length: int) -> list[list[Any]]:
    """A list of lists of this length. With `length` 1 the entries need not be lists."""
    rows = parameters.values.get(name)
    if isinstance(rows, list) and length == 1:
        rows = [[row] for row in rows]
    if (
        not isinstance(rows, list)
        or len(rows) > MAX_ENTRIES
        or not all(isinstance(row, list) and len(row) == length for row in rows)
    ):
        raise EffigyError(f"{parameters.context}: {name} must be a list with {length} values in each entry.")
    return rows


def _named(rows: list[list[Any]]) -> dict[str, str]:
    """(name, SHA-256) of each row, checked."""
    names = plain_names(name for name, _ in rows)
    return {name: checked_hash(sha256) for name, (_, sha256) in zip(names, rows, strict=True)}


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise EffigyError("A file of the exchange has a size or an offset that is no whole number.")
    return value


def _note_of(parameters: Parameters) -> str:
    note = parameters.text("note")
    if len(note) > MAX_NOTE:
        raise EffigyError(f"A note of the exchange may have {MAX_NOTE} characters at most.")
    return note
