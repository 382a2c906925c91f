"""What an avatar shows: Gaussians in Blender's world, as plain arrays. No `bpy` and no `gpu` in here.

`Splats` are those of one pose as the worker (or a bake) gave them; `carried` moves them rigidly to where the head is by
now; `pack` makes the numbers of which the drawing's texture consists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from ..rig.conventions import HEAD_TO_BLENDER, points_to_blender
from ..rig.rotations import matrix_to_quaternion, quaternion_multiply, quaternion_to_matrix

ALPHA_MIN: Final = 1 / 255
"""A splat fainter than this is never drawn: `backend.splatting.reference`."""
REACH: Final = float(np.sqrt(2 * np.log(255.0)))
"""Standard deviations at which an opaque splat falls below `ALPHA_MIN`."""
KINDS: Final = ("SPLATS", "ELLIPSOIDS", "POINTS", "DEPTH")
"""How a splat is drawn; its place here is what the shader reads."""
NUMBERS: Final = 16
"""Of a splat in the texture: four texels."""


@dataclass(frozen=True)
class Splats:
    """G Gaussians of one pose, in Blender's world and axes; float32."""

    means: np.ndarray
    """(G, 3)"""
    quaternions: np.ndarray
    """(G, 4) w, x, y, z; any length."""
    scales: np.ndarray
    """(G, 3) standard deviations."""
    opacities: np.ndarray
    """(G,)"""
    colors: np.ndarray
    """(G, 3) sRGB-encoded, as the networks were trained; not held to [0, 1]."""
    motion: np.ndarray
    """(4, 4) where the head was: `RigPose.head_motion`, a similarity of Blender's world."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, np.ndarray], motion: np.ndarray) -> Splats:
        """The worker's answer to `avatar.splats`, whose world has head space's axes."""
        turn = matrix_to_quaternion(HEAD_TO_BLENDER[:3, :3]).astype(np.float32)
        return cls(
            points_to_blender(answer["means"]),
            quaternion_multiply(turn, answer["quaternions"]),
            answer["scales"],
            answer["opacities"],
            answer["colors"],
            motion,
        )

    @cached_property
    def covariances(self) -> np.ndarray:
        """(G, 6): xx, xy, xz, yy, yz, zz."""
        axes = quaternion_to_matrix(self.quaternions) * self.scales[:, None, :]
        product = axes @ axes.transpose(0, 2, 1)
        return product.reshape(-1, 9)[:, (0, 1, 2, 4, 5, 8)]


@dataclass(frozen=True)
class Look:
    """How one avatar's splats are to be drawn."""

    kind: str = "SPLATS"
    """One of `KINDS`."""
    scale: float = 1.0
    """Times the size that they have."""
    least_opacity: float = 0.0
    """Fainter ones are left out."""


@dataclass(frozen=True)
class Packed:
    """All splats that are drawn, of one avatar or of several."""

    numbers: np.ndarray
    """(G, NUMBERS): mean and opacity | xx, xy, xz, yy | yz, zz, red, green | blue, kind, 0, 0. Means from `origin`."""
    origin: np.ndarray
    """(3,) float64: the middle, so that single precision serves far from the world's own origin as well."""
    low: np.ndarray
    """(3,) the box that holds every splat as far as it is seen, from `origin`."""
    high: np.ndarray

    @property
    def means(self) -> np.ndarray:
        return self.numbers[:, :3]


def carried(splats: Splats, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (G, 3) float64 and covariances (G, 6), carried rigidly to where the head is by now."""
    means, covariances = splats.means.astype(np.float64), splats.covariances
    if np.allclose(motion, splats.motion, rtol=0, atol=1e-7):
        return means, covariances
    carry = motion @ np.linalg.inv(splats.motion)
    full = covariances[:, (0, 1, 2, 1, 3, 4, 2, 4, 5)].reshape(-1, 3, 3).astype(np.float64)
    full = carry[:3, :3] @ full @ carry[:3, :3].T
    return means @ carry[:3, :3].T + carry[:3, 3], full.reshape(-1, 9)[:, (0, 1, 2, 4, 5, 8)].astype(np.float32)


def pack(shown: Sequence[tuple[Splats, np.ndarray, Look]]) -> Packed | None:
    """Several avatars' splats, each with where its head is and how it is to look; None where nothing is left."""
    parts = []
    for splats, motion, look in shown:
        means, covariances = carried(splats, motion)
        drawn = splats.opacities >= max(ALPHA_MIN, look.least_opacity)
        part = np.zeros((int(drawn.sum()), NUMBERS), np.float32)
        part[:, 3] = splats.opacities[drawn]
        part[:, 4:10] = covariances[drawn] * np.float32(look.scale**2)
        part[:, 10:13] = splats.colors[drawn]
        part[:, 13] = KINDS.index(look.kind)
        parts.append((part, means[drawn]))
    if not sum(len(part) for part, _ in parts):
        return None
    numbers, means = np.concatenate([part for part, _ in parts]), np.concatenate([means for _, means in parts])
    origin = (means.min(0) + means.max(0)) / 2
    numbers[:, :3] = means - origin
    radii = np.float32(REACH) * np.sqrt(numbers[:, (4, 7, 9)])
    return Packed(numbers, origin, (numbers[:, :3] - radii).min(0), (numbers[:, :3] + radii).max(0))
