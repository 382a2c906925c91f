"""The surface on which the bust is taken to lie: where neck, collar and shoulders are, given a head and nothing else.

It hangs from the ring in which the neck ends (`neck_end`). Before the throat it leads down and slightly forward; to the
sides it bends back to the shoulders, and above the ring back along the slope from neck to shoulder. It is rough: what
it must get right is the depth by which the torso's motion in the image becomes one in space, and how a bust looks from
the side. All in head space, at rest, metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .model import HeadModel
from .neck_end import neck_end

HALF_WIDTH = 0.30
"""Metres from the middle to either side, beyond all but the broadest shoulders."""
RISE = 0.08
"""Metres above the ring up to which collar and shoulders may rise."""
FALL = 0.30
"""Metres below the ring."""
_CHEST_SLOPE = 0.2
"""Metres forward for each metre down, up to _CHEST metres forward."""
_CHEST = 0.03
_SHOULDER_SLOPE = 0.4
"""Metres back for each metre that something rises above the ring."""
_SHOULDER_BEND = 1.6
"""Metres back for each square metre from the middle: 6 cm at 20 cm."""


@dataclass(frozen=True)
class BustSurface:
    """A surface z(x, y) below one person's neck."""

    centre: np.ndarray
    """(3,) of the ring."""
    front: float
    """z of the ring's front."""
    ring: np.ndarray
    """(R, 3) the ring's vertices."""

    def points(self, across: np.ndarray, up: np.ndarray) -> np.ndarray:
        """(..., 3): the points of the surface at `across` and `up` (...,), from the ring's centre."""
        forward = np.where(up < 0, np.minimum(-_CHEST_SLOPE * up, _CHEST), -_SHOULDER_SLOPE * up)
        depth = self.front - self.centre[2] + forward - _SHOULDER_BEND * across**2
        return self.centre + np.stack((across, up, depth), -1)

    def distance_to_neck(self, points: np.ndarray) -> np.ndarray:
        """(N,) metres from points (N, 3) to the nearest vertex of the ring."""
        return np.linalg.norm(points[:, None] - self.ring, axis=2).min(1)


def bust_surface(model: HeadModel, identity: np.ndarray) -> BustSurface:
    """The surface below the neck of a person with coefficients `identity` (S,)."""
    ring = (model.template + model.shape_basis @ identity)[neck_end(model)].astype(np.float64)
    return BustSurface(ring.mean(0), float(ring[:, 2].max()), ring)
