"""The lines that the worker reads, checked in one place: a line is a valid message, or a `NoMessage` that says why not.

What a connection carries beside messages is expected: a login banner of `ssh`, a warning that a library prints, the end
of a line that was cut off. None of it may end the thread that reads. The rules are those of
`blender_addon/worker/messages.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

MAX_DEPTH: Final = 64
"""Lists and objects inside one another in one message; requests and answers have 8 at most."""
MAX_ID: Final = 1 << 53
LONGEST_LINE: Final = 1 << 28
"""Bytes. A request carries parts of files of 8 MB, and poses."""
SHOWN: Final = 80
"""Bytes of a line that is no message that the log shows."""


class NoMessage(ValueError):
    """A line that is not a valid message. `number`: the id of the request that it was meant to be, if it has one."""

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.number = number


@dataclass(frozen=True)
class Request:
    """A request of the client, or a notification, which has no number."""

    method: str
    params: dict[str, Any]
    number: int | None


def lines_of(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a pipe until its end. Of a line that is too long, only the beginning is returned."""
    while line := stream.readline(LONGEST_LINE):
        rest = line
        while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_LINE)
        yield line


def decode(line: bytes) -> dict[str, Any]:
    """The JSON object of a line. Raises a `NoMessage`."""
    if len(line) >= LONGEST_LINE:
        raise NoMessage("it is too long")
    try:
        value = _DECODER.decode(line.decode("utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise NoMessage(str(error)[:200]) from error
    if not isinstance(value, dict):
        raise NoMessage("it is not a JSON object")
    if _is_deeper(value, MAX_DEPTH):
        raise NoMessage(f"it is nested more than {MAX_DEPTH} deep", id_of(value))
    return value


def read_request(line: bytes) -> Request:
    """The request of a line. Raises a `NoMessage`."""
    message = decode(line)
    number, method, params = id_of(message), message.get("method"), message.get("params", {})
    if "id" in message and number is None:
        raise NoMessage("its id is no whole number")
    if not isinstance(method, str):
        raise NoMessage("it names no method", number)
    if not isinstance(params, dict):
        raise NoMessage("its parameters have no names", number)
    return Request(method, params, number)


def id_of(message: dict[str, Any]) -> int | None:
    number = message.get("id")
    return number if type(number) is int and abs(number) <= MAX_ID else None


def shown(line: bytes) -> str:
    """A line that is no message, shortened for the log."""
    return f"{line[:SHOWN]!r}{'…' if len(line) > SHOWN else ''}"


def _is_deeper(value: Any, depth: int) -> bool:
    """Whether lists and objects are nested more than `depth` deep; without recursion, which has a depth of its own."""
    level = [value]
    while level and depth:
        depth -= 1
        level = [
            entry
            for outer in level
            for entry in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(entry, (dict, list))
        ]
    return bool(level)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
