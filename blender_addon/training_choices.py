"""The choices for training that the interface offers: presets and devices.

This repeats some of `backend.training.presets`, because the extension does not import the backend into Blender's
process. `tests/backend/test_training_choices.py` compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class PresetChoice:
    label: str
    description: str
    size: int
    """Side of the training images, pixels."""
    steps: int
    number: int
    """By which a .blend keeps the choice: never that of another preset."""


PRESETS: Final = {
    "instant": PresetChoice("Instant", "Something to drive within half a minute, from 64 frames", 256, 220, 3),
    "draft": PresetChoice("Draft", "A good avatar: about ten minutes on an ordinary CPU", 256, 4000, 0),
    "standard": PresetChoice("Standard", "Finer detail, at 512 pixels: hours on a CPU; made for a GPU", 512, 10000, 1),
    "full": PresetChoice("Full", "Four times as long as Standard; for a GPU", 512, 40000, 2),
}
"""By the name that the backend knows."""
DEVICES: Final = {
    "auto": ("Automatic", "The GPU if there is one that can be used, otherwise the CPU"),
    "cpu": ("CPU", "The processor"),
    "cuda": ("GPU", "The NVIDIA GPU"),
}
"""Label and description by the name that the backend knows."""
