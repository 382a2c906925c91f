"""Arrays in messages: taken from their files, which are deleted at once, or from the message itself.

On Linux and macOS a file stays readable through its mapping after it is deleted: nothing is copied, and the memory is
free again when the array is. Windows deletes no file that is mapped, so there it is read first.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

SMALL = 1 << 16
"""Bytes below which a copy is cheaper than a mapping."""


def take_arrays(value: Any) -> Any:
    """A message with its arrays in place of their descriptions; their files are gone afterwards, whatever happens."""
    if isinstance(value, dict):
        if isinstance(described := value.get("$array"), dict):
            return _take(described)
        return {name: take_arrays(entry) for name, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, (dict, list)) for entry in value):
        return [take_arrays(entry) for entry in value]
    return value


def put_arrays(value: Any) -> Any:
    """Parameters of a request as JSON: small arrays as lists, large ones as base64; most are some dozens of numbers."""
    if isinstance(value, dict):
        return {str(name): put_arrays(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [put_arrays(entry) for entry in value]
    if isinstance(value, np.ndarray):
        if value.size <= 1024:
            return value.tolist()
        data = base64.b64encode(value.tobytes()).decode("ascii")
        return {"$array": {"data": data, "dtype": str(value.dtype), "shape": list(value.shape)}}
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _take(described: dict[str, Any]) -> np.ndarray:
    dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
    if "data" in described:
        return np.frombuffer(bytearray(base64.b64decode(described["data"])), dtype).reshape(shape)
    path = described["file"]
    try:
        size = dtype.itemsize * int(np.prod(shape))
        if os.name == "nt" or size < SMALL:
            return np.fromfile(path, dtype).reshape(shape)
        return np.memmap(path, dtype, "c", shape=shape).view(np.ndarray)
    finally:
        with suppress(OSError):
            Path(path).unlink()
