"""A trained head and its footage → the bust below it (`backend.avatar.bust`).

The head is finished and does not change. Gaussians start on the surface on which a bust is taken to lie, where the
body mattes show one, in the colours that the footage shows there. Then they are fitted together with the head to images
of the whole person. Which joints a Gaussian follows is learnt as well, near what its distance from the neck suggests:
hair before a shoulder hangs from the head, a collar is between the two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..avatar.avatar import Avatar
from ..avatar.bust import Bust, joined
from ..avatar.render import track_cameras
from ..footage.foreground import foreground_colors
from ..formats.capture import Capture, read_body_matte, read_frame, read_head_matte
from ..formats.track import Track
from ..head.bust_surface import FALL, HALF_WIDTH, RISE, BustSurface, bust_surface
from ..progress import SILENT, Progress
from ..splatting.rasterize import rasterize
from .frames import TrainingFrames, evenly_spaced, person_matte
from .hanging_hair import hanging_hair
from .losses import image_loss, matte_loss
from .worker_threads import worker_threads

MOST_FRAMES = 96
"""Training frames, evenly spaced: a torso hardly moves."""
START_FRAMES = 12
"""From which the first colours are taken."""
BATCH = 4
SPACING = 1 / 128
"""Distance between Gaussians at first, as a share of the image's side."""
MOST_GAUSSIANS = 8000
LEAST_MATTE = 0.3
"""Mean of the body mattes, over the frames whose image a point lies in, from which on there is a Gaussian."""
FEWEST = 16
"""Gaussians: less is no bust."""
SEAM = 0.08
"""Metres from the neck's ring to where a Gaussian follows the torso alone at first."""
HAIR_FOLLOWS, HAIR_LENGTH = 0.3, 0.15
"""How much of the head's turn hair takes where it leaves the head, and metres further down after which that has fallen
to a third: what lies on a shoulder stays there."""
MATTE_WEIGHT, START_WEIGHT, SKINNING_WEIGHT = 0.1, 0.05, 0.02
FREE_OFFSET = 0.015
"""Metres from where it started that a Gaussian may go without penalty: the surface is rough."""
RATES = {"means": 3e-4, "scales": 1e-2, "quaternions": 1e-2, "opacities": 5e-2, "colors": 3e-2, "weights": 1e-2}
"""Learning rates of Adam, which fall along a cosine to FINAL_RATE of that."""
FINAL_RATE = 0.05


def train_bust(
    avatar: Avatar,
    capture: Capture,
    track: Track,
    *,
    steps: int,
    minutes: float | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = SILENT,
) -> Bust | None:
    """The bust of an avatar whose capture has body mattes and whose track follows the torso; None where the mattes show
    too little of one.

    Images have the size of the avatar's own; in the first half of the steps, half of it. With `minutes`, it ends after
    that time of `clock` (seconds) at the latest.
    """
    frames = TrainingFrames(
        capture,
        track,
        avatar.head_model,
        avatar.settings.size,
        avatar.device,
        progress,
        most=MOST_FRAMES,
        fewest=1,
        matte_of=person_matte,
        lips_turn=bool(avatar.settings.lips_turn),
    )
    surface = bust_surface(avatar.head_model, avatar.identity)
    start = _start(surface, capture, track, evenly_spaced(frames.indices, START_FRAMES), frames.size)
    if start is None:
        return None
    fit = _Fit(start.to(avatar.device), avatar, frames, track)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(
        [{"params": [fit.values[name]], "lr": rate, "base": rate} for name, rate in RATES.items()]
    )
    started = clock()
    with worker_threads(avatar.device) as (pool, workers):
        for step in range(steps):
            progress.raise_if_cancelled()
            elapsed = 0.0 if minutes is None else (clock() - started) / (60 * minutes)
            fraction = max(step / steps, elapsed)
            if fraction >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * fraction)))
            size = frames.size // 2 if fraction < 0.5 and frames.size % 2 == 0 else frames.size
            rows = torch.randint(len(frames), (BATCH,), generator=generator)
            behind = torch.rand((BATCH, 3), generator=generator)
            parts = list(zip(rows.chunk(workers), behind.chunk(workers), strict=True))
            found = (pool.map if pool else map)(lambda part, size=size: fit.gradients(part[0], part[1], size), parts)
            optimizer.zero_grad()
            for (own, _), gradients in zip(parts, found, strict=True):
                for parameter, gradient in zip(fit.values.values(), gradients, strict=True):
                    gradient = gradient * (len(own) / BATCH)
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            optimizer.step()
            progress.update("Bust", step + 1, steps)
    return fit.bust(detached=True)


@dataclass(frozen=True)
class _Start:
    """Where the Gaussians begin, before the activations of `_Fit`; M of them."""

    means: Tensor
    colors: Tensor
    mattes: Tensor
    skinning: Tensor
    """(M, 3) of root, neck and torso."""
    spacing: float
    """Metres."""

    def to(self, device: torch.device) -> _Start:
        means, colors, mattes, skinning = (
            part.to(device) for part in (self.means, self.colors, self.mattes, self.skinning)
        )
        return _Start(means, colors, mattes, skinning, self.spacing)


