"""GraphAvatar: two graph U-Nets predict the anchor Gaussians of a posed mesh, and small MLPs spawn neural Gaussians
near them; or Gaussian blendshapes make both (`backend.avatar.blendshapes`).

Wei et al., "GraphAvatar: Compact Head Avatars with GNN-Generated 3D Gaussians" (AAAI 2025), sections 3.1 to 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..head.mesh_graph import MeshHierarchy
from ..splatting.spherical_harmonics import evaluate as evaluate_harmonics
from ..splatting.types import Splats
from .anchors import GEOMETRY_SIZE, SCALE_CEILING, AnchorGaussians, anchor_scale, appearance_size, as_splats
from .blendshapes import GaussianBlendshapes
from .encoding import encode_surface, encoded_size
from .enhancer import Enhancer
from .filmed import unlimited_expressions, unlimited_faces
from .graph_unet import GraphUNet
from .neural_gaussians import NeuralGaussians
from .posing import Pose, condition_size
from .settings import AvatarSettings
from .views import UNLIMITED_VIEWS, clamp_view

OFFSET_UNIT = 0.01
"""Metres of an anchor's offset for a network output of 1, so that all outputs have the same order of magnitude."""


class GraphAvatar(nn.Module):
    """Pose of B frames -> Splats of N (1 + k) Gaussians: the N anchors first, then k for each anchor."""

    def __init__(
        self, settings: AvatarSettings, hierarchy: MeshHierarchy, expression_size: int, edge_lengths: Tensor
    ) -> None:
        """`edge_lengths` (N,) metres: mean length of the edges at each vertex of the shaped head."""
        super().__init__()
        self.settings = settings
        anchors, k = hierarchy.sizes[0], settings.neural_per_anchor
        conditions = condition_size(expression_size)
        self.harmonics = (settings.sh_degree + 1) ** 2
        self.blendshapes: GaussianBlendshapes | None = None
        """In place of the U-Nets and of the MLPs of the neural Gaussians."""
        if settings.blendshapes:
            self.blendshapes = GaussianBlendshapes(
                hierarchy,
                conditions,
                appearance_size(self.harmonics),
                shapes=settings.blendshapes,
                k=k,
                feature_size=settings.feature_size,
                width=settings.neural_width,
                filters=settings.filters,
                order=settings.chebyshev_order,
            )
        else:
            inputs = encoded_size(settings.position_bands, settings.normal_bands)
            sizes = {
                "filters": settings.filters,
                "latent_size": settings.latent_size,
                "order": settings.chebyshev_order,
            }
            self.geometry = GraphUNet(hierarchy, inputs, conditions, GEOMETRY_SIZE, **sizes)
            self.appearance = GraphUNet(hierarchy, inputs, conditions, appearance_size(self.harmonics), **sizes)
            self.neural = (
                NeuralGaussians(
                    anchors, conditions, k=k, feature_size=settings.feature_size, width=settings.neural_width
                )
                if k
                else None
            )
        self.enhancer = Enhancer(settings.enhancer_width) if settings.enhancer_width else None
        """Not part of `forward`, because it works on images; see `backend.avatar.enhancer.enhance`."""
        self.views = nn.Parameter(UNLIMITED_VIEWS.clone(), requires_grad=False)
        self.performed = nn.Parameter(unlimited_expressions(conditions - 3), requires_grad=False)
        """Ranges of views and of expressions in the training frames (`backend.avatar.views` and `filmed`); parameters,
        so that they are saved in the avatar's file."""
        self.filmed: Tensor
        self.register_buffer("filmed", unlimited_faces(conditions - 3))
        self.base_scale: Tensor
        self.register_buffer("base_scale", anchor_scale(edge_lengths), persistent=False)

    def anchors(self, pose: Pose) -> AnchorGaussians:
        """The anchor Gaussians for a pose, relative to the vertices in the rest pose."""
        if self.blendshapes is not None:
            return self._anchors(*self.blendshapes(pose.conditions, pose.beyond)[:2])
        surface = self._surface(pose)
        return self._anchors(self.geometry(surface, pose.conditions)[0], self.appearance(surface, pose.conditions)[0])

    def _anchors(self, geometry: Tensor, appearance: Tensor) -> AnchorGaussians:
        """Attributes (B, N, GEOMETRY_SIZE) and (B, N, appearance_size) after their activations."""
        return AnchorGaussians(
            offsets=OFFSET_UNIT * geometry[..., :3],
            scales=(self.base_scale[:, None] * geometry[..., 3:6].exp()).clamp_max(SCALE_CEILING),
            quaternions=geometry[..., 6:],
            opacities=torch.sigmoid(appearance[..., 0]),
            harmonics=appearance[..., 1:].unflatten(-1, (self.harmonics, 3)),
        )

    def codes(self, pose: Pose) -> Tensor:
        """(B, 2, `code_size`), which guide the pose refinement: the bottleneck codes of both U-Nets, or twice the
        weights of the blendshapes.
        """
        if self.blendshapes is not None:
            return self.blendshapes.weights(pose.conditions)[:, None].expand(-1, 2, -1)
        surface = self._surface(pose)
        return torch.stack((self.geometry.encode(surface), self.appearance.encode(surface)), 1)

    @property
    def code_size(self) -> int:
        return self.settings.blendshapes or self.settings.latent_size

    def _surface(self, pose: Pose) -> Tensor:
        return encode_surface(pose.canonical, pose.normals, self.settings.position_bands, self.settings.normal_bands)

    def anchor_splats(self, pose: Pose) -> tuple[Splats, AnchorGaussians]:
        """Splats of the anchors alone, without neural Gaussians: a coarser head that takes less time."""
        pose = clamp_view(pose, self.views)
        return self._anchor_splats(pose, self.anchors(pose))

    def _anchor_splats(self, pose: Pose, anchors: AnchorGaussians) -> tuple[Splats, AnchorGaussians]:
        colors = evaluate_harmonics(self.settings.sh_degree, pose.directions, anchors.harmonics)
        return as_splats(pose, anchors, colors), anchors

    def attributes(self, pose: Pose) -> Tensor:
        """(B, N, O) what the U-Nets and the MLPs of the neural Gaussians make, before the activations and in the order
        of `GaussianBlendshapes.mean`. Only of an avatar without blendshapes.
        """
        pose = clamp_view(pose, self.views)
        surface = self._surface(pose)
        parts = [self.geometry(surface, pose.conditions)[0], self.appearance(surface, pose.conditions)[0]]
        if self.neural is not None:
            made = self.neural(pose)
            parts.append(torch.cat((made.opacity, made.color, made.scale, made.rotation), -1).flatten(2))
        return torch.cat(parts, -1)

    def forward(self, pose: Pose) -> tuple[Splats, AnchorGaussians]:
        pose = clamp_view(pose, self.views)
        if self.blendshapes is not None:
            geometry, appearance, spawned = self.blendshapes(pose.conditions, pose.beyond)
            splats, anchors = self._anchor_splats(pose, self._anchors(geometry, appearance))
        else:
            splats, anchors = self._anchor_splats(pose, self.anchors(pose))
            spawned = self.neural(pose) if self.neural is not None else None
        if spawned is None:
            return splats, anchors
        neural = spawned.splats(pose, anchors.offsets, anchors.scales)
        return Splats(
            *(torch.cat(pair, 1) for pair in zip(vars(splats).values(), vars(neural).values(), strict=True))
        ), anchors
