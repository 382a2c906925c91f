"""The first Gaussians of a head, from the pixels of some tracked frames in closed form, without any gradient.

A vertex of scalp, ears or neck is first moved along its normal as far as the head mattes allow (a visual hull: hair
ends where silhouettes end). Each vertex then takes the colours at which the frames show it, weighted by how straight
they see it, by the matte, and by how near they are to the others' mean. InvertAvatar fuses maps of frames by recurrent
gates that were learnt on many people instead: `bench.learnt_fusion` has both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..avatar.graph_avatar import OFFSET_UNIT
from ..avatar.posing import Pose, rotate
from ..head.forward import vertex_normals
from ..head.model import HeadModel
from ..head.topology import mesh_edges, smooth_values
from ..splatting.mesh_batch import rasterize_meshes
from ..splatting.spherical_harmonics import C0
from ..splatting.types import Cameras
from .frames import TrainingFrames, evenly_spaced
from .losses import HAIR_OFFSET_LIMIT, AnchorLimits
from .warmup import VertexBoundGaussians

FRAMES = 16
"""Evenly spaced frames that are projected."""
SIZE = 128
"""Width and height of these images at most, pixels: a vertex is seldom seen sharper."""
DISTANCES = 11
"""Distances along the normal at which the hull is tested."""
INSIDE_SHARE = 0.9
"""Share of the frames in which a point must lie in the head matte to be in the hull: single mattes have holes."""
SMOOTHNESS = 4.0
"""Weight of the difference between neighbours' distances, where that of a distance that a silhouette ends is 1."""
SKIN_WEIGHT = 0.02
"""Weight by which distances that no silhouette ends are drawn to the mesh."""
SURFACE_TOLERANCE = 0.004
"""Metres that a visible vertex may lie behind the nearest triangle."""
COLOR_TOLERANCE = 0.1
"""Of colours in [0, 1]: a frame counts half if it differs by about this from the mean of the frames."""
KNOWN_WEIGHT = 1e-3
"""A vertex that frames show by less than this weight together is not known."""


@dataclass(frozen=True)
class Observations:
    """What F frames show at N vertices."""

    colors: Tensor
    """(F, N, 3) in [0, 1]"""
    mattes: Tensor
    """(F, N): 1 = head"""
    straight: Tensor
    """(F, N): squared cosine between the normal and the direction to the camera; 0 where the vertex is not visible."""


Fusion = Callable[[Observations], Tensor]
"""Observations to the vertices' colours (N, 3)."""


def fused_colors(seen: Observations) -> Tensor:
    """(N, 3) in [0, 1]: the mean of the frames, weighted by how straight they see the vertex, by the matte, and by how
    near their colour is to the mean without this last weight.
    """
    weights = seen.straight * seen.mattes.square()
    near = torch.exp(-(seen.colors - _mean(seen.colors, weights)).square().sum(-1) / (2 * COLOR_TOLERANCE**2))
    return _mean(seen.colors, weights * (near + 1e-3))


@torch.no_grad()
def project_into(
    free: VertexBoundGaussians,
    frames: TrainingFrames,
    model: HeadModel,
    limits: AnchorLimits,
    *,
    most: int = FRAMES,
    fusion: Fusion = fused_colors,
) -> Tensor:
    """Set offsets, colours and opacities of `free`, in place, from the pixels of `most` frames. Returns which vertices
    (N,) they show; the others keep their colours.

    `limits` tell by their offsets where hair may be.
    """
    size = frames.size
    while size % 2 == 0 and size > SIZE:
        size //= 2
    rows = torch.from_numpy(evenly_spaced(np.arange(len(frames)), most))
    batch = frames.batch(rows, size)
    faces = torch.as_tensor(model.faces.astype(np.int64), device=frames.device)
    normals = vertex_normals(frames.poses.shaped.vertices, faces)[0]
    hairy = limits.offset >= HAIR_OFFSET_LIMIT
    distance = torch.zeros(len(normals), device=normals.device)
    ends, ended = _hull(batch.pose, normals, batch.cameras, batch.matte)
    distance[hairy] = _smoothed(ends * hairy, ended & hairy, hairy, model)[hairy]
    offsets = distance[:, None] * normals
    free.geometry[:, :3] = offsets / OFFSET_UNIT
    images = torch.cat((batch.color, batch.matte[..., None]), -1)
    seen = observe(batch.pose, offsets, normals, batch.cameras, images, faces)
    known = (seen.straight * seen.mattes.square()).sum(0) > KNOWN_WEIGHT
    mattes = (seen.straight * seen.mattes).sum(0) / seen.straight.sum(0).clamp_min(1e-6)
    free.appearance[known, 1:4] = ((fusion(seen) - 0.5) / C0)[known]
    free.appearance[known, 0] = torch.logit(mattes.clamp(0.05, 0.9))[known]
    return known


