"""What `backend.avatar.filmed_regions` stores of a clip: regions of the head, what counts in each, and faces."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..avatar.filmed_regions import FACES, REGIONS, FilmedRegions
from ..head.forward import Head, Shaped
from ..head.model import EYE_L, EYE_R, JAW, HeadModel
from ..head.topology import mesh_edges, smooth_values

REST, LOWER, LEFT_EYE, RIGHT_EYE = range(REGIONS)
BELOW_EYES: Final = 0.02
"""Metres below the eyes at which the face's lower region begins."""
BORDER: Final = 2.0
"""How wide the regions' borders are: about twice the square root of this, in edges."""
LEAST_SHARE: Final = 0.01
"""A vertex that belongs less to a region does not belong to it."""
LEAST: Final = 0.1
"""Least emphasis, of a number that does not move the region, where the one that moves it most has 1."""
ANGLE: Final = 0.1
"""Radians by which a joint is turned to see what it moves."""
OWN: Final = 0.99
"""The measure of distances is that of this quantile of the training frames from those kept to measure it."""
KEPT_TO_MEASURE: Final = 0.7
"""Of the training frames at most, this share is kept to measure it: were all of a short clip's kept, none would be away
from them, and every other face would be drawn as one of the clip's, which costs 0.8 dB. With less than two thirds, a
clip whose held-out frames are far from the others loses 0.5 (bench/results/instant.md)."""
REACH: Final = (2.75, 4.0)
"""Up to the first of these, in units of that measure, a face is drawn as it is, and from the second on as the nearest
filmed ones. From 1 to 2, held-out frames of one clip lose 1 dB."""


@torch.no_grad()
def store_regions(regions: FilmedRegions, model: HeadModel, head: Head, shaped: Shaped, faces: Tensor) -> None:
    """Faces (F, D) of the training frames. Vertices that no face changed in training keep no share."""
    labels = region_labels(model)
    edges = mesh_edges(model.faces)[0]
    shares = smooth_values(edges, np.full(len(edges), BORDER), np.ones(len(labels)), np.eye(REGIONS)[labels])
    shares[shares < LEAST_SHARE] = 0
    regions.shares.copy_(torch.from_numpy(shares / shares.sum(1, keepdims=True)) * regions.changing.cpu())
    regions.emphasis.copy_(torch.from_numpy(_emphasis(model, head, shaped, labels)))
    spread = spread_faces(faces * regions.emphasis.amax(0), FACES, faces)
    regions.faces.copy_(spread[torch.arange(FACES) % min(FACES, max(1, int(KEPT_TO_MEASURE * len(faces))))])
    own = torch.quantile(torch.cat([regions.nearest(part)[0] for part in faces.split(256)]), OWN, 0).clamp_min(1e-3)
    regions.reach.copy_(own[:, None] * own.new_tensor(REACH))
    regions.faces.copy_(spread)


def region_labels(model: HeadModel) -> np.ndarray:
    """(N,) the region of each vertex."""
    labels = np.full(len(model.template), REST)
    eyes = model.joint_regressor[[EYE_L, EYE_R]].astype(np.float64) @ model.template
    face = np.concatenate([model.regions[name] for name in ("face", "lips", "mouth_inside")])
    labels[face[model.template[face, 1] < eyes[:, 1].mean() - BELOW_EYES]] = LOWER
    lids = np.concatenate((model.regions["lids"], model.regions["eyes"]))
    labels[lids] = np.where(model.template[lids, 0] > eyes[:, 0].mean(), LEFT_EYE, RIGHT_EYE)
    return labels


def spread_faces(scaled: Tensor, count: int, faces: Tensor) -> Tensor:
    """`count` of faces (F, D), far from each other in `scaled` (F, D), beginning with the farthest from the mean; some
    repeatedly where there are fewer.
    """
    away = (scaled - scaled.mean(0)).norm(dim=1)
    chosen = [int(away.argmax())]
    left = (scaled - scaled[chosen[0]]).norm(dim=1)
    while len(chosen) < count:
        chosen.append(int(left.argmax()))
        left = torch.minimum(left, (scaled - scaled[chosen[-1]]).norm(dim=1))
    return faces[chosen]


def _emphasis(model: HeadModel, head: Head, shaped: Shaped, labels: np.ndarray) -> np.ndarray:
    """(REGIONS, D): by how much a number of the face moves the region's vertices, root mean square, in units of the
    largest.
    """
    still = torch.zeros(10, model.expression_basis.shape[2], device=head.faces.device)
    rotations = torch.zeros(10, 5, 3, device=head.faces.device)
    for row in range(9):
        rotations[1 + row, JAW + row // 3, row % 3] = ANGLE
    posed = head.canonical(shaped, still, rotations).cpu().numpy()
    by_joints = (posed[1:] - posed[0]).transpose(1, 2, 0) / ANGLE
    moves = np.square(np.concatenate((model.expression_basis, by_joints), 2)).sum(1)
    made = np.ones((REGIONS, moves.shape[1]))
    for region in range(REGIONS):
        if (labels == region).any():
            size = np.sqrt(moves[labels == region].mean(0))
            made[region] = np.sqrt((size / max(size.max(), 1e-12)) ** 2 + LEAST**2)
    return made
