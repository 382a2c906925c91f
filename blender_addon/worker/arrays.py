"""Arrays in messages: read from files, which are deleted at once, or from the message itself."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

import numpy as np

from .array_folders import ArrayFolders, check_description


def take_arrays(value: Any, folders: ArrayFolders | None) -> Any:
    """Replaces the descriptions of arrays in a message with the arrays. Their files are deleted, also after an error.

    `folders`: where files may be; None where an array may only be in the message itself. Raises a ValueError or an
    OSError for an array that is not as it is described.
    """
    if isinstance(value, dict):
        if isinstance(described := value.get("$array"), dict):
            return _take(described, folders)
        return {name: take_arrays(entry, folders) for name, entry in value.items()}
    if isinstance(value, list) and any(isinstance(entry, (dict, list)) for entry in value):
        return [take_arrays(entry, folders) for entry in value]
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
        return {"$array": {"data": data, "dtype": value.dtype.name, "shape": list(value.shape)}}
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _take(described: dict[str, Any], folders: ArrayFolders | None) -> np.ndarray:
    dtype, shape, size = check_description(described)
    if "data" not in described:
        if folders is None:
            raise ValueError("an array in a file, from a worker on another machine")
        return folders.take(described.get("file"), dtype, shape, size)
    data = described["data"]
    if not isinstance(data, str) or len(data) != 4 * ((size + 2) // 3):
        raise ValueError("an array with another number of bytes than its shape says")
    return np.frombuffer(bytearray(binascii.a2b_base64(data, strict_mode=True)), dtype).reshape(shape)
