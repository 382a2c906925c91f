"""What sending files to a worker on another machine (`file_sender`) and fetching files from it (`file_fetcher`) share.

Contents travel in the worker's own messages, so that any command which starts a worker will do. They are named by their
SHA-256, so that nothing is sent or fetched twice and an interrupted transfer goes on where it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from ..errors import EffigyError

PART_BYTES: Final = 1 << 19
"""Contents in one message. A request for the viewport waits for WINDOW such messages at most: 0.15 s at 100 Mbit/s."""
WINDOW: Final = 3
"""Messages with contents that are under way at once, so that the line does not idle for the length of an answer."""
LIST_ENTRIES: Final = 5000
"""Files that one message lists."""

Ask = Callable[[str, dict[str, Any]], Callable[[], Any]]
"""Sends a request and returns a function that waits for its answer and raises an `EffigyError`."""
Report = Callable[[str, int, int], None]
"""Called with (what is being done, bytes done, bytes in all); raises to stop the transfer."""


def in_messages(pieces: Iterable[tuple[Any, int]]) -> Iterator[list[Any]]:
    """Pieces, given with their bytes, in groups of PART_BYTES at most, so that small files need no message each."""
    group: list[Any] = []
    total = 0
    for piece, size in pieces:
        if group and (total + size > PART_BYTES or len(group) >= LIST_ENTRIES):
            yield group
            group, total = [], 0
        group.append(piece)
        total += size
    if group:
        yield group


def list_in(answer: Any, name: str) -> list[Any]:
    """The list `name` of the worker's answer; raises an `EffigyError` if there is none."""
    return _value(answer, name, list)


def text_in(answer: Any, name: str) -> str:
    """The text `name` of the worker's answer; raises an `EffigyError` if there is none."""
    return _value(answer, name, str)


def _value(answer: Any, name: str, kind: type) -> Any:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise EffigyError("The worker's Effigy is of another version, which cannot exchange files: update it there.")
    return value
