"""Open Sound Control 1.0: the messages of a packet.

Blender brings no package for OSC and the extension none at all, so that it works on every system; these lines read what
VMC and face trackers send. A packet may come from anybody on the network, so that all sizes are bounded, and a packet
that breaks a rule is refused as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

MOST_DEPTH: Final = 4
"""Bundles inside one another; VMC uses one."""
MOST_MESSAGES: Final = 1024
"""Of a packet: a message has 8 bytes at least, a packet 8192 (`receiver`)."""
MOST_ARGUMENTS: Final = 64
_BUNDLE: Final = b"#bundle\0"
_BUNDLE_HEAD: Final = 16
"""With its time, which no sender of faces sets."""
_NUMBERS: Final = {"i": ">i", "f": ">f", "d": ">d", "h": ">q", "t": ">q"}
_WITHOUT_BYTES: Final = {"T": True, "F": False, "N": None, "I": float("inf")}

Argument = int | float | str | bytes | bool | None


def messages_of(packet: bytes) -> list[tuple[str, tuple[Argument, ...]]]:
    """(address, arguments) of each message. Raises a ValueError for anything that is no packet of OSC."""
    found = []
    for message in _parts(packet, MOST_DEPTH):
        if len(found) == MOST_MESSAGES:
            raise ValueError(f"it has more than {MOST_MESSAGES} messages")
        found.append(_message(message))
    return found


def _parts(packet: bytes, depth: int) -> Iterator[bytes]:
    if not packet.startswith(_BUNDLE):
        yield packet
        return
    if depth == 0 or len(packet) < _BUNDLE_HEAD:
        raise ValueError("its bundles are damaged")
    at = _BUNDLE_HEAD
    while at < len(packet):
        (size,) = _unpack(">i", packet, at)
        at += 4
        if not 0 < size <= len(packet) - at:
            raise ValueError("a message is longer than its bundle")
        yield from _parts(packet[at : at + size], depth - 1)
        at += size


def _message(data: bytes) -> tuple[str, tuple[Argument, ...]]:
    address, at = _text(data, 0)
    if not address.startswith("/"):
        raise ValueError("it has no address")
    if at == len(data):
        return address, ()
    kinds, at = _text(data, at)
    if not kinds.startswith(",") or len(kinds) > MOST_ARGUMENTS + 1:
        raise ValueError("it does not say what its arguments are")
    arguments: list[Argument] = []
    for kind in kinds[1:]:
        if kind in _NUMBERS:
            arguments += _unpack(_NUMBERS[kind], data, at)
            at += struct.calcsize(_NUMBERS[kind])
        elif kind in "sS":
            text, at = _text(data, at)
            arguments.append(text)
        elif kind == "b":
            (size,) = _unpack(">i", data, at)
            if not 0 <= size <= len(data) - at - 4:
                raise ValueError("a blob is longer than its message")
            arguments.append(data[at + 4 : at + 4 + size])
            at += 4 + (size + 3) // 4 * 4
        elif kind in _WITHOUT_BYTES:
            arguments.append(_WITHOUT_BYTES[kind])
        else:
            raise ValueError(f"it has an argument of the unknown kind {kind!r}")
    return address, tuple(arguments)


def _text(data: bytes, at: int) -> tuple[str, int]:
    """The text that begins at a byte, and where what follows begins: texts are filled up to four bytes by zeros."""
    end = data.find(b"\0", at)
    if end < 0:
        raise ValueError("a text has no end")
    return data[at:end].decode("utf-8"), min(len(data), (end + 4) // 4 * 4)


def _unpack(layout: str, data: bytes, at: int) -> tuple[Any, ...]:
    try:
        return struct.unpack_from(layout, data, at)
    except struct.error as error:
        raise ValueError("it ends within a number") from error
