"""Arrays in messages: read from files, which are deleted at once, or from the message itself.

On Linux and macOS a memory-mapped file stays readable after it is deleted: nothing is copied, and the memory is freed
together with the array. Windows cannot delete a mapped file, so there the file is read into memory first.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

COPY_BELOW = 1 << 16
"""Bytes below which a copy is cheaper than a mapping."""


def take_arrays(value: Any, *, files: bool = True) -> Any:
    """Replaces the descriptions of arrays in a message with the arrays. Their files are deleted, also after an error.

    `files`: whether an array may be in a file. Raises a ValueError where it may not and is; the file is not touched.
    """
    if isinstance(value, dict):
        if isinstance(described := value.get("$array"), dict):
            if not files and "data" not in described:
                raise ValueError("an array in a file, from a worker on another machine")
            return _take(described)
        return {name: take_arrays(entry, files=files) for name, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, (dict, list)) for entry in value):
        return [take_arrays(entry, files=files) for entry in value]
    return value


def put_arrays(value: Any) -> Any:
    """Converts the parameters of a request to JSON: arrays of up to 1024 numbers, which most are, to lists, larger ones
    to base64.
    """
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
        if os.name == "nt" or size < COPY_BELOW:
            return np.fromfile(path, dtype).reshape(shape)
        return np.memmap(path, dtype, "c", shape=shape).view(np.ndarray)
    finally:
        with suppress(OSError):
            Path(path).unlink()
