"""What the training frames show of each vertex of the tracked mesh: in how many of them it is visible, and whether
they look at it straight enough for its colour to be true (`find_unobserved`).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from ..head.model import EYE_L, EYE_R, HeadModel
from ..head.mouth import mouth_parts
from ..splatting.mesh_batch import MeshRasters, rasterize_meshes
from ..splatting.types import Cameras
from .frames import TrainingFrames
from .losses import AnchorLimits
from .unobserved_regions import UnobservedVertices, unobserved_vertices
from .visible_eyes import white_of_eyes

VISIBILITY_FRAMES = 32
"""Evenly spaced frames in which the visibility of the vertices is tested."""
VISIBILITY_SIZE = 192
"""Width and height of the rendered images in which visibility is tested, pixels."""
MIN_VISIBLE_FRAMES = 3
"""A vertex that is visible in this many of the tested frames counts as fully observed."""
MOUTH_AREA = 0.07
"""Visible area of the mouth's inside, of the square of the distance between the eyes. Where less shows, tracked lips
that touch no more exactly than their error let through what no frame shows."""
PARTED_JAW = 0.12
"""Radians by which the jaw is lowered where frames begin to show what lies behind the teeth: tongue and wall. With
less, and the lips apart, the tracked mesh shows its tongue where the person bares the teeth, which would paint it
white."""
PICTURE_EDGE = 0.03
"""Of the image's width: vertices within it of an image's edge, or beyond, count as not in the picture. Of their
Gaussians too little is in it for their colour to be true, and a neck that the edge cuts became magenta there."""
CLOSED_FACING_COSINE = 0.7
"""Cosine between normal and direction to the camera, below which in every frame a vertex counts as seen only aslant.
Foreshortened, gaps between its Gaussian and its neighbours do not show in the clip, but from the side."""
MIN_FACING_COSINE = 0.35
"""Cosine between a vertex's normal and the direction to the camera. At smaller ones (grazing angles) the observed
colour is not reliable, because hair at the outline is mixed with what lies behind it."""


def find_unobserved(frames: TrainingFrames, model: HeadModel, anchor_limit: AnchorLimits) -> UnobservedVertices:
    """Test in VISIBILITY_FRAMES training frames which vertices of the tracked mesh are visible, and at which angles.

    `anchor_limit` says how far a Gaussian may lie from its vertex.
    """
    rows = np.unique(np.linspace(0, len(frames) - 1, VISIBILITY_FRAMES).round().astype(int))
    pose, cameras = (
        frames.poses.pose(frames.indices[rows]),
        frames.poses.cameras(frames.indices[rows], VISIBILITY_SIZE),
    )
    vertices = cameras.seen(pose.posed)
    faces = torch.as_tensor(model.faces.astype(np.int64), device=frames.device)
    raster = rasterize_meshes(vertices, faces, cameras.intrinsics, VISIBILITY_SIZE, VISIBILITY_SIZE)
    # The additional last column stands for the index -1 of pixels without a triangle.
    hit = torch.zeros(len(rows), len(faces) + 1, device=frames.device)
    hit = hit.scatter(1, raster.face_index.flatten(1).long() % (len(faces) + 1), 1.0)[:, :-1]
    hits = torch.zeros(len(rows), len(model.template), device=frames.device)
    visible = (hits.index_add(1, faces.flatten(), hit.repeat_interleave(3, 1)) > 0).cpu().numpy()
    visible[np.ix_(~_opens_mouth(model, raster, vertices, cameras), model.regions["mouth_inside"])] = False
    parts = mouth_parts(model)
    shut = (pose.jaw[:, 0] < PARTED_JAW).cpu().numpy()
    visible[np.ix_(shut, np.concatenate((parts["tongue"], parts["wall"])))] = False
    # Normals and directions are both given in the frame of the canonical head.
    facing = -(pose.normals * pose.directions).sum(-1).cpu().numpy()
    visible_count = visible.sum(0).astype(np.float64)
    in_picture, of_head = _in_footage(frames, rows, cameras.pixels(vertices) / VISIBILITY_SIZE)
    reliable_count = (visible & of_head & (facing > MIN_FACING_COSINE)).sum(0).astype(np.float64)
    min_frames = min(MIN_VISIBLE_FRAMES, len(rows))
    # Gaussians may lie off their vertices: hair visible beyond the mesh's outline belongs to vertices behind the
    # outline.
    distance, _ = KDTree(model.template[visible_count >= min_frames]).query(model.template)
    hidden = 1 - np.minimum(1, visible_count / min_frames)
    grazing = 1 - np.minimum(1, reliable_count / min_frames)
    away = np.clip(distance / anchor_limit.offset.cpu().numpy() - 1, 0, 1)
    unobserved = np.maximum(away, 1 - np.minimum(1, in_picture.sum(0) / min_frames)) * hidden
    straight = (visible & of_head & (facing > CLOSED_FACING_COSINE)).sum(0)
    # What is in the picture, and never in the matte, is transparent with good reason.
    cut_away = ((visible & in_picture).sum(0) >= min_frames) & ~of_head.any(0)
    aslant = torch.as_tensor((straight < min_frames) & ~cut_away, device=frames.device)
    unobserved, hidden, grazing = (
        torch.as_tensor(degree, dtype=torch.float32, device=frames.device) for degree in (unobserved, hidden, grazing)
    )
    return unobserved_vertices(model, unobserved, hidden, grazing, white_of_eyes(model, frames), aslant)


def _in_footage(frames: TrainingFrames, rows: np.ndarray, places: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Two (B, N) bool of `places` (B, N, 2), fractions of width and height, in the frames of `rows` (B,): which lie in
    the picture, PICTURE_EDGE within its edge, and which of these in the head's matte.
    """
    in_picture = ((places - 0.5).abs() < 0.5 - PICTURE_EDGE).all(-1)
    x, y = (places * frames.size).long().clamp(0, frames.size - 1).unbind(-1)
    # One by one: all of them at full size would be a gigabyte.
    mattes = [
        frames.batch(row, frames.size).matte[0, y[place], x[place]]
        for place, row in enumerate(torch.from_numpy(rows).split(1))
    ]
    return in_picture.cpu().numpy(), (in_picture & (torch.stack(mattes) > 0.5)).cpu().numpy()


def _opens_mouth(model: HeadModel, raster: MeshRasters, vertices: Tensor, cameras: Cameras) -> np.ndarray:
    """(B,) bool: which images show enough of the mouth's inside. `raster` shows the mesh, whose `vertices` (B, N, 3)
    are in the space of the images' cameras.
    """
    inside = np.zeros(len(model.template), bool)
    inside[model.regions["mouth_inside"]] = True
    of_mouth = torch.as_tensor(inside[model.faces].all(1), device=vertices.device)
    area = raster.showing(of_mouth).sum((1, 2))
    regressor = torch.as_tensor(model.joint_regressor, dtype=vertices.dtype, device=vertices.device)
    left, right = (regressor[joint] @ vertices for joint in (EYE_L, EYE_R))
    # As seen from the front: in a profile the eyes lie behind one another.
    pixels = (left - right).norm(dim=1) * cameras.intrinsics[:, 0, 0] / left[:, 2]
    return (area > MOUTH_AREA * pixels.square()).cpu().numpy()
