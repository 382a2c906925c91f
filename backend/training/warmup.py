"""Warm-up (GraphAvatar section 3.5): free Gaussians on the rig's vertices, whose attributes the networks then learn.

Without it the paper gets 8.97 dB, because graph networks that start with unknown colours, positions and sizes do not
converge. Evaluation also uses `VertexBoundGaussians` as a baseline: Gaussians that the mesh alone moves.
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
    """One Gaussian per vertex, whose offset, scale, rotation, opacity and spherical harmonics are free parameters, the
    same in all frames; called like GraphAvatar.
    """

    def __init__(self, edge_lengths: Tensor, sh_degree: int) -> None:
        """`edge_lengths` (N,) metres: `mean_edge_lengths` of the person's mesh, which give the initial scales."""
        super().__init__()
        anchors = len(edge_lengths)
        self.sh_degree = sh_degree
        harmonics = (sh_degree + 1) ** 2
        self.base_scale: Tensor
        self.register_buffer("base_scale", anchor_scale(edge_lengths), persistent=False)
        # Both have the columns of an anchor's attributes of this name from the networks, which start from them.
        # Geometry: offset (in OFFSET_UNIT), log of the scale relative to `base_scale`, quaternion. Appearance: logit of
        # the opacity, spherical harmonics.
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
        """(N, 3) in [0, 1]: the colour of each vertex for the mean of its view directions in the frames of `pose`.

        The constant harmonic alone is not this colour: a clip shows each vertex from a narrow cone of directions only,
        within which the other harmonics are almost constant too and contribute to the mean colour.
        """
        direction = functional.normalize(pose.directions.mean(0), dim=-1)
        return evaluate_harmonics(self.sh_degree, direction, self.appearance[:, 1:].unflatten(-1, (-1, 3))).clamp(0, 1)


def distil_into_networks(free: VertexBoundGaussians, networks: GraphAvatar, pose: Pose, steps: int = 25) -> float:
    """Start the networks from the free Gaussians, and the neural or spawned Gaussians from their colours, flat on the
    surface.

    The mean of blendshapes is moved there. U-Nets are regressed: their output bias has one number per vertex and
    attribute, so most of the regression has a closed form. The target minus the network's mean output over the frames
    of `pose` is added to the bias. Then `steps` steps of Adam reduce how much the outputs vary between these frames.
    Returns the mean squared error of the last step, summed over the two U-Nets, and 0 for blendshapes.
    """
    # Those of the rest pose are unlike these by what the jaw turns the chin.
    normals = functional.normalize(pose.normals.mean(0), dim=-1)
    if networks.blendshapes is not None:
        target = torch.cat((free.geometry, free.appearance), 1).detach()
        networks.blendshapes.start_from(target, free.colors(pose), normals, pose.conditions)
        return 0.0
    targets = ((networks.geometry, free.geometry.detach()), (networks.appearance, free.appearance.detach()))
    surface = encode_surface(
        pose.canonical, pose.normals, networks.settings.position_bands, networks.settings.normal_bands
    )
    remaining = 0.0
    for network, target in targets:
        with torch.no_grad():
            network.bias_output.add_(target - network(surface, pose.conditions)[0].mean(0))
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(steps):
            error = (network(surface, pose.conditions)[0] - target).square().mean()
            optimizer.zero_grad()
            error.backward()
            optimizer.step()
        remaining += error.item()
    if networks.neural is not None:
        networks.neural.start_from(free.colors(pose), normals)
    return remaining
