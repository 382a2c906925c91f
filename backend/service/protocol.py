"""The wire between Blender and the worker: JSON-RPC 2.0, one message a line, and arrays beside it.

An array stands in a message as `{"$array": {"file": path, "dtype": "float32", "shape": [..]}}`: its bytes lie in a file
of a private temporary folder, in memory where the system offers such a place. Whoever receives the message deletes the
file. A worker on another machine (`ssh host …`) shares no files: there the bytes stand in the message itself, as base64
in `{"$array": {"data": …, "dtype": …, "shape": …}}`.
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
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import EffigyError

SCHEMA = 1
MEMORY_FOLDER = Path("/dev/shm")

REFUSED = -32000
"""JSON-RPC error code of an `EffigyError`: the message is a sentence for the user."""
UNKNOWN_METHOD = -32601
DEFECT = -32603
"""Anything else: a defect of ours; `data` holds the traceback."""


class ArrayFolders:
    """Where array files go: memory first, then the disk for what memory has no room for. Removed by `close`."""

    def __init__(self, folders: list[str] | None = None) -> None:
        """`folders`: those of another process, which removes them; none: new ones of our own."""
        self.inline = False
        self._own = folders is None
        self._count = itertools.count()
        places = [MEMORY_FOLDER] if os.access(MEMORY_FOLDER, os.W_OK) else []
        self.folders = folders or [tempfile.mkdtemp(prefix="effigy-arrays-", dir=place) for place in (*places, None)]

    def put(self, array: np.ndarray) -> dict[str, Any]:
        """What stands for `array` in a message."""
        described = {"dtype": str(array.dtype), "shape": list(array.shape)}
        array = np.ascontiguousarray(array)
        if self.inline:
            return {"$array": {"data": base64.b64encode(array.tobytes()).decode("ascii"), **described}}
        for folder in self.folders:
            path = os.path.join(folder, f"{os.getpid()}-{next(self._count)}")
            try:
                array.tofile(path)
                return {"$array": {"file": path, **described}}
            except OSError:
                with suppress(OSError):
                    os.unlink(path)
        places = " or ".join(self.folders)
        raise EffigyError(f"There is no room for {array.nbytes / 1e6:.0f} MB in {places}: free some space.")

    def close(self) -> None:
        if self._own:
            for folder in self.folders:
                shutil.rmtree(folder, ignore_errors=True)


def read_inline(value: Any) -> Any:
    """Undo base64 arrays in a request's parameters; everything else stays as it is."""
    if isinstance(value, dict):
        if isinstance(described := value.get("$array"), dict):
            try:
                data = base64.b64decode(described["data"])
                return np.frombuffer(data, described["dtype"]).reshape(described["shape"])
            except (KeyError, ValueError, TypeError) as error:
                raise EffigyError("An array of the request does not fit its own description.") from error
        return {name: read_inline(entry) for name, entry in value.items()}
    return value


class Channel:
    """Messages in on stdin, out on stdout, from any thread. Whatever else prints, prints to stderr from here on."""

    def __init__(self, arrays: ArrayFolders) -> None:
        self.arrays = arrays
        self._in: BinaryIO = sys.stdin.buffer
        # Libraries print to stdout, some from C: the real one is kept for messages, descriptor 1 becomes the log.
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self._lock = threading.Lock()

    def messages(self) -> Iterator[dict[str, Any]]:
        """Until the other side closes. A line that is no message is answered by nothing and told to the log."""
        for line in iter(self._in.readline, b""):
            try:
                message = json.loads(line)
                if not isinstance(message, dict):
                    raise ValueError("not an object")
            except ValueError as error:
                print(f"A line that is no message was left out ({error}).", file=sys.stderr, flush=True)
                continue
            yield message

    def send(self, message: dict[str, Any]) -> None:
        """Nothing happens where nobody reads any more: whoever waits on stdin is about to learn so."""
        line = json.dumps(self._plain(message), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        with self._lock, suppress(BrokenPipeError, OSError, ValueError):
            self._out.write(line)
            self._out.flush()

    def _plain(self, value: Any) -> Any:
        """As JSON knows it: arrays put aside, a fraction as [numerator, denominator], no NaN and no infinity."""
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
