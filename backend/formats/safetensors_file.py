"""Reading of safetensors files, the container of avatars and of checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and the tensors of a safetensors file, which is closed afterwards and may be replaced.

    `safe_open` maps the file into memory, and its tensors are views of that mapping. Windows does not replace a mapped
    file, and on other systems a process that reads a view ends with a signal when the file has been shortened. The
    tensors are therefore copied. Raises `SafetensorError` for a damaged file and `OSError`.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        return metadata, {name: file.get_tensor(name).clone() for name in file.keys()}
