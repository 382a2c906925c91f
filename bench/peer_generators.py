"""Generators of Gaussians from other papers, in the place of `GaussianBlendshapes`; `bench.peers` trains them.

Each adds a change that depends on the pose to the same free mean. Smoothness is the energy of the mesh graph's
normalised Laplacian, where NPGA has the nearest neighbours of the Gaussians.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from backend.avatar.anchors import AnchorGaussians, appearance_size
from backend.avatar.blendshapes import SPAWNED_SIZE, GaussianBlendshapes
from backend.avatar.encoding import encode_surface, encoded_size
from backend.avatar.graph_avatar import OFFSET_UNIT, GraphAvatar
from backend.avatar.neural_gaussians import SpawnedGaussians
from backend.avatar.posing import condition_size
from backend.head.mesh_graph import MeshHierarchy
from backend.training.parameter_groups import BLENDSHAPE_RATE, LEAKED_GRADIENT, ParameterGroup
from backend.training.unobserved_regions import UnobservedPrior

LATENT_SIZE: Final = 8
"""Numbers of a Gaussian's latent, NPGA's."""
MOVED: Final = 14
"""Numbers that NPGA's network changes in each Gaussian: position 3, scale 3, rotation 4, opacity 1, colour 3."""
POSITION_BANDS, NORMAL_BANDS = 4, 2


class Peer(GaussianBlendshapes):
    """A generator whose attributes are the mean plus `change`, which a subclass defines."""

    def __init__(self, networks: GraphAvatar) -> None:
        """`networks`: those in which it takes the place of the blendshapes."""
        settings, replaced = networks.settings, networks.blendshapes
        assert replaced is not None
        self.conditions = condition_size(replaced.reveals.numel() - 9)
        super().__init__(
            replaced.hierarchy,
            self.conditions,
            appearance_size(networks.harmonics),
            shapes=settings.blendshapes,
            k=settings.neural_per_anchor,
            feature_size=settings.feature_size,
            width=settings.neural_width,
            filters=settings.filters,
            order=settings.chebyshev_order,
        )

    def change(self, conditions: Tensor) -> Tensor:
        """(B, C) -> (B, N, O), or (B, N, O + 3 k) with the motions of the spawned Gaussians."""
        raise NotImplementedError

    def roughness(self, anchors: AnchorGaussians) -> Tensor:
        """The energy () that smoothness keeps small; `anchors` are those of the step."""
        raise NotImplementedError

    def groups(self) -> list[ParameterGroup]:
        """All parameters with the learning rates that blendshapes have: the free mean's, and the networks'."""
        own = [value for name, value in self.named_parameters() if name not in ("mean", "positions")]
        return [
            ParameterGroup([self.mean, self.positions], BLENDSHAPE_RATE * 5e-3, LEAKED_GRADIENT),
            ParameterGroup(own, BLENDSHAPE_RATE * 1e-3),
        ]

    def forward(
        self, conditions: Tensor, beyond: Tensor | None = None
    ) -> tuple[Tensor, Tensor, SpawnedGaussians | None]:
        if beyond is None:
            change = self.regions.changing * self.change(conditions)
        else:
            faces, view = self.regions(conditions[:, :-3]), conditions[:, -3:]
            change = torch.stack(
                [
                    self.regions.shares[:, region, None] * self.change(torch.cat((face, view), 1))
                    for region, face in enumerate(faces.unbind(1))
                ]
            ).sum(0)
        attributes = self.mean + change[..., : sum(self.parts)]
        if beyond is not None:
            attributes = torch.lerp(attributes, self._of_the_rig(), self._shown(beyond))
        geometry, appearance, spawned = attributes.split(self.parts, -1)
        if not self.k:
            return geometry, appearance, None
        motions = change[..., sum(self.parts) :]
        positions = self.positions + motions.unflatten(-1, (self.k, 3)) if motions.shape[-1] else self.positions
        parts = spawned.unflatten(-1, (self.k, SPAWNED_SIZE)).split((1, 3, 3, 4), -1)
        return geometry, appearance, SpawnedGaussians(positions, *parts)

    def _forget(self, *names: str) -> None:
        """Remove what the blendshapes have and this generator has not."""
        for name in names:
            delattr(self, name)


