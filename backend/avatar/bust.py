"""The bust: Gaussians of collar and shoulders below the head's neck, and of hair that hangs there.

They are no part of the head's mesh, so nothing that is measured of the head changes with them. Each follows three
joints by weights of its own: the root, which carries the rig's neck ring, the neck, which hair hangs from, and the
torso, whose motion a track holds (`Track.torso_to_camera`) and an artist poses by the bone `torso`. They neither change
with the expression nor with the view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from ..head.model import NECK
from ..head.rotations import axis_angle_to_matrix, quaternion_multiply
from ..reading import Damaged
from ..splatting.types import Splats
from .posing import blend_rotations

PREFIX = "baked.bust_"
"""Of the tensors in an avatar's file: programs that know of no bust read the rest."""
MOST = 100_000
"""Gaussians of a bust in a file; training makes a few thousand."""
_WIDTHS = {"means": 3, "scales": 3, "quaternions": 4, "opacities": 0, "colors": 3, "weights": 3}


@dataclass(frozen=True)
class Bust:
    """M Gaussians at rest, in head space, metres."""

    means: Tensor
    """(M, 3)"""
    scales: Tensor
    """(M, 3) standard deviations."""
    quaternions: Tensor
    """(M, 4) w, x, y, z"""
    opacities: Tensor
    """(M,)"""
    colors: Tensor
    """(M, 3)"""
    weights: Tensor
    """(M, 3): how much each follows root, neck and torso; the sum is 1."""

    def __len__(self) -> int:
        return len(self.means)

    def posed(self, rotations: Tensor, joints: Tensor, torso: Tensor) -> Splats:
        """Rotations (B, 5, 3) axis-angle of the head's joints at `joints` (5, 3), whose root is at rest, and motions
        (B, 4, 4) of the torso -> Splats in head space.
        """
        motions = torch.eye(4, device=torso.device).repeat(len(torso), 3, 1, 1)
        turn = axis_angle_to_matrix(rotations[:, NECK])
        motions[:, 1, :3, :3], motions[:, 1, :3, 3] = turn, joints[NECK] - turn @ joints[NECK]
        motions[:, 2] = torso
        blended = torch.einsum("mj,bjcd->bmcd", self.weights, motions[:, :, :3])
        means = (blended[..., :3] @ self.means[:, :, None])[..., 0] + blended[..., 3]
        turns = blend_rotations(self.weights, motions[:, :, :3, :3])
        own = functional.normalize(self.quaternions, dim=-1).expand(len(torso), -1, -1)
        return Splats(
            means=means,
            quaternions=quaternion_multiply(turns, own),
            scales=self.scales.expand(len(torso), -1, -1),
            opacities=self.opacities.expand(len(torso), -1),
            colors=self.colors.expand(len(torso), -1, -1),
        )

    def nearest(self, vertices: Tensor) -> Tensor:
        """(M,) the nearest of vertices (N, 3) at rest."""
        return torch.cdist(self.means, vertices).argmin(1)

    def to(self, device: torch.device) -> Bust:
        return Bust(*(part.to(device) for part in vars(self).values()))

    def tensors(self) -> dict[str, Tensor]:
        """By their names in an avatar's file."""
        return {f"{PREFIX}{name}": part.detach().cpu().half().contiguous() for name, part in vars(self).items()}


def joined(head: Splats, bust: Splats) -> Splats:
    """The Gaussians of the head, then those of the bust."""
    return Splats(*(torch.cat(pair, 1) for pair in zip(vars(head).values(), vars(bust).values(), strict=True)))


def bust_from(tensors: Mapping[str, Tensor]) -> Bust | None:
    """The bust among a file's tensors; None where there is none. Raises `Damaged` for one that nobody has trained."""
    if not any(name.startswith(PREFIX) for name in tensors):
        return None
    try:
        parts = {each.name: tensors[f"{PREFIX}{each.name}"].float() for each in fields(Bust)}
    except KeyError as error:
        raise Damaged("its bust is incomplete") from error
    count = len(parts["opacities"]) if parts["opacities"].ndim else 0
    shapes = {name: (count, width) if width else (count,) for name, width in _WIDTHS.items()}
    if not 0 < count <= MOST or shapes != {name: tuple(part.shape) for name, part in parts.items()}:
        raise Damaged("the parts of its bust do not fit each other")
    if not all(part.isfinite().all() for part in parts.values()):
        raise Damaged("its bust holds numbers that are not finite")
    return Bust(**parts)
