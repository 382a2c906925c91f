"""Whether bytes are an avatar, told by the header alone and without the backend's packages.

An avatar is a safetensors file: the length of the header in 8 bytes, lowest first, the header as a JSON object that
describes each tensor, and the tensors without gaps (github.com/huggingface/safetensors, "Format"). Its metadata hold
the text `effigy`. The contents of the tensors are checked by the backend.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

from .reading import check_file, reading, unlike

NOUN: Final = "avatar"
REMEDY: Final = "choose another file, or train it again"
MOST_HEADER_BYTES: Final = 4 << 20
"""The headers of avatars have some tens of kilobytes."""
_BYTES: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Of a number of each type."""


def is_avatar(file: BinaryIO, size: int) -> bool:
    """Whether an open file of `size` bytes, at its beginning, has the header of an avatar that describes all of it."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MOST_HEADER_BYTES, size - 8):
        return False
    try:
        header = json.loads(file.read(length).decode("utf-8"))
        return "effigy" in header.pop("__metadata__") and _ends(header) == size - 8 - length
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def check_avatar_file(path: Path) -> None:
    """Raises an `EffigyError` for a file that is not an avatar, or that cannot be read. Reads its header only; what is
    no file, such as a device or a pipe, is not opened.
    """
    check_file(path, NOUN, REMEDY)
    with reading(path, NOUN, REMEDY), open(path, "rb") as file:
        found = is_avatar(file, os.fstat(file.fileno()).st_size)
    if not found:
        raise unlike(path, NOUN, REMEDY)


def names_in(path: Path) -> frozenset[str]:
    """The names of the tensors in an avatar's file. Raises an `EffigyError` as `check_avatar_file` does."""
    check_avatar_file(path)
    with reading(path, NOUN, REMEDY), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return frozenset(json.loads(file.read(length).decode("utf-8"))) - {"__metadata__"}


def _ends(tensors: Mapping[str, Any]) -> int:
    """The end of the last tensor. Raises a ValueError where the tensors overlap, leave gaps or have odd sizes."""
    at = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor["data_offsets"]):
        begin, end = tensor["data_offsets"]
        shape = tensor["shape"]
        if begin != at or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError(shape)
        at += prod(shape) * _BYTES[tensor["dtype"]]
        if end != at:
            raise ValueError(end)
    return at