def _start(surface: BustSurface, capture: Capture, track: Track, indices: np.ndarray, size: int) -> _Start | None:
    """The points of the surface where frames `indices` (B,) show the body, at images of `size`."""
    cameras = track_cameras(track, indices.tolist(), size)
    motions = cameras.world_to_camera @ torch.from_numpy(track.torso_motions(indices))
    ring = torch.from_numpy(surface.ring).float() @ cameras.world_to_camera[:, :3, :3].transpose(1, 2)
    ring = (ring + cameras.world_to_camera[:, None, :3, 3]) @ cameras.intrinsics.transpose(1, 2)
    columns = (ring[..., 0] / ring[..., 2]).numpy()
    images = []
    for index, across in zip(indices.tolist(), columns, strict=True):
        matte, image = read_body_matte(capture, index, size), read_frame(capture, index, size)
        neck = float(across.min()), float(across.max())
        hair = hanging_hair(image, read_head_matte(capture, index, size), matte, neck)
        images.append(np.dstack((foreground_colors(image, matte), matte, cv2.multiply(matte, hair.astype(np.uint8)))))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    depth = float((motions[0, :3, :3] @ torch.from_numpy(surface.centre).float() + motions[0, :3, 3])[2])
    spacing = SPACING * size * depth / float(cameras.intrinsics[0, 0, 0])
    while True:
        across = np.arange(-HALF_WIDTH, HALF_WIDTH, spacing)
        up = np.arange(-FALL, RISE, spacing)
        points = torch.from_numpy(surface.points(*np.meshgrid(across, up)).reshape(-1, 3)).float()
        seen = points @ motions[:, :3, :3].transpose(1, 2) + motions[:, None, :3, 3]
        landed = seen @ cameras.intrinsics.transpose(1, 2)
        grid = 2 * (landed[..., :2] / landed[..., 2:].clamp_min(1e-3)) / size - 1
        values = functional.grid_sample(stacked, grid[:, None], align_corners=False)[:, :, 0].transpose(1, 2)
        on_screen = (grid.abs() < 1).all(-1)
        mattes = values[..., 3]
        mean = mattes.sum(0) / on_screen.sum(0).clamp_min(1)
        kept = (mean > LEAST_MATTE) & on_screen.any(0)
        if (count := int(kept.sum())) < FEWEST:
            return None
        if count <= MOST_GAUSSIANS:
            break
        spacing *= 1.1 * math.sqrt(count / MOST_GAUSSIANS)
    weights = mattes.square()[..., None] + 1e-6
    colors = (values[..., :3] * weights).sum(0) / weights.sum(0)
    near = torch.from_numpy(1 - surface.distance_to_neck(points[kept].double().numpy()) / SEAM).float().clamp(0, 1)
    root = near.square() * (3 - 2 * near)
    skinning = torch.stack((0.9 * root, 0.1 * root, 1 - root), 1)
    hair = (values[..., 4].sum(0) / mattes.sum(0).clamp_min(1e-6))[kept]
    below = (surface.centre[1] - points[kept][:, 1]).clamp_min(0)
    follows = (hair * HAIR_FOLLOWS * torch.exp(-below / HAIR_LENGTH))[:, None]
    skinning = torch.lerp(skinning, torch.tensor((0.0, 1.0, 0.0)), follows)
    return _Start(points[kept], colors[kept], mean[kept], skinning, spacing)


class _Fit:
    """The bust as parameters, and the gradients of its loss."""

    def __init__(self, start: _Start, avatar: Avatar, frames: TrainingFrames, track: Track) -> None:
        self.start, self.avatar, self.frames, self.track = start, avatar, frames, track
        count = len(start.means)
        turns = start.means.new_zeros(count, 4)
        turns[:, 0] = 1
        self.values = {
            "means": start.means.clone(),
            "scales": torch.full_like(start.means, math.log(0.6 * start.spacing)),
            "quaternions": turns,
            "opacities": torch.logit(start.mattes.clamp(0.1, 0.9)),
            "colors": torch.logit(start.colors.clamp(0.02, 0.98)),
            "weights": start.skinning.clamp_min(0.02).log(),
        }
        for value in self.values.values():
            value.requires_grad_(True)

    def bust(self, detached: bool = False) -> Bust:
        values = {name: value.detach() if detached else value for name, value in self.values.items()}
        return Bust(
            means=values["means"],
            scales=values["scales"].exp().clamp_max(3 * self.start.spacing),
            quaternions=values["quaternions"],
            opacities=values["opacities"].sigmoid(),
            colors=values["colors"].sigmoid(),
            weights=values["weights"].softmax(1),
        )

    def gradients(self, rows: Tensor, background: Tensor, size: int) -> Sequence[Tensor]:
        """Of the mean loss over `rows` (B,), over the colours `background` (B, 3), with respect to `values`."""
        batch, bust = self.frames.batch(rows, size), self.bust()
        indices = self.frames.indices[rows.numpy()]
        with torch.no_grad():
            head = self.avatar.networks(batch.pose)[0]
        device = head.means.device
        rotations, torso = (
            torch.as_tensor(part, device=device)
            for part in (self.track.rotations[indices], self.track.torso_motions(indices))
        )
        raster = rasterize(joined(head, bust.posed(rotations, self.avatar.shaped.joints[0], torso)), batch.cameras)
        loss = image_loss(raster, batch, background.to(device), None, 0) + MATTE_WEIGHT * matte_loss(raster, batch)
        away = (bust.means - self.start.means).norm(dim=1) / FREE_OFFSET
        loss = loss + START_WEIGHT * (away - 1).clamp_min(0).square().mean()
        loss = loss + SKINNING_WEIGHT * (bust.weights - self.start.skinning).square().sum(1).mean()
        return torch.autograd.grad(loss, list(self.values.values()))
