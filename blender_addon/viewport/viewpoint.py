"""Where a view looks from. The colours of an avatar's splats depend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..rig.conventions import points_to_head

HEAD_RADIUS: Final = 0.12
"""Metres: the radius that is assumed for a head of scale 1."""


@dataclass(frozen=True)
class Viewpoint:
    """Position and direction of a view, in Blender's world."""

    position: np.ndarray
    """(3,) metres."""
    forward: np.ndarray
    """(3,) unit vector."""
    orthographic: bool

    @classmethod
    def from_view_matrix(cls, view_matrix: np.ndarray, orthographic: bool) -> Viewpoint:
        """From a (4, 4) world-to-view matrix in OpenGL's axes, where the view looks along -Z."""
        view_to_world = np.linalg.inv(view_matrix)
        forward = -view_to_world[:3, 2] / np.linalg.norm(view_to_world[:3, 2])
        return cls(view_to_world[:3, 3], forward, orthographic)

    def message(self) -> dict[str, Any]:
        """The worker protocol's `view` (the position) or, for an orthographic view, `direction`; (3,), in Blender's
        world with the axes of head space. The head's motion is not removed.
        """
        if self.orthographic:
            return {"direction": points_to_head(self.forward)}
        return {"view": points_to_head(self.position)}

    def relative_to_head(self, head_motion: np.ndarray) -> np.ndarray:
        """The properties of the view that the colours of a head depend on. `head_motion` (4, 4) is the head's
        similarity transformation in Blender's world.

        Returns (4,): the unit viewing direction in the moving head's frame, and the angle in radians that the head's
        radius subtends at the viewpoint, approximated as radius / distance (at most 1; 0 for an orthographic view,
        whose rays are parallel).
        """
        to_head = head_motion[:3, 3] - self.position
        direction = head_motion[:3, :3].T @ (self.forward if self.orthographic else to_head)
        scale, distance = float(np.cbrt(np.linalg.det(head_motion[:3, :3]))), max(float(np.linalg.norm(to_head)), 1e-12)
        half_angle = 0.0 if self.orthographic else min(HEAD_RADIUS * scale / distance, 1.0)
        return np.append(direction / max(float(np.linalg.norm(direction)), 1e-12), half_angle)

    def is_close_to(self, other: Viewpoint) -> bool:
        """Whether both are the same up to rounding."""
        return (
            np.allclose(self.position, other.position, atol=1e-6)
            and np.allclose(self.forward, other.forward, atol=1e-6)
            and self.orthographic == other.orthographic
        )


def view_change(before: np.ndarray, now: np.ndarray) -> float:
    """The larger of the changes of direction and of subtended angle, radians, between two results of
    `Viewpoint.relative_to_head`.
    """
    return max(float(np.arccos(np.clip(before[:3] @ now[:3], -1, 1))), abs(float(before[3] - now[3])))
