"""The filmed faces of a clip that are most like an asked one, for each region of the head.

A face that was never filmed as a whole may have been filmed in parts: an open mouth with raised brows, and lowered
brows with a shut mouth. Therefore each region of the head, mouth and cheeks, either eye, and brows with all the rest,
is drawn as in the filmed faces that are most like the asked one in this region. How much a number of the face counts is
how far it moves the region's vertices. FACES of the clip's faces are kept. Up to a first distance from the nearest of
them, within which the clip's own frames are, a face is drawn as it is asked; from a second distance on, as the mean of
the nearest ones; in between there is a smooth step. The posed mesh always follows the request.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

REGIONS: Final = 4
FACES: Final = 128
SOFTNESS: Final = 0.1
"""A face that is farther than the nearest by this share of its distance has 1 / e of its weight."""
FAR: Final = 1e5
"""A distance that no face has."""


class FilmedRegions(nn.Module):
    """Faces (B, D) -> (B, REGIONS, D). Until it is stored, every region has the face as it is."""

    shares: Tensor
    """(N, REGIONS): how far a vertex belongs to each region. Rows sum to one, or to zero where no shape changes it."""
    emphasis: Tensor
    """(REGIONS, D): how much each number of a face counts."""
    faces: Tensor
    """(FACES, D) of the clip."""
    reach: Tensor
    """(REGIONS, 2): the two distances."""

    def __init__(self, vertices: int, size: int) -> None:
        super().__init__()
        self.register_buffer("shares", torch.eye(REGIONS)[0].repeat(vertices, 1))
        self.register_buffer("emphasis", torch.ones(REGIONS, size))
        self.register_buffer("faces", torch.zeros(FACES, size))
        self.register_buffer("reach", torch.tensor((FAR, 2 * FAR)).repeat(REGIONS, 1))

    @property
    def changing(self) -> Tensor:
        """(N, 1): 1 = a vertex whose Gaussians the shapes change, 0 = one whose are the same in every face and view."""
        return (self.shares.amax(1, keepdim=True) > 0).to(self.shares)

    @property
    def is_stored(self) -> bool:
        """Whether the clip's faces are known. Avatars of earlier versions have none."""
        return bool((self.reach[:, 0] < FAR).all())

    def forward(self, faces: Tensor) -> Tensor:
        with torch.no_grad():
            nearest, filmed = self.nearest(faces)
            share = ((nearest - self.reach[:, 0]) / (self.reach[:, 1] - self.reach[:, 0])).clamp(0, 1)
            share = (share.square() * (3 - 2 * share))[..., None]
        return torch.lerp(faces[:, None].expand_as(filmed), filmed, share)

    @torch.no_grad()
    def nearest(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Faces (B, D) -> for each region the distance (B, REGIONS) of the nearest filmed face, and the weighted mean
        (B, REGIONS, D) of those that are about as near.
        """
        scaled, known = faces * self.emphasis[:, None], self.faces * self.emphasis[:, None]
        distances = torch.cdist(scaled, known).transpose(0, 1)
        nearest = distances.amin(-1)
        weights = torch.softmax(-distances / (SOFTNESS * nearest.clamp_min(1e-6)[..., None]), -1)
        return nearest, weights @ self.faces
