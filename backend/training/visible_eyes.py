"""The irises are the eyeballs' to paint.

Nothing else in training tells a lid from an eyeball: where a Gaussian of a lid reaches across the opening and holds an
iris there, frames that look straight ahead are drawn as well as by the eyeball itself. When the eye turns, that iris
stays. So the Gaussians of all other regions are kept out of the pixels in which the tracked mesh shows an iris. Not of
those that show a white: there a tracked opening is often wider than the eye's own, and the eyeball would learn skin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor
from torch.nn import functional

from ..head.eye_size import eye_whites
from ..head.model import HeadModel
from ..splatting.mesh_batch import rasterize_meshes
from ..splatting.rasterize import rasterize
from ..splatting.types import Cameras, Splats
from .frames import TrainingFrames, evenly_spaced

EVERY = 4
"""Steps from one in which the term is taken to the next, because it draws the eyes once more."""
WEIGHT = 1.0
"""Of a pixel that lids cover whole, against the mean error of a pixel of the image."""
MARGIN = 1
"""Pixels within the edge of a visible iris that lids may paint: their lashes, and the tracker's error."""
ROOM = 4
"""Pixels around the eyeballs that are drawn."""
NEAR = 0.03
"""Metres from an eyeball within which Gaussians are kept out of the irises: lids, brows and the skin around. Hair may
hang before the eyes."""
EXTENT_FRAMES = 64
"""Evenly spaced frames in which the size of what is drawn is found."""
WHITE_FRAMES = 16
"""Evenly spaced frames in which the white of the eyes is looked for."""
WHITEST = 0.1
"""Share of the pixels in which the mesh shows white that are taken for it."""
FEWEST_WHITE = 30
"""Pixels: with fewer, nothing is said of the white."""


class VisibleEyes:
    """The irises that the cameras of training frames see, and the Gaussians around them."""

    def __init__(self, model: HeadModel, k: int, frames: TrainingFrames) -> None:
        """`k` neural Gaussians belong to each anchor."""
        device = frames.device
        faces, eyes, self._is_iris = _eye_triangles(model, device)
        self._faces, self._eyes = faces, eyes.nonzero()[:, 0].to(device)
        near = torch.zeros(len(eyes), dtype=torch.bool)
        if eyes.any():
            near = torch.from_numpy(KDTree(model.template[eyes.numpy()]).query(model.template)[0] < NEAR)
        self._near = torch.cat((near, near.repeat_interleave(k))).nonzero()[:, 0].to(device)
        others = torch.cat((~eyes, (~eyes).repeat_interleave(k))).to(device)
        self._others = others[self._near].float()[None, :, None]
        self._extent = self._largest_extent(frames) if eyes.any() else (0.0, 0.0)

    def covered(self, splats: Splats, posed: Tensor, cameras: Cameras) -> Tensor:
        """How much of the irises the Gaussians around the eyeballs cover: the sum of their weights in these pixels,
        over the number of all pixels of the images; 0 for a head without eyeballs. `posed` (B, N, 3) metres is the mesh
        of `splats`.
        """
        if not len(self._eyes):
            return posed.new_zeros(())
        vertices = cameras.seen(posed)
        around = self._around_eyes(vertices, cameras)
        irises = self.irises(vertices, around)
        near = {name: getattr(splats, name)[:, self._near] for name in ("means", "quaternions", "scales", "opacities")}
        drawn = rasterize(Splats(**near, colors=self._others.expand(len(posed), -1, 3)), around)
        return (drawn.color[..., 0] * irises).sum() / (len(posed) * cameras.width * cameras.height)

    @torch.no_grad()
    def irises(self, vertices: Tensor, cameras: Cameras) -> Tensor:
        """(B, H, W) bool: the pixels in which `cameras` see an iris of the meshes (B, N, 3), in their own space."""
        raster = rasterize_meshes(vertices, self._faces, cameras.intrinsics, cameras.width, cameras.height)
        seen = raster.showing(self._is_iris)
        edge = functional.max_pool2d((~seen).float(), 2 * MARGIN + 1, stride=1, padding=MARGIN)
        return edge == 0

    @torch.no_grad()
    def _around_eyes(self, vertices: Tensor, cameras: Cameras) -> Cameras:
        """The cameras with images that show little more than the eyes. Their size is that of all frames, so that a step
        need not wait for where a GPU finds the eyes.
        """
        width, height = (round(cameras.width * extent) + 2 * ROOM for extent in self._extent)
        low, high = self._box(vertices, cameras)
        middle = (low + high) / 2
        intrinsics = cameras.intrinsics.clone()
        intrinsics[:, 0, 2] -= (middle[:, 0] - width / 2).floor()
        intrinsics[:, 1, 2] -= (middle[:, 1] - height / 2).floor()
        return replace(cameras, intrinsics=intrinsics, width=width, height=height)

    @torch.no_grad()
    def _largest_extent(self, frames: TrainingFrames) -> tuple[float, float]:
        """Width and height of what holds both eyeballs, of the image's, in the frame where each is largest."""
        rows = evenly_spaced(np.arange(len(frames)), EXTENT_FRAMES)
        pose, cameras = frames.batch_poses(torch.from_numpy(rows)), frames.poses.cameras(frames.indices[rows], 1)
        low, high = self._box(cameras.seen(pose.posed), cameras)
        width, height = (high - low).amax(0).clamp(0, 1).tolist()
        return width, height

    def _box(self, vertices: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
        """(B, 2) and (B, 2) pixels: the corners of the box around both eyeballs."""
        pixels = cameras.pixels(vertices[:, self._eyes])
        return pixels.amin(1), pixels.amax(1)


@torch.no_grad()
def white_of_eyes(model: HeadModel, frames: TrainingFrames) -> Tensor | None:
    """(3,) RGB in [0, 1]: the white of the eyes in the footage; None where too little of it shows. In that of the first
    capture, whose light the avatar has.
    """
    faces, eyes, is_iris = _eye_triangles(model, frames.device)
    is_white = eyes.to(frames.device)[faces].all(1) & ~is_iris
    rows = torch.from_numpy(evenly_spaced(np.arange(frames.counts[0]), WHITE_FRAMES))
    found = []
    for row in rows.split(1):
        batch = frames.batch(row, frames.size)
        vertices, cameras = batch.cameras.seen(batch.pose.posed), batch.cameras
        raster = rasterize_meshes(vertices, faces, cameras.intrinsics, cameras.width, cameras.height)
        found.append(batch.color[raster.showing(is_white) & (batch.matte > 0.99)])
    colors = torch.cat(found)
    if len(colors) < FEWEST_WHITE:
        return None
    # Skin, iris and shadow lack at least one of red, green and blue.
    whitest = colors.amin(1).topk(max(1, round(WHITEST * len(colors)))).indices
    return colors[whitest].median(0).values


def _eye_triangles(model: HeadModel, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Triangles (F, 3) on `device`, vertices (N,) bool of the eyeballs, and which triangles are an iris's, (F,) bool on
    `device`.
    """
    eyes = torch.zeros(len(model.template), dtype=torch.bool)
    eyes[torch.as_tensor(model.regions["eyes"], dtype=torch.long)] = True
    irises = eyes.clone()
    irises[torch.as_tensor(eye_whites(model))] = False
    faces = torch.as_tensor(model.faces.astype("int64"))
    return faces.to(device), eyes, irises[faces].all(1).to(device)
