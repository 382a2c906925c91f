"""Reading and writing of safetensors files, the container of avatars and of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..reading import Damaged, open_regular, parse_json, too_large
from ..storage import sync

MOST_HEADER: Final = 8 * 2**20
"""Bytes of the list of tensors at the start of a file, the avatar's own settings included. An avatar's has 20 kB;
parsing takes about ten times its bytes."""
_KINDS: Final = (
    *(torch.float16, torch.float32, torch.float64),
    *(torch.int64, torch.int32, torch.int16, torch.bool),
)
"""What avatars and checkpoints consist of."""


def read_tensors(path: Path, noun: str, remedy: str, most: int) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Effigy's own header and the tensors of a safetensors file of at most `most` bytes. Call it within
    `reading.reading`. The file is closed afterwards and may be replaced.

    `safe_open` maps the file into memory, and its tensors are views of that mapping. Windows does not replace a mapped
    file, and on other systems a process that reads a view ends with a signal when the file has been shortened. The
    tensors are therefore copied. safetensors itself ensures that all tensors lie inside the file.
    """
    with open_regular(path, noun, most, remedy) as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size
    if length > size:
        raise Damaged("its list of tensors is cut short")
    if length > MOST_HEADER:
        raise too_large(path, noun, "its list of tensors claims more", f"{MOST_HEADER / 1e6:.0f} MB", remedy)
    metadata, tensors = _read(path)
    header = parse_json(metadata["effigy"])
    if not isinstance(header, dict):
        raise Damaged("its settings cannot be read")
    if any(tensor.dtype not in _KINDS for tensor in tensors.values()):
        raise Damaged("it holds tensors of an unknown kind")
    return header, tensors


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    with safe_open(path, "pt") as file:
        return file.metadata() or {}, {name: file.get_tensor(name).clone() for name in file.keys()}


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file. Raises an `OSError`, whose number is in the message alone: safetensors gives only text
    (`storage.as_effigy_error` reads it).
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def is_as_written(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bool:
    """Whether a file that was just written holds this metadata and every byte of these tensors.

    It is read from the disk, not from memory, where the system can be asked to (Linux).
    """
    sync(path)
    if hasattr(os, "posix_fadvise"):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        found_metadata, found = _read(path)
    except (SafetensorError, OSError):
        return False
    return (
        found_metadata == metadata
        and found.keys() == tensors.keys()
        and all(
            found[name].dtype == tensor.dtype
            and found[name].shape == tensor.shape
            and _bytes(found[name]) == _bytes(tensor)
            for name, tensor in tensors.items()
        )
    )


def _bytes(tensor: torch.Tensor) -> bytes:
    # Bytes, because no NaN equals itself.
    return tensor.detach().cpu().contiguous().numpy().tobytes()
