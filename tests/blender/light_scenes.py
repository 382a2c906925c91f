"""A light as the worker answers it, and its suns on a rig."""

from __future__ import annotations

from typing import Any

import numpy as np

AXES = np.concatenate((np.eye(3), -np.eye(3)))
HALF_ANGLE = float(np.radians(60))
LIGHT = {
    "said": ["capture: light from 37° right of the camera and 0° above it."],
    "lamps": [[0.6, 0.0, -0.8]],
    "lamp_colors": [[0.4, 0.2, 0.1]],
    "ambient_axes": AXES.tolist(),
    "ambient": [[0.02, 0.02, 0.02]] * 4 + [[0.1, 0.1, 0.2], [0.0, 0.0, 0.0]],
    "half_angle": HALF_ANGLE,
    "average": [0.2, 0.15, 0.1],
}


def build_light(rig: Any, head_light: Any) -> Any:
    """Adds the suns of `LIGHT` to a rig; returns the empty that they hang on."""
    return head_light.build_suns(rig, head_light.Light.from_answer(LIGHT), 0.35)
