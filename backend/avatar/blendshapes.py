"""Gaussian blendshapes: the attributes of all Gaussians as a mean and K shapes that a small network of the pose
weights.

    attributes of anchor v = mean_v + sum_k w_k(conditions) f_v B_k

f_v is a feature of the anchor: the output of a graph network that decodes a learnt code per coarse vertex, plus a
latent of the vertex alone (NPGA). B_k maps features to attributes. The graph network therefore runs once for all frames
of a step, and never in an animation; shapes are smooth over the mesh where nothing asks for detail; and K shapes take
as many numbers as the rank of their features, not K times the attributes. RGBAvatar and Gaussian Deja-vu learn such
shapes without a graph. Anchors that no shape changes, the mouth's inside, have the mean alone
(`FilmedRegions.changing`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..head.chebyshev import ChebyshevConvolution
from ..head.mesh_graph import MeshHierarchy, sample
from ..splatting.spherical_harmonics import C0
from .anchors import GEOMETRY_SIZE, SOLID_LOGIT
from .filmed import unlimited_expressions
from .filmed_regions import FilmedRegions
from .neural_gaussians import SpawnedGaussians, lay_flat

SPAWNED_SIZE = 11
"""Numbers of a spawned Gaussian: opacity 1, colour 3, scale 3, quaternion 4."""
UNDRAWN = -5.0
"""Opacity of a spawned Gaussian before the activation, from which no gradient leads back."""


class GaussianBlendshapes(nn.Module):
    """Conditions (B, C) -> geometry (B, N, GEOMETRY_SIZE) and appearance (B, N, A) of the anchors, and the k Gaussians
    that each spawns, None if k = 0.
    """

    def __init__(
        self,
        hierarchy: MeshHierarchy,
        conditions: int,
        appearance_size: int,
        *,
        shapes: int,
        k: int,
        feature_size: int,
        width: int,
        filters: int,
        order: int,
    ) -> None:
        super().__init__()
        self.hierarchy, self.k = hierarchy, k
        self.parts = (GEOMETRY_SIZE, appearance_size, SPAWNED_SIZE * k)
        fine, _, coarse = hierarchy.sizes
        self.codes = nn.Parameter(torch.randn(coarse, filters))
        self.decode_middle = ChebyshevConvolution(filters, filters, order)
        self.decode_fine = ChebyshevConvolution(filters, feature_size, order)
        self.latents = nn.Parameter(0.1 * torch.randn(fine, feature_size))
        self.mix = nn.Sequential(nn.Linear(conditions, width), nn.ELU(), nn.Linear(width, shapes))
        # Small against the Gaussians of the warm-up.
        self.shapes = nn.Parameter(0.02 * torch.randn(shapes, feature_size, sum(self.parts)))
        self.mean = nn.Parameter(torch.zeros(fine, sum(self.parts)))
        self.positions = nn.Parameter(0.7 * torch.randn(fine, k, 3))
        self.weight_limits: Tensor
        self.register_buffer("weight_limits", unlimited_expressions(shapes))
        """(2, K): the smallest and the largest weights in the training frames."""
        self.materials: Tensor
        self.register_buffer("materials", torch.zeros(fine, 4))
        """(N, 4): an anchor's colour on the rig, RGB, and how far it takes it, 0 to 1, where a face shows what the clip
        never did. Only the tongue does."""
        self.reveals: Tensor
        self.register_buffer("reveals", torch.zeros(conditions - 3))
        """(E + 9,): which of `Pose.beyond` show it: the tongue that comes out."""
        self.regions = FilmedRegions(fine, conditions - 3)
        if k:
            with torch.no_grad():
                spawned = self._spawned_mean()
                # An opacity of tanh(0.2), faint enough not to cover the anchors; and no rotation.
                spawned[..., 0] = 0.2
                spawned[..., 7] = 1.0

    def _spawned_mean(self) -> Tensor:
        """(N, k, SPAWNED_SIZE): a view of the mean."""
        return self.mean[:, -SPAWNED_SIZE * self.k :].unflatten(-1, (self.k, SPAWNED_SIZE))

    @torch.no_grad()
    def spawn_nothing(self, vertices: Tensor) -> None:
        """These vertices (M,) have their anchors alone from here on: what they spawn is never drawn."""
        if self.k:
            self._spawned_mean()[vertices, :, 0] = UNDRAWN

    @property
    def has_graph(self) -> bool:
        """Whether the graph network adds anything to the latents."""
        return any(bool(parameter.any()) for parameter in self.decode_fine.parameters())

    def features(self) -> Tensor:
        """(N, feature_size) of all anchors."""
        graph = self.hierarchy
        x = sample(graph.ups[1], self.codes[None])
        x = functional.elu(self.decode_middle(x, graph.laplacians[1]))
        x = sample(graph.ups[0], x)
        return self.decode_fine(x, graph.laplacians[0])[0] + self.latents

    def weights(self, conditions: Tensor) -> Tensor:
        """(B, K) of the shapes."""
        return self.mix(conditions).clamp(self.weight_limits[0], self.weight_limits[1])

    def forward(
        self, conditions: Tensor, beyond: Tensor | None = None
    ) -> tuple[Tensor, Tensor, SpawnedGaussians | None]:
        """`beyond` (B, C - 3) as in `Pose`."""
        if beyond is None:
            attributes = self.mean + self.regions.changing * self.features() @ self._mixed(conditions)
        else:
            attributes = self._of_regions(conditions)
            attributes = torch.lerp(attributes, self._of_the_rig(), self._shown(beyond))
        geometry, appearance, spawned = attributes.split(self.parts, -1)
        if not self.k:
            return geometry, appearance, None
        parts = spawned.unflatten(-1, (self.k, SPAWNED_SIZE)).split((1, 3, 3, 4), -1)
        return geometry, appearance, SpawnedGaussians(self.positions, *parts)

    def _mixed(self, conditions: Tensor) -> Tensor:
        """(B, C) -> (B, feature_size, O)."""
        return torch.einsum("bk,kfo->bfo", self.weights(conditions), self.shapes)

    def _of_regions(self, conditions: Tensor) -> Tensor:
        """(B, C) -> attributes (B, N, O), where each region has a face of its own."""
        faces, attributes, features = self.regions(conditions[:, :-3]), self.mean, self.features()
        for region, face in enumerate(faces.unbind(1)):
            own = self.regions.shares[:, region, None] * features
            attributes = attributes + own @ self._mixed(torch.cat((face, conditions[:, -3:]), 1))
        return attributes

    @torch.no_grad()
    def limit_weights(self, conditions: Tensor) -> None:
        """Limit the weights to their range in frames `conditions` (F, C)."""
        weights = self.mix(conditions)
        self.weight_limits.copy_(torch.stack((weights.amin(0), weights.amax(0))))

    def _of_the_rig(self) -> Tensor:
        """(N, O): solid anchors of the rig's materials on the surface, without spawned Gaussians."""
        attributes = torch.zeros_like(self.mean)
        attributes[:, 6] = 1.0
        attributes[:, GEOMETRY_SIZE] = SOLID_LOGIT
        attributes[:, GEOMETRY_SIZE + 1 : GEOMETRY_SIZE + 4] = (self.materials[:, :3] - 0.5) / C0
        if self.k:
            attributes[:, -SPAWNED_SIZE * self.k :].unflatten(-1, (self.k, SPAWNED_SIZE))[..., 7] = 1.0
        return attributes

    def _shown(self, beyond: Tensor) -> Tensor:
        """(B, N, 1): how far each anchor takes the rig's material."""
        most = (beyond * self.reveals).amax(1)
        return (most.square() * (3 - 2 * most))[:, None, None] * self.materials[:, 3:]

    @torch.no_grad()
    def start_from(self, anchors: Tensor, colors: Tensor, normals: Tensor, conditions: Tensor) -> None:
        """Move the mean so that the anchors' attributes (N, GEOMETRY_SIZE + A) are these in the mean of some frames
        `conditions` (B, C), and the spawned Gaussians have the anchors' colours (N, 3) in [0, 1] and lie flat on a
        surface with these `normals` (N, 3) in the rest pose.
        """
        geometry, appearance, _ = self(conditions)
        self.mean[:, : anchors.shape[1]] += anchors - torch.cat((geometry, appearance), 2).mean(0)
        if self.k:
            _, color, scale, rotation = self._spawned_mean().split((1, 3, 3, 4), -1)
            color.copy_(torch.logit(colors.clamp(0.02, 0.98))[:, None])
            lay_flat(self.positions, scale, rotation, normals)
