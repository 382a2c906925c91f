"""Neural Gaussians (GraphAvatar section 3.2, after Scaffold-GS): k more Gaussians spawned by every anchor.

They represent what lies off the mesh, within `training.losses.AnchorLimits`: hair, glasses, the outline. A position is
anchor + learned offset x anchor scale.
Opacity, colour, scale and rotation come from one small MLP each, F(f_anchor, d, e), with f a learned feature of the
anchor, d the direction from the camera to it and e the expression. Each MLP's last layer has one bias per Gaussian, so
that constant attributes, such as the colour of a strand of hair, need not be encoded in 16 features.

The first layer is split: W_f f + W_d d + W_e e. The term of e is the same for all anchors of a frame and the term of f
is the same for all frames, so neither is computed N x B times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..head.rotations import quaternion_multiply
from ..splatting.types import Splats
from .posing import Pose, rotate

FLATNESS: Final = 0.4
"""Scale along the normal at which a spawned Gaussian starts, in units of the anchor's."""
NEARNESS: Final = 0.2
"""Share of its distance along the normal that it keeps. Round and away from the surface as they were, most began far
beyond `AnchorLimits`, and a training of few steps spent them on pulling these back."""


@dataclass(frozen=True)
class SpawnedGaussians:
    """k Gaussians of each of N anchors in B frames, as a network makes them: before the activations."""

    positions: Tensor
    """(N, k, 3) in units of the anchors' scales, about the anchors."""
    opacity: Tensor
    """(B, N, k, 1) whose hyperbolic tangent is the opacity; without positive opacity, a Gaussian is not drawn."""
    color: Tensor
    """(B, N, k, 3) logits."""
    scale: Tensor
    """(B, N, k, 3) logits of half the scale in units of the anchor's."""
    rotation: Tensor
    """(B, N, k, 4) w, x, y, z; not normalised."""

    def splats(self, pose: Pose, offsets: Tensor, anchor_scales: Tensor) -> Splats:
        """(B, N k) splats. `offsets` (B, N, 3) of the anchors in the rest pose, and their scales (B, N, 3), both in
        metres.
        """
        # Gaussians without positive opacity are culled for this frame (the rasteriser skips opacity 0).
        opacities = torch.tanh(self.opacity).squeeze(-1).clamp_min(0)
        scales = anchor_scales[:, :, None] * 2 * torch.sigmoid(self.scale)
        local = offsets[:, :, None] + self.positions * anchor_scales[:, :, None]
        means = pose.posed[:, :, None] + rotate(pose.rotations[:, :, None], local)
        quaternions = compose(pose.rotations[:, :, None], self.rotation)
        parts = (means, quaternions, scales, opacities, torch.sigmoid(self.color))
        return Splats(*(part.flatten(1, 2) for part in parts))


class _Attribute(nn.Module):
    """One MLP: (features (N, f), directions (B, N, 3), conditions (B, c)) -> (B, N, k, outputs)."""

    def __init__(self, anchors: int, feature_size: int, conditions: int, width: int, k: int, outputs: int) -> None:
        super().__init__()
        self.shape = (k, outputs)
        self.from_feature = nn.Linear(feature_size, width)
        self.from_direction = nn.Linear(3, width, bias=False)
        self.from_condition = nn.Linear(conditions, width, bias=False)
        self.out = nn.Linear(width, k * outputs, bias=False)
        self.bias = nn.Parameter(torch.zeros(anchors, k * outputs))
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, features: Tensor, directions: Tensor, conditions: Tensor) -> Tensor:
        hidden = (
            self.from_feature(features) + self.from_direction(directions) + self.from_condition(conditions)[:, None]
        )
        return (self.out(functional.relu(hidden)) + self.bias).unflatten(-1, self.shape)


class NeuralGaussians(nn.Module):
    """Pose of B frames -> k Gaussians of each of N anchors."""

    def __init__(self, anchors: int, conditions: int, *, k: int, feature_size: int, width: int) -> None:
        super().__init__()
        self.k = k
        self.features = nn.Parameter(torch.randn(anchors, feature_size) * 0.1)
        self.offsets = nn.Parameter(torch.randn(anchors, k, 3) * 0.7)
        sizes = (anchors, feature_size, conditions, width, k)
        self.opacity = _Attribute(*sizes, 1)
        self.color = _Attribute(*sizes, 3)
        self.scale = _Attribute(*sizes, 3)
        self.rotation = _Attribute(*sizes, 4)
        with torch.no_grad():
            # An initial opacity of tanh(0.2), faint enough not to cover the anchors.
            self.opacity.bias.fill_(0.2)
            self.rotation.bias.unflatten(-1, (k, 4))[..., 0] = 1.0

    @torch.no_grad()
    def start_from(self, anchor_colors: Tensor, normals: Tensor) -> None:
        """Initialise the colours from the anchors' colours (N, 3) in [0, 1], which the warm-up found, and lay the
        Gaussians flat on a surface with these `normals` (N, 3) in the rest pose.
        """
        logits = torch.logit(anchor_colors.clamp(0.02, 0.98))
        self.color.bias.copy_(logits.repeat(1, self.k))
        scale, rotation = (part.bias.unflatten(-1, part.shape) for part in (self.scale, self.rotation))
        lay_flat(self.offsets, scale, rotation, normals)

    def forward(self, pose: Pose) -> SpawnedGaussians:
        inputs = (self.features, pose.directions, pose.conditions)
        return SpawnedGaussians(
            self.offsets, self.opacity(*inputs), self.color(*inputs), self.scale(*inputs), self.rotation(*inputs)
        )


@torch.no_grad()
def lay_flat(positions: Tensor, scale: Tensor, rotation: Tensor, normals: Tensor) -> None:
    """Bring Gaussians that start at random `positions` (N, k, 3) near to the surface and make them thin across it, in
    place. For `scale` (N, k, 3) and `rotation` (N, k, 4) see `SpawnedGaussians`; `normals` (N, 3) are unit vectors in
    the rest pose.
    """
    normal = normals[:, None]
    positions -= (1 - NEARNESS) * (positions * normal).sum(-1, keepdim=True) * normal
    # The rotation from the z axis to the normal has the axis z x normal, and half of the angle between them. To -z
    # leads any half turn about an axis across z.
    axis = functional.pad(torch.stack((-normals[:, 1], normals[:, 0]), -1), (0, 1))
    turn = torch.cat((1 + normals[:, 2:], axis), -1)
    turn = torch.where(turn.norm(dim=-1, keepdim=True) > 1e-3, turn, turn.new_tensor((0.0, 1.0, 0.0, 0.0)))
    rotation.copy_(functional.normalize(turn, dim=-1)[:, None])
    scale[..., 2] = torch.logit(torch.tensor(FLATNESS / 2))


def compose(anchor: Tensor, own: Tensor) -> Tensor:
    """Quaternion (..., 4) of a Gaussian's own rotation `own`, of any length, followed by its anchor's rotation."""
    return quaternion_multiply(anchor.expand(*own.shape[:-1], 4), functional.normalize(own, dim=-1))
