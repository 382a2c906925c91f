"""Reading and writing of safetensors files, the container of avatars and of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..storage import sync


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and the tensors of a safetensors file, which is closed afterwards and may be replaced.

    `safe_open` maps the file into memory, and its tensors are views of that mapping. Windows does not replace a mapped
    file, and on other systems a process that reads a view ends with a signal when the file has been shortened. The
    tensors are therefore copied. Raises `SafetensorError` for a damaged file and `OSError`.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        return metadata, {name: file.get_tensor(name).clone() for name in file.keys()}


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
        found_metadata, found = read_tensors(path)
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
