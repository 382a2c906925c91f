"""Neural Gaussians (GraphAvatar section 3.2, after Scaffold-GS): k more Gaussians spawned by every anchor.

They stand where the mesh has no vertices: hair, glasses, the outline. Place: anchor + offset x anchor scale, the offsets learned. Opacity,
colour, scale and rotation come from one small MLP each, F(f_anchor, d, e), with f a learned feature of the anchor, d the direction from
the camera to it and e the expression. Each MLP's last layer has a bias for each Gaussian, so that what never changes (the
colour of a strand of hair) is not left to 16 shared features.

The first layer is split: W_f f + W_d d + W_e e. The part of e is the same for all anchors of a frame and that of f the
same for all frames, so neither is computed N x B times.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..head.rotations import quaternion_multiply
from ..splatting.types import Splats
from .posing import Pose, rotate


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
    """(pose, anchor means, anchor scales) -> Splats of N x k Gaussians."""

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
            # tanh(0.2): faint, so that they begin by helping the anchors and not by covering them.
            self.opacity.bias.fill_(0.2)
            self.rotation.bias.unflatten(-1, (k, 4))[..., 0] = 1.0

    @torch.no_grad()
    def start_from(self, anchor_colors: Tensor) -> None:
        """Begin with the colours (N, 3) that the warm-up found for the anchors."""
        logits = torch.logit(anchor_colors.clamp(0.02, 0.98))
        self.color.bias.copy_(logits.repeat(1, self.k))

    def forward(self, pose: Pose, offsets: Tensor, anchor_scales: Tensor) -> Splats:
        """`offsets` (B, N, 3): the anchors' own, in the frame at rest; `anchor_scales` (B, N, 3), metres."""
        inputs = (self.features, pose.directions, pose.conditions)
        # tanh, and what is not positive is culled for this frame (the rasteriser skips opacity 0).
        opacities = torch.tanh(self.opacity(*inputs)).squeeze(-1).clamp_min(0)
        colors = torch.sigmoid(self.color(*inputs))
        scales = anchor_scales[:, :, None] * 2 * torch.sigmoid(self.scale(*inputs))
        local = offsets[:, :, None] + self.offsets * anchor_scales[:, :, None]
        means = pose.posed[:, :, None] + rotate(pose.rotations[:, :, None], local)
        quaternions = compose(pose.rotations[:, :, None], self.rotation(*inputs))
        return Splats(*(part.flatten(1, 2) for part in (means, quaternions, scales, opacities, colors)))


def compose(anchor: Tensor, own: Tensor) -> Tensor:
    """Anchor rotation after a Gaussian's own (not yet normalised) one."""
    return quaternion_multiply(anchor.expand(*own.shape[:-1], 4), functional.normalize(own, dim=-1))
