"""The Gaussians of an avatar in Blender's world, as numpy arrays. This module uses neither `bpy` nor `gpu`.

`Splats` are the Gaussians of one pose as the worker, or a bake, returned them. `moved_with_head` moves them with the
head to its current position. `pack` lays out the numbers for the texture from which they are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from ..grade import Grade
from ..rig.conventions import HEAD_TO_BLENDER, points_to_blender
from ..rig.rotations import matrix_to_quaternion, quaternion_multiply, quaternion_rows

ALPHA_MIN: Final = 1 / 255
"""Splats with a lower opacity are never drawn, as in `backend.splatting.reference`."""
CUTOFF: Final = float(np.sqrt(2 * np.log(255.0)))
"""Distance in standard deviations at which an opaque splat falls below `ALPHA_MIN`."""
DRAW_KINDS: Final = ("SPLATS", "ELLIPSOIDS", "POINTS", "DEPTH")
"""How a splat is drawn; the shader gets the index in this tuple."""
FLOATS_PER_SPLAT: Final = 16
"""In the texture: four texels."""


@dataclass(frozen=True)
class Splats:
    """The G Gaussians of one pose, in Blender's world and axes; float32."""

    means: np.ndarray
    """(G, 3) metres."""
    quaternions: np.ndarray
    """(G, 4) w, x, y, z; not necessarily of unit length."""
    scales: np.ndarray
    """(G, 3) standard deviations, metres."""
    opacities: np.ndarray
    """(G,)"""
    colors: np.ndarray
    """(G, 3) sRGB-encoded, as the networks were trained; not clamped to [0, 1]."""
    motion: np.ndarray
    """(4, 4) `RigPose.head_motion` of the pose, a similarity transformation in Blender's world."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, np.ndarray], motion: np.ndarray) -> Splats:
        """From the worker's answer to `avatar.splats`, which is in the world but with the axes of head space. `motion`
        (4, 4) is `RigPose.head_motion` of the requested pose.
        """
        rotation = matrix_to_quaternion(HEAD_TO_BLENDER[:3, :3]).astype(np.float32)
        return cls(
            points_to_blender(answer["means"]),
            quaternion_multiply(rotation, answer["quaternions"]),
            answer["scales"],
            answer["opacities"],
            answer["colors"],
            motion,
        )

    def graded(self, grade: Grade) -> Splats:
        return self if grade.neutral else replace(self, colors=grade.colors(self.colors))

    @cached_property
    def covariances(self) -> np.ndarray:
        """(G, 6) square metres: xx, xy, xz, yy, yz, zz."""
        # Rows of G numbers: a product of G small matrices takes ten times as long.
        axes = quaternion_rows(np.ascontiguousarray(self.quaternions.T)) * self.scales.T
        pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
        return np.stack([(axes[i] * axes[j]).sum(0) for i, j in pairs], -1)


@dataclass(frozen=True)
class DrawStyle:
    """How the splats of one avatar are drawn."""

    kind: str = "SPLATS"
    """One of `DRAW_KINDS`."""
    scale: float = 1.0
    """Factor on their size."""
    min_opacity: float = 0.0
    """Splats with a lower opacity are not drawn."""


@dataclass(frozen=True)
class PackedSplats:
    """All splats that are drawn, of one or several avatars, in the texture's layout."""

    values: np.ndarray
    """(G, FLOATS_PER_SPLAT) by texel: mean x, y, z, opacity | covariance xx, xy, xz, yy | yz, zz, red, green | blue,
    draw kind, 0, 0. Means are relative to `origin`."""
    origin: np.ndarray
    """(3,) float64: the centre, so that single precision is enough far from the world's origin as well."""
    box_min: np.ndarray
    """(3,) lower corner, relative to `origin`, of the box around the visible extent of every splat."""
    box_max: np.ndarray
    """(3,) upper corner."""

    @property
    def means(self) -> np.ndarray:
        return self.values[:, :3]


def moved_with_head(splats: Splats, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means (G, 3) float64 and covariances (G, 6), moved from the head's position `splats.motion` to its current
    `motion` (4, 4). Both are similarity transformations, so that a change of the rig's scale also scales the splats.
    """
    means, covariances = splats.means.astype(np.float64), splats.covariances
    if np.allclose(motion, splats.motion, rtol=0, atol=1e-7):
        return means, covariances
    relative = motion @ np.linalg.inv(splats.motion)
    full = covariances[:, (0, 1, 2, 1, 3, 4, 2, 4, 5)].reshape(-1, 3, 3).astype(np.float64)
    full = relative[:3, :3] @ full @ relative[:3, :3].T
    return means @ relative[:3, :3].T + relative[:3, 3], full.reshape(-1, 9)[:, (0, 1, 2, 4, 5, 8)].astype(np.float32)


def pack(avatars: Sequence[tuple[Splats, np.ndarray, DrawStyle]]) -> PackedSplats | None:
    """Packs the splats of several avatars, each with its head's current motion (4, 4) and its style. None if no splat
    remains to be drawn.
    """
    parts = []
    for splats, motion, style in avatars:
        means, covariances = moved_with_head(splats, motion)
        drawn = np.flatnonzero(splats.opacities >= max(ALPHA_MIN, style.min_opacity))
        part = np.zeros((len(drawn), FLOATS_PER_SPLAT), np.float32)
        part[:, 3] = splats.opacities[drawn]
        part[:, 4:10] = covariances[drawn] * np.float32(style.scale**2)
        part[:, 10:13] = splats.colors[drawn]
        part[:, 13] = DRAW_KINDS.index(style.kind)
        parts.append((part, means[drawn]))
    if not sum(len(part) for part, _ in parts):
        return None
    values, means = np.concatenate([part for part, _ in parts]), np.concatenate([means for _, means in parts])
    # By columns: numpy reduces an array of many short rows ten times as slowly.
    origin = np.array([(column.min() + column.max()) / 2 for column in means.T])
    values[:, :3] = means - origin
    radii = np.float32(CUTOFF) * np.sqrt(values[:, (4, 7, 9)])
    low, high = (values[:, :3] - radii).T, (values[:, :3] + radii).T
    return PackedSplats(
        values, origin, np.array([column.min() for column in low]), np.array([column.max() for column in high])
    )
