"""The choices in Blender's interface match those of the backend."""

from __future__ import annotations

from backend.devices import DEVICES
from backend.training.presets import PRESETS
from blender_addon import training_choices


def test_the_interface_offers_the_backends_presets_with_their_sizes_and_steps():
    offered = {name: (choice.size, choice.steps) for name, choice in training_choices.PRESETS.items()}
    assert offered == {name: (preset.size, preset.steps) for name, preset in PRESETS.items()}


def test_the_interface_offers_the_backends_devices():
    assert tuple(training_choices.DEVICES) == DEVICES
