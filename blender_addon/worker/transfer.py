"""What one request or job exchanges with a worker on another machine: what it reads is sent, what it writes is fetched.

A path in a shared folder (`path_map`) is only translated. The worker reads and writes all other files below a folder of
its own.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..file_names import beside
from .file_exchange import Report, list_in, text_in
from .file_fetcher import FileFetcher, RemoteFile
from .file_sender import FileSender, check_avatar, scan
from .path_fields import PathField, paths_in, with_paths
from .path_map import PathMap, joined
from .placing import check_no_links, check_place, place_files, place_folder
from .plain_names import sendable

RUNNING: Final = "running"
"""State in the note that the worker keeps about a job until its results are fetched."""


class Transfer:
    """Used from one thread at a time."""

    def __init__(
        self, sender: FileSender, fetcher: FileFetcher, path_map: PathMap, report: Report, fields: tuple[PathField, ...]
    ) -> None:
        self._sender, self._fetcher, self._map, self._report = sender, fetcher, path_map, report
        self._fields = fields
        self._pairs: list[tuple[str, str]] = []
        """(path at the worker, path here)."""
        self._outputs: list[tuple[PathField, Path, str]] = []
        """What is fetched: its field, its path here, and its name in the folder of the results."""
        self._key = ""
        self.result: dict[str, Any] | None = None
        """The result of the same job if an earlier connection was lost before it was fetched."""
        self.continued = False
        """Whether a training goes on from the checkpoint that it left at the worker when the connection was lost."""

    def prepare(self, kind: str, params: Mapping[str, Any]) -> Any:
        """Sends what is read, and returns the parameters with the worker's paths. Takes as long as sending takes.

        `kind`: the name of the method or job. Raises an `EffigyError`.
        """
        writes, contents = [], []
        remote: dict[tuple[str, str], str] = {}
        for field, path in paths_in(self._fields, params):
            mapped = self._map.to_remote(path)
            if mapped is not None:
                remote[field.name, path] = mapped
            elif field.writes is not None:
                check_place(Path(path), replaces_folder=field.whole)
                writes.append((field, Path(path)))
            else:
                if field.is_avatar:
                    check_avatar(Path(path))
                remote[field.name, path] = self._sender.open(
                    Path(path), field.parts, field.noun, self._report, field.images
                )
                contents.append(remote[field.name, path])
        if writes:
            remote |= self._reserve(kind, params, writes, contents)
            if self.continued:
                params = {**params, "resume": True}
        self._pairs = sorted(((there, here) for (_, here), there in remote.items()), key=lambda pair: -len(pair[0]))
        return with_paths(self._fields, params, lambda field, path: remote[field.name, path])

    def fetch(self) -> None:
        """Fetches what the job has written and puts it into place."""
        self._fetch([(field, path, name) for field, path, name in self._outputs])
        if self._key:
            self.note("")

    def fetch_unfinished(self) -> None:
        """Fetches what a job that was stopped has left to be resumed from: the files beside its result."""
        companions = [(field, path, name) for field, path, name in self._outputs if field.beside]
        if companions:
            self._fetch(companions, unfinished=True)
        if self._key:
            self.note("")

    def note_result(self, result: Mapping[str, Any]) -> None:
        """Notes at the worker how the job ended, so that its result can be fetched later if the connection is lost."""
        if self._key:
            self.note(json.dumps({"result": result}))

    def note(self, text: str) -> None:
        self._sender.ask("file.note", {"key": self._key, "note": text})()

    def to_local(self, value: Any) -> Any:
        """An answer of the worker with this machine's paths, in its sentences too. Arrays are left as they are."""
        if isinstance(value, str):
            for there, here in self._pairs:
                if value.startswith((f"{there}/", f"{there}\\")):
                    below = value[len(there) :].replace("\\", "/")
                    # `..` could lead to any file here.
                    return value if ".." in below.split("/") else joined(here, below)
                value = value.replace(there, here)
            return value
        if isinstance(value, dict):
            return {name: self.to_local(entry) for name, entry in value.items()}
        if isinstance(value, list):
            return [self.to_local(entry) for entry in value]
        return value

    def _reserve(
        self, kind: str, params: Mapping[str, Any], writes: list[tuple[PathField, Path]], contents: list[str]
    ) -> dict[tuple[str, str], str]:
        """Gets a folder for the results from the worker, with the files in it that the job also reads."""
        files: dict[str, str] = {}
        self._outputs = [(field, path, f"{field.name}/{sendable(path.name)}") for field, path in writes]
        for field, path, name in self._outputs:
            if field.reads:
                sent = self._sender.send(scan(path, field.parts), field.noun, self._report)
                files |= {f"{name}/{part}" if part else name: file.sha256 for part, file in sent.items()}
        described = {name: value for name, value in params.items() if name != "resume"}
        # The same job is recognised by its parameters and by the contents that it reads.
        identity = [socket.gethostname(), kind, described, sorted(files.items()), sorted(contents)]
        self._key = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
        if params.get("resume"):
            for field, path, name in self._outputs:
                others = {suffix: beside(path, suffix) for suffix in field.beside}
                found = {suffix: file for suffix, file in others.items() if file.is_file()}
                sent = self._sender.send(found, "the checkpoint", self._report)
                files |= {name + suffix: file.sha256 for suffix, file in sent.items()}
        note = json.dumps({"state": RUNNING})
        answer = self._sender.ask(
            "file.output", {"key": self._key, "files": [*map(list, files.items())], "note": note}
        )()
        folder, before = text_in(answer, "path"), _read_note(text_in(answer, "note"))
        if isinstance(before.get("result"), dict):
            self.result = before["result"]
        elif before.get("state") == RUNNING:
            self.continued = any(self._left(field, name) for field, _, name in self._outputs)
        return {(field.name, str(path)): joined(folder, name) for field, path, name in self._outputs}

    def _left(self, field: PathField, name: str) -> bool:
        names = [name + suffix for suffix in field.beside]
        return bool(names and list_in(self._sender.ask("file.collect", {"key": self._key, "names": names})(), "files"))

    def _fetch(self, outputs: list[tuple[PathField, Path, str]], *, unfinished: bool = False) -> None:
        if not outputs:
            return
        names = [
            f"{name}/{part}" if part else name
            for field, _, name in outputs
            for part in (() if unfinished else field.writes or ())
        ]
        names += [name + suffix for field, _, name in outputs for suffix in field.beside]
        files = self._fetcher.collect(self._key, names)
        # Another Blender that fetches the same result would mix its bytes with these.
        with self._fetcher.held(self._key):
            self._fetch_files(outputs, files, unfinished)

    def _fetch_files(
        self, outputs: list[tuple[PathField, Path, str]], files: list[RemoteFile], unfinished: bool
    ) -> None:
        # What is left of a job that was cancelled is fetched to its end: cancelling it again means nothing.
        report = _silent if unfinished else self._report
        contents = self._fetcher.fetch(self._key, files, outputs[-1][0].noun, report)
        for field, path, name in outputs:
            inside = {file.name.removeprefix(f"{name}/"): file for file in files if file.name.startswith(f"{name}/")}
            if field.whole and inside:
                place_folder(path, _contents_of(inside, contents))
            else:
                for part in filter(None, field.writes or ()):
                    below = [name for name in inside if name.startswith(f"{part}/")]
                    if below:
                        # As the backend does on this machine: a link there is replaced, not followed.
                        files_of_part = {name.removeprefix(f"{part}/"): inside.pop(name) for name in below}
                        place_folder(path / part, _contents_of(files_of_part, contents), of_capture=False)
                check_no_links(path, inside)
                places = {path / part: file for part, file in inside.items()}
                places |= {beside(path, suffix): file for suffix, file in _named(files, name, field)}
                place_files({place: contents[file.sha256] for place, file in places.items()})
        self._fetcher.discard(self._key)


def _contents_of(files: Mapping[str, RemoteFile], contents: Mapping[str, Path]) -> dict[str, Path]:
    return {name: contents[file.sha256] for name, file in files.items()}


def _silent(stage: str, done: int, total: int) -> None:
    """Reports no progress."""


def _named(files: list[RemoteFile], name: str, field: PathField) -> list[tuple[str, RemoteFile]]:
    """(suffix, file) of the result itself, whose suffix is empty, and of those beside it."""
    return [(suffix, file) for suffix in ("", *field.beside) for file in files if file.name == name + suffix]


def _read_note(text: str) -> dict[str, Any]:
    try:
        note = json.loads(text) if text else {}
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}
