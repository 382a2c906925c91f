"""Transfers between the CPU and the device of training that do not make the CPU wait for a GPU.

A GPU works through its queue of kernels while the CPU prepares the next ones. Reading a number from the GPU, and
copying from memory that the driver may page out, waits until the queue is empty, and the GPU then waits for the CPU.
Inside a training step data therefore cross over only by these functions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; a copy from the CPU to a GPU is queued and goes through page-locked memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class PendingNumber:
    """A number that was computed on a device and is being copied to the CPU."""

    def __init__(self, value: Tensor) -> None:
        """`value` () is a tensor on any device; from a GPU the copy is queued."""
        self._event: torch.cuda.Event | None = None
        self._host = value
        if value.is_cuda:
            self._host = torch.empty((), dtype=value.dtype, pin_memory=True)
            self._host.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    @property
    def arrived(self) -> bool:
        """Whether `read` returns without waiting."""
        return self._event is None or self._event.query()

    def read(self) -> float:
        """The number; waits for the copy if it has not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return float(self._host)
