"""The messages between Blender and the worker: JSON-RPC 2.0, one message a line, with arrays in files.

In a message, an array is `{"$array": {"file": path, "dtype": "float32", "shape": [..]}}`. Its bytes are in a file of a
private temporary folder, which is in memory where the system has such a folder. The receiver of the message deletes the
file. A worker on another machine (`ssh host …`) shares no files with Blender: its bytes are in the message itself, as
base64 in `{"$array": {"data": …, "dtype": …, "shape": …}}`.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import EffigyError

SCHEMA = 1
MEMORY_FOLDER = Path("/dev/shm")

REFUSED = -32000
"""JSON-RPC error code of an `EffigyError`: the error's message is a sentence for the user."""
UNKNOWN_METHOD = -32601
DEFECT = -32603
"""JSON-RPC error code of any other exception: a defect of Effigy. The error's `data` is the traceback."""


class ArrayFolders:
    """The folders for array files: one in memory, and one on the disk for arrays that do not fit into memory."""

    def __init__(self, folders: list[str] | None = None) -> None:
        """`folders` belong to another process, which removes them; by default new folders are made, and `close` removes
        them.
        """
        self.inline = False
        """Whether arrays go inside messages instead of files."""
        self._own = folders is None
        self._count = itertools.count()
        memory = [MEMORY_FOLDER] if os.access(MEMORY_FOLDER, os.W_OK) else []
        self.folders = folders or [tempfile.mkdtemp(prefix="effigy-arrays-", dir=parent) for parent in (*memory, None)]

    def put(self, array: np.ndarray) -> dict[str, Any]:
        """Write `array` to a file and describe it for a message. Raises `EffigyError` where no folder has room."""
        description = {"dtype": str(array.dtype), "shape": list(array.shape)}
        array = np.ascontiguousarray(array)
        if self.inline:
            return {"$array": {"data": base64.b64encode(array.tobytes()).decode("ascii"), **description}}
        for folder in self.folders:
            path = Path(folder) / f"{os.getpid()}-{next(self._count)}"
            try:
                array.tofile(path)
                return {"$array": {"file": str(path), **description}}
            except OSError:
                with suppress(OSError):
                    path.unlink()
        folders = " or ".join(self.folders)
        raise EffigyError(f"There is no room for {array.nbytes / 1e6:.0f} MB in {folders}: free some space.")

    def close(self) -> None:
        if self._own:
            for folder in self.folders:
                shutil.rmtree(folder, ignore_errors=True)


def read_inline(value: Any) -> Any:
    """A request's parameters with base64 arrays decoded; everything else is returned unchanged."""
    if isinstance(value, dict):
        if isinstance(description := value.get("$array"), dict):
            try:
                data = base64.b64decode(description["data"])
                return np.frombuffer(data, description["dtype"]).reshape(description["shape"])
            except (KeyError, ValueError, TypeError) as error:
                raise EffigyError("An array of the request does not fit its own description.") from error
        return {name: read_inline(entry) for name, entry in value.items()}
    return value


class Channel:
    """Messages in on stdin and out on stdout, from any thread. From here on, anything else that prints to stdout is
    sent to stderr.
    """

    def __init__(self, arrays: ArrayFolders) -> None:
        self.arrays = arrays
        # While one thread waits for a message, Windows makes every other access to the same pipe wait as well, and the
        # Fortran library that scipy and numpy load looks at file descriptor 0. The pipe therefore gets another
        # descriptor, and 0 becomes empty (https://github.com/numpy/numpy/issues/24290).
        self._in: BinaryIO = os.fdopen(os.dup(0), "rb")
        empty = os.open(os.devnull, os.O_RDONLY)
        os.dup2(empty, 0)
        os.close(empty)
        # Libraries print to stdout, some of them from C: the real stdout is kept for messages, and file descriptor 1
        # becomes the log.
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._lock = threading.Lock()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Until the other side closes. A line that is no message is left out and reported in the log."""
        for line in iter(self._in.readline, b""):
            try:
                message = json.loads(line)
            except ValueError as error:
                self._report_left_out(str(error))
                continue
            if isinstance(message, dict):
                yield message
            else:
                self._report_left_out("it is not a JSON object")

    @staticmethod
    def _report_left_out(reason: str) -> None:
        print(f"A line that is not a message was left out ({reason}).", file=sys.stderr, flush=True)

    def send(self, message: dict[str, Any]) -> None:
        """Write a message. Does nothing where the reader is gone: the thread that reads stdin is about to notice."""
        line = json.dumps(self._plain(message), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self._lock, suppress(BrokenPipeError, OSError, ValueError):
            self._out.write(line)
            self._out.flush()

    def _plain(self, value: Any) -> Any:
        """`value` as JSON can hold it.

        Arrays become descriptions of their files, dataclasses become objects, a fraction becomes [numerator,
        denominator], and NaN and infinity become null.
        """
        if is_dataclass(value) and not isinstance(value, type):
            return {field.name: self._plain(getattr(value, field.name)) for field in fields(value)}
        if isinstance(value, dict):
            return {str(name): self._plain(entry) for name, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(entry) for entry in value]
        if isinstance(value, np.ndarray):
            return self.arrays.put(value)
        if isinstance(value, Fraction):
            return [value.numerator, value.denominator]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return str(value) if isinstance(value, Path) else value
