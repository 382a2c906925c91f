"""While the shutter is open: the scene's motion blur."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import bpy
import numpy as np

from .avatar_pass import scene_of

_CURVE_STEPS: Final = 64


@dataclass(frozen=True)
class Shutter:
    """When it opens and closes, in frames from the time of the image."""

    opens: float
    closes: float
    openness: np.ndarray
    """(S,) at equal steps of time from the opening to the closing, not negative."""

    def times(self, shares: np.ndarray) -> np.ndarray:
        """The times by which such shares (M,), 0 to 1, of the light have come through."""
        gathered = np.concatenate(([0.0], np.cumsum((self.openness[1:] + self.openness[:-1]) / 2)))
        if not gathered[-1] > 0:
            gathered = np.linspace(0, 1, len(self.openness))
        steps = np.linspace(self.opens, self.closes, len(self.openness))
        return np.interp(shares, gathered / gathered[-1], steps)


def shutter_of(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> Shutter | None:
    """The shutter of a scene, evaluated or not; None if the layer has no motion blur. That of an avatar pass is its
    scene's.
    """
    render = scene.render
    if not (render.use_motion_blur and layer.use_motion_blur and render.motion_blur_shutter > 0):
        return None
    length = render.motion_blur_shutter
    opens = {"START": 0.0, "CENTER": -length / 2, "END": -length}[render.motion_blur_position]
    mapping = (scene_of(scene) or scene).original.render.motion_blur_shutter_curve
    mapping.initialize()
    shares = np.linspace(0, 1, _CURVE_STEPS + 1)
    openness = np.array([mapping.evaluate(mapping.curves[0], float(share)) for share in shares])
    return Shutter(opens, opens + length, np.maximum(openness, 0))