def _in_camera(points: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Points (B, N, 3) in world space → the same in camera space, and pixels (B, N, 2)."""
    points = cameras.seen(points)
    return points, cameras.pixels(points)


def _sampled(images: Tensor, pixels: Tensor, outside: str = "border") -> Tensor:
    """Images (B, H, W, C) at pixels (B, N, 2), bilinear: (B, N, C)."""
    size = pixels.new_tensor((images.shape[2], images.shape[1]))
    grid = (2 * pixels / size - 1)[:, None]
    values = functional.grid_sample(images.permute(0, 3, 1, 2), grid, padding_mode=outside, align_corners=False)
    return values[:, :, 0].transpose(1, 2)


def _hull(pose: Pose, normals: Tensor, cameras: Cameras, mattes: Tensor) -> tuple[Tensor, Tensor]:
    """Per vertex, the distance (N,) in metres along its normal (N, 3) at rest up to which it lies in the mattes
    (B, H, W), and whether (N,) a silhouette ends it.
    """
    distances = torch.linspace(0, HAIR_OFFSET_LIMIT, DISTANCES, device=normals.device)
    turned = rotate(pose.rotations, normals.expand_as(pose.posed))
    inside = torch.ones(len(normals), dtype=torch.bool, device=normals.device)
    reached = torch.zeros(len(normals), device=normals.device)
    for distance in distances:
        pixels = _in_camera(pose.posed + distance * turned, cameras)[1]
        within = _sampled(mattes[..., None], pixels)[..., 0] > 0.5
        inside = inside & (within.float().mean(0) >= INSIDE_SHARE)
        reached = torch.where(inside, distance, reached)
    return reached, ~inside


def _smoothed(distance: Tensor, ended: Tensor, hairy: Tensor, model: HeadModel) -> Tensor:
    """Distances (N,) that are smooth over the mesh, near those that a silhouette `ended` (N,) and to the mesh else."""
    edges, ends = mesh_edges(model.faces)[0], ended.cpu().numpy()
    weights = np.where(ends, 1.0, SKIN_WEIGHT) + 1e3 * ~hairy.cpu().numpy()
    target = np.where(ends, distance.cpu().numpy(), 0.0)
    solved = smooth_values(edges, np.full(len(edges), SMOOTHNESS), weights, weights * target)
    return torch.as_tensor(solved, dtype=distance.dtype, device=distance.device)


def observe(
    pose: Pose, offsets: Tensor, normals: Tensor, cameras: Cameras, images: Tensor, faces: Tensor
) -> Observations:
    """What images (B, H, W, 4) of colour and matte show at the vertices, moved by offsets (N, 3) at rest."""
    posed = pose.posed + rotate(pose.rotations, offsets.expand_as(pose.posed))
    points, pixels = _in_camera(posed, cameras)
    height, width = images.shape[1:3]
    depth = rasterize_meshes(points, faces, cameras.intrinsics, width, height).depth
    # The nearest pixel's depth: an interpolated one would mix a face with the wall behind it.
    column, row = pixels[..., 0].long().clamp(0, width - 1), pixels[..., 1].long().clamp(0, height - 1)
    nearest = depth.flatten(1).gather(1, row * width + column)
    turned = rotate(pose.rotations, normals.expand_as(posed)) @ cameras.world_to_camera[:, :3, :3].transpose(1, 2)
    facing = -(turned * functional.normalize(points, dim=-1)).sum(-1)
    on_screen = ((pixels > 0) & (pixels < pixels.new_tensor((width, height)))).all(-1)
    visible = on_screen & (points[..., 2] < nearest + SURFACE_TOLERANCE)
    seen = _sampled(images, pixels)
    return Observations(seen[..., :3], seen[..., 3], visible * facing.clamp_min(0).square())


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (weights[..., None] * values).sum(0) / weights.sum(0)[:, None].clamp_min(1e-6)
