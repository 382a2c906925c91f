"""The choices in Blender's interface match those of the backend."""

from __future__ import annotations

import numpy as np

from backend.devices import DEVICES
from backend.head.jaw import RETARGETING_LIMITS
from backend.retargeting.livelink import GAZE_ANGLES
from backend.training.presets import PRESETS
from blender_addon import training_choices
from blender_addon.rig import joint_limits


def test_the_interface_offers_the_backends_presets_with_their_sizes_and_steps():
    offered = {name: (choice.size, choice.steps) for name, choice in training_choices.PRESETS.items()}
    assert offered == {name: (preset.size, preset.steps) for name, preset in PRESETS.items()}


def test_the_interface_offers_the_backends_devices():
    assert tuple(training_choices.DEVICES) == DEVICES


def test_the_interface_limits_jaw_and_gaze_where_the_backend_does():
    limits = np.degrees([RETARGETING_LIMITS.jaw_lower[:2], RETARGETING_LIMITS.jaw_upper[:2]]).T
    assert np.allclose((joint_limits.JAW_OPEN, joint_limits.JAW_SIDEWAYS), limits)
    assert np.allclose((joint_limits.GAZE_UP, joint_limits.GAZE_SIDEWAYS), np.degrees(RETARGETING_LIMITS.gaze))
    assert np.allclose((joint_limits.LOOK_SIDEWAYS, joint_limits.LOOK_UP), np.degrees(GAZE_ANGLES))
