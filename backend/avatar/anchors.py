"""Anchor Gaussians: one per vertex of the rig, produced by the free Gaussians of the warm-up and by the
networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from ..head.rotations import quaternion_multiply
from ..splatting.types import Splats
from .posing import Pose, rotate

SCALE_CEILING = 0.02
"""Metres. No Gaussian of a head needs to be larger; without a limit, single ones grow until they cover whole frames."""

GEOMETRY_SIZE = 10
"""Numbers of an anchor's geometry from a network: offset 3, log scale 3, quaternion 4."""

SOLID_LOGIT = 3.0
"""Logit of the opacity of anchors that hide what is behind them."""


def appearance_size(harmonics: int) -> int:
    """Numbers of an anchor's appearance from a network: the logit of its opacity, and spherical harmonics."""
    return 1 + 3 * harmonics


@dataclass(frozen=True)
class AnchorGaussians:
    """N Gaussians of B frames, each relative to its vertex in the rest pose."""

    offsets: Tensor
    """(B, N, 3) metres from the vertex."""
    scales: Tensor
    """(B, N, 3) metres."""
    quaternions: Tensor
    """(B, N, 4) w, x, y, z; not normalised."""
    opacities: Tensor
    """(B, N)"""
    harmonics: Tensor
    """(B, N, (degree + 1)^2, 3)"""


def anchor_scale(edge_lengths: Tensor) -> Tensor:
    """(N,) metres: half of the mean edge length, at which neighbours overlap to a closed surface."""
    return (0.5 * edge_lengths).clamp(2e-4, 0.5 * SCALE_CEILING)


def mean_edge_lengths(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Vertices (N, 3) and triangles (F, 3) -> (N,) mean length of the edges at each vertex."""
    start = faces[:, (0, 1, 2)].reshape(-1)
    end = faces[:, (1, 2, 0)].reshape(-1)
    lengths = np.linalg.norm(vertices[start] - vertices[end], axis=1)
    total = np.zeros(len(vertices))
    count = np.zeros(len(vertices))
    for side in (start, end):
        np.add.at(total, side, lengths)
        np.add.at(count, side, 1)
    return (total / np.maximum(count, 1)).astype(np.float32)


def as_splats(pose: Pose, anchors: AnchorGaussians, colors: Tensor) -> Splats:
    """Transform the anchors from the rest pose to the posed mesh. `colors` (B, N, 3)."""
    batch = len(pose.posed)
    own = functional.normalize(anchors.quaternions, dim=-1)
    return Splats(
        means=pose.posed + rotate(pose.rotations, anchors.offsets),
        quaternions=quaternion_multiply(pose.rotations, own.expand(batch, -1, -1)),
        scales=anchors.scales.expand(batch, -1, -1),
        opacities=anchors.opacities.expand(batch, -1),
        colors=colors,
    )
