"""The channel between Blender and the worker: JSON-RPC 2.0, one message a line, over stdin and stdout.

Lines that come in are checked in `messages`; arrays are beside the messages that go out (`array_files`).
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np

from .array_files import ArrayFiles
from .messages import NoMessage, decode, lines_of, shown

SCHEMA: Final = 2
"""Version of the protocol. Since 2, the client makes the folders for arrays and names them in `hello`."""

INVALID: Final = -32600
"""JSON-RPC error code of a line that has an id and is no request."""
REFUSED: Final = -32000
"""JSON-RPC error code of an `EffigyError`: the error's message is a sentence for the user."""
UNKNOWN_METHOD: Final = -32601
DEFECT: Final = -32603
"""JSON-RPC error code of any other exception: a defect of Effigy. The error's `data` is the traceback."""

_T = TypeVar("_T")


class Channel:
    """Messages in on stdin and out on stdout, from any thread. From here on, anything else that prints to stdout is
    sent to stderr.
    """

    def __init__(self, arrays: ArrayFiles) -> None:
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

    def messages(self, read: Callable[[bytes], _T] = decode) -> Iterator[_T | NoMessage]:
        """Until the other side closes: what `read` makes of each line.

        A line that is no message is reported in the log. It is left out, unless it has an id: a `NoMessage` is then
        returned instead, so that it can be answered.
        """
        for line in lines_of(self._in):
            try:
                message = read(line)
            except NoMessage as problem:
                report = f"A line that is not a message was left out ({problem}): {shown(line)}"
                print(report, file=sys.stderr, flush=True)
                if problem.number is not None:
                    yield problem
                continue
            yield message

    def send(self, message: dict[str, Any]) -> None:
        """Write a message. Does nothing where the reader is gone: the thread that reads stdin is about to notice.

        Raises an `EffigyError` where there is no room for the arrays, and what `json` raises for values that no message
        can hold. No file is left then.
        """
        described: list[dict[str, Any]] = []
        try:
            line = json.dumps(self._plain(message, described), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        except BaseException:
            self.arrays.remove(described)
            raise
        try:
            with self._lock:
                self._out.write(line)
                self._out.flush()
        except (OSError, ValueError):
            self.arrays.remove(described)

    def _plain(self, value: Any, described: list[dict[str, Any]]) -> Any:
        """`value` as JSON can hold it.

        Arrays become descriptions, which are added to `described`; dataclasses become objects, a fraction becomes
        [numerator, denominator], and NaN and infinity become null.
        """
        if is_dataclass(value) and not isinstance(value, type):
            return {field.name: self._plain(getattr(value, field.name), described) for field in fields(value)}
        if isinstance(value, dict):
            return {str(name): self._plain(entry, described) for name, entry in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._plain(entry, described) for entry in value]
        if isinstance(value, np.ndarray):
            described.append(self.arrays.put(value))
            return described[-1]
        if isinstance(value, Fraction):
            return [value.numerator, value.denominator]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return str(value) if isinstance(value, Path) else value
