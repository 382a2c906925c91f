"""The hair shell: where the outer surface of head and hair is, as one offset along the normal at every point of the
head.

The silhouette is the hair's, not the skin's. The shell's offsets are the same in all frames; they are fitted on the
training part (`solve.fit_hair_shell`) on a coarse mesh and interpolated to the shell's points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...head.forward import vertex_normals
from ...head.mesh_graph import mesh_hierarchy
from ...head.model import HeadModel

_GRID = 0.007
"""Metres between the shell's points: a finer shell takes more time and gives the same result."""
HAIR_SIGMA = 0.03
"""Metres that hair stands off the skull."""
SKIN_SIGMA = 0.002
"""Metres by which a face differs from what the identity makes of it."""
BEND_SIGMA = 0.006
"""Metres by which an offset differs from the mean of its neighbours' on the coarse mesh."""


@dataclass(frozen=True)
class HairShell:
    """M points around the head of one person, C coarse offsets."""

    skin: Tensor
    """(M, 3) metres from the pivot: the points on the skin."""
    normals: Tensor
    """(M, 3)"""
    interpolation: Tensor
    """(M, C): from coarse offsets to the points' own."""
    precision: Tensor
    """(C, C): the prior on the coarse offsets."""
    offsets: Tensor
    """(C,) metres along the normal."""

    @property
    def points(self) -> Tensor:
        """(M, 3) metres from the pivot."""
        return self.skin + (self.interpolation @ self.offsets).unsqueeze(-1) * self.normals


def make_hair_shell(model: HeadModel, identity: np.ndarray, pivot: Tensor) -> HairShell:
    """The shell of a person (S,) with all offsets zero."""
    vertices = model.template + model.shape_basis @ identity
    hairy = np.zeros(len(vertices), bool)
    hairy[np.concatenate([model.regions["scalp"], model.regions["ears"]])] = True
    skin = hairy.copy()
    skin[model.regions["face"]] = True
    for region in ("mouth_inside", "eyes", "lids", "lips", "neck", "boundary"):
        if region in model.regions:
            skin[model.regions[region]] = False
    chosen = np.flatnonzero(skin)
    _, first = np.unique(np.floor(vertices[chosen] / _GRID).astype(int), axis=0, return_index=True)
    chosen = chosen[np.sort(first)]

    graph = mesh_hierarchy(model)
    coarse = graph.vertices[-1]
    identity_matrix = torch.eye(len(coarse))
    interpolation = graph.ups[0](graph.ups[1](identity_matrix))[chosen]
    neighbours = -graph.laplacians[-1](identity_matrix)
    mean_of_neighbours = neighbours / neighbours.sum(1, keepdim=True).clamp_min(1e-6)
    bend = (identity_matrix - mean_of_neighbours) / BEND_SIGMA
    sigma = torch.where(torch.as_tensor(hairy[coarse]), HAIR_SIGMA, SKIN_SIGMA)
    normals = vertex_normals(
        torch.as_tensor(vertices, dtype=torch.float32)[None], torch.as_tensor(model.faces.astype(np.int64))
    )[0][chosen]
    device = pivot.device
    return HairShell(
        torch.as_tensor(vertices[chosen], dtype=torch.float32, device=device) - pivot,
        normals.to(device),
        interpolation.to(device),
        (torch.diag(sigma**-2) + bend.T @ bend).to(device),
        torch.zeros(len(coarse), device=device),
    )
