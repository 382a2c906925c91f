"""Warm-up (GraphAvatar section 3.5): free Gaussians on the rig's vertices, then the U-Nets taught to say the same.

Without it the paper gets 8.97 dB: graph networks that have to find colour, place and size at once do not converge.
`VertexBoundGaussians` is also a baseline by itself: Gaussians that the mesh alone moves.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..avatar.anchors import SCALE_CEILING, AnchorGaussians, anchor_scale, as_splats
from ..avatar.encoding import encode_surface
from ..avatar.graph_avatar import OFFSET_UNIT, GraphAvatar
from ..avatar.posing import Pose
from ..splatting.spherical_harmonics import evaluate as evaluate_harmonics
from ..splatting.types import Splats


class VertexBoundGaussians(nn.Module):
    """One Gaussian a vertex, free in place, size, rotation, opacity and spherical harmonics; called as GraphAvatar is."""

    def __init__(self, edge_lengths: Tensor, sh_degree: int) -> None:
        super().__init__()
        anchors = len(edge_lengths)
        self.sh_degree = sh_degree
        harmonics = (sh_degree + 1) ** 2
        self.base_scale: Tensor
        self.register_buffer("base_scale", anchor_scale(edge_lengths), persistent=False)
        # The columns are those of the two U-Nets' outputs, so that they can be compared and copied.
        self.geometry = nn.Parameter(
            torch.cat((torch.zeros(anchors, 6), torch.tensor([[1.0, 0, 0, 0]]).expand(anchors, 4)), 1)
        )
        self.appearance = nn.Parameter(torch.zeros(anchors, 1 + 3 * harmonics))
        with torch.no_grad():
            self.appearance[:, 0] = 1.5

    def forward(self, pose: Pose) -> tuple[Splats, AnchorGaussians]:
        anchors = AnchorGaussians(
            offsets=OFFSET_UNIT * self.geometry[None, :, :3],
            scales=(self.base_scale[:, None] * self.geometry[:, 3:6].exp()).clamp_max(SCALE_CEILING)[None],
            quaternions=self.geometry[None, :, 6:],
            opacities=torch.sigmoid(self.appearance[None, :, 0]),
            harmonics=self.appearance[None, :, 1:].unflatten(-1, (-1, 3)),
        )
        harmonics = anchors.harmonics.expand(len(pose.posed), -1, -1, -1)
        return as_splats(pose, anchors, evaluate_harmonics(self.sh_degree, pose.directions, harmonics)), anchors

    @torch.no_grad()
    def colors(self, pose: Pose) -> Tensor:
        """(N, 3) in [0, 1]: the colour as it is seen in `pose`'s frames on average. The constant harmonic alone is not that: a
        clip shows a vertex from a narrow cone, and what is constant there is shared out among all harmonics.
        """
        direction = functional.normalize(pose.directions.mean(0), dim=-1)
        return evaluate_harmonics(self.sh_degree, direction, self.appearance[:, 1:].unflatten(-1, (-1, 3))).clamp(0, 1)


def hand_over(free: VertexBoundGaussians, networks: GraphAvatar, pose: Pose, steps: int = 25) -> float:
    """Regress the U-Nets' outputs to the free Gaussians by mean squared error; returns the error that is left.

    The last layer's bias is one number a vertex and attribute, so most of the regression has a closed form: the
    target less what the network says at these poses on average. The rest is how the output varies over `pose`'s frames.
    """
    targets = ((networks.geometry, free.geometry.detach()), (networks.appearance, free.appearance.detach()))
    surface = encode_surface(
        pose.canonical, pose.normals, networks.settings.position_bands, networks.settings.normal_bands
    )
    left = 0.0
    for network, target in targets:
        with torch.no_grad():
            network.bias_output.add_(target - network(surface, pose.conditions)[0].mean(0))
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(steps):
            error = (network(surface, pose.conditions)[0] - target).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        left += error.item()
    if networks.neural is not None:
        networks.neural.start_from(free.colors(pose))
    return left