class NeuralDynamics(Peer):
    """NPGA's forward dynamics: one MLP changes each Gaussian from its latent, its place on the head at rest and the
    conditions. The rig's own motion, which is exact and forward, stands for the coarse field that NPGA distils from a
    backward one.
    """

    def __init__(self, networks: GraphAvatar, vertices: Tensor, normals: Tensor, width: int, rate: float) -> None:
        """`vertices` and `normals` (N, 3): of the shaped head at rest."""
        super().__init__(networks)
        self._forget("codes", "decode_middle", "decode_fine", "mix", "shapes")
        self.rate = rate
        self.latents = nn.Parameter(0.1 * torch.randn(len(vertices), 1 + self.k, LATENT_SIZE))
        self.places: Tensor
        self.register_buffer("places", encode_surface(vertices, normals, POSITION_BANDS, NORMAL_BANDS), False)
        self.from_latent = nn.Linear(LATENT_SIZE, width)
        self.from_place = nn.Linear(encoded_size(POSITION_BANDS, NORMAL_BANDS), width, bias=False)
        self.from_conditions = nn.Linear(self.conditions, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, MOVED)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)

    def change(self, conditions: Tensor) -> Tensor:
        known = self.from_latent(self.latents) + self.from_place(self.places)[:, None]
        first = functional.relu(known + self.from_conditions(conditions)[:, None, None])
        moved = self.out(functional.relu(self.hidden(first)))
        batch, vertices = moved.shape[:2]
        anchor, spawned = moved[:, :, 0], moved[:, :, 1:]
        harmonics = moved.new_zeros(batch, vertices, self.parts[1] - 4)
        # Position, scale and rotation, then opacity and colour, as GaussianBlendshapes orders them.
        own = spawned[..., (10, 11, 12, 13, 3, 4, 5, 6, 7, 8, 9)]
        return torch.cat((anchor, harmonics, own.flatten(2), spawned[..., :3].flatten(2)), -1)

    def limit_weights(self, conditions: Tensor) -> None:
        """There are no weights."""

    def roughness(self, anchors: AnchorGaussians) -> Tensor:
        """Of the latents, and of the anchors' motions in OFFSET_UNIT."""
        motions = anchors.offsets / OFFSET_UNIT - self.mean[:, :3]
        return laplacian_energy(self.hierarchy, self.latents.flatten(1)[None]) + laplacian_energy(
            self.hierarchy, motions
        )

    def groups(self) -> list[ParameterGroup]:
        shared = [value for name, value in self.named_parameters() if name not in ("mean", "positions", "latents")]
        free = super().groups()[0]
        return [free, ParameterGroup([self.latents], 5 * self.rate), ParameterGroup(shared, self.rate)]


class FreeShapes(Peer):
    """Linear shapes that are free numbers in every vertex, of which only smoothness ties neighbours together."""

    def __init__(self, networks: GraphAvatar, shapes: int) -> None:
        super().__init__(networks)
        self._forget("codes", "decode_middle", "decode_fine", "latents")
        self.mix[-1] = nn.Linear(networks.settings.neural_width, shapes)
        self.weight_limits = self.weight_limits[:, :1].repeat(1, shapes)
        self.shapes = nn.Parameter(0.02 * torch.randn(shapes, len(self.mean), sum(self.parts)))

    def change(self, conditions: Tensor) -> Tensor:
        return torch.einsum("bk,kno->bno", self.weights(conditions), self.shapes)

    def roughness(self, anchors: AnchorGaussians) -> Tensor:
        return laplacian_energy(self.hierarchy, self.shapes)


class LatentsAlone(Peer):
    """The blendshapes with a latent for each vertex in place of the graph network's features."""

    def __init__(self, networks: GraphAvatar) -> None:
        super().__init__(networks)
        self._forget("codes", "decode_middle", "decode_fine")
        nn.init.normal_(self.latents)

    def change(self, conditions: Tensor) -> Tensor:
        return self.latents @ self._mixed(conditions)

    def roughness(self, anchors: AnchorGaussians) -> Tensor:
        return laplacian_energy(self.hierarchy, self.latents[None])


def laplacian_energy(hierarchy: MeshHierarchy, values: Tensor) -> Tensor:
    """Mean over numbers of values (B, N, C) of x^T L x with the mesh's normalised Laplacian L."""
    columns = values.transpose(0, 1).flatten(1)
    return (columns * (columns + hierarchy.laplacians[0](columns))).mean()


@dataclass(frozen=True)
class SmoothPrior(UnobservedPrior):
    """The prior of unobserved regions, and the smoothness of a peer."""

    roughness: Callable[[AnchorGaussians], Tensor] = field(kw_only=True)
    smoothness: float = field(kw_only=True)

    def loss(self, anchors: AnchorGaussians, neural_opacities: Tensor) -> Tensor:
        return super().loss(anchors, neural_opacities) + self.smoothness * self.roughness(anchors)
