"""The devices that a user can choose for training, and what `auto` stands for on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .errors import EffigyError

if TYPE_CHECKING:
    import torch

DEVICES: Final = ("auto", "cpu", "cuda")


def choose_device(name: str) -> torch.device:
    """The PyTorch device for one of `DEVICES`; `auto` is the GPU where PyTorch can use one."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise EffigyError("There is no CUDA GPU that PyTorch can use here: train with --device cpu, or see `doctor`.")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
