"""Tracks a person again by analysis through their own avatar (analysis by synthesis).

The tracker explains a frame by landmarks and by patches of skin; a trained avatar explains all of its pixels. Here the
avatar is fixed, and expression, jaw, eyes and head pose of every frame are optimised until its image fits the frame:

    E = |avatar's image - frame|                         mean over the image, both over white
      + PRIOR_WEIGHT      (offset / allowance)^2         mean over the components
      + SMOOTHNESS_WEIGHT (second difference in time)^2  mean over the components

An offset is the difference to the track, in units of a tracker's typical errors (`offsets_from_units`). Its allowance
is 1, and larger where the tracker's own standard deviation of this component is above its median over the clip: what
the landmarks left open in a frame may be corrected further.

The clip is processed in windows, in the order of time. Each starts from the offsets of the frame before it, since a
tracker's error changes slowly, and is smooth with respect to the two frames before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..avatar.avatar import Avatar, check_track
from ..avatar.pose_refinement import head_centre, offsets_from_units
from ..formats.capture import Capture
from ..formats.track import Track
from ..head.model import JAW
from ..progress import SILENT, Progress
from ..splatting.rasterize import rasterize
from .frames import TrackPoses, read_truth

WINDOW: Final = 8
"""Frames that are optimised together: enough for the rasteriser's threads, few enough for their images' memory."""
STEPS: Final = (12, 12)
"""Steps of Adam at half and at full image size."""
RATES: Final = (0.3, 0.15)
"""Learning rates of the two, in units of the offsets: 0.3 is a third of a degree, 1 mm or 0.03 of a coefficient."""
PRIOR_WEIGHT: Final = 3e-4
SMOOTHNESS_WEIGHT: Final = 1e-3
LARGEST_ALLOWANCE: Final = 4.0
LONGEST_GAP: Final = 0.25
"""Seconds between two frames above which they are not smooth with respect to each other: footage is missing there."""


@dataclass(frozen=True)
class FittedTrack:
    """The result of `track_by_avatar`."""

    track: Track
    frames: int
    """How many were fitted."""
    difference_before: float
    """Mean absolute difference between the avatar's images and the footage, in [0, 1], in the poses of the track."""
    difference: float
    """The same in the fitted poses."""


def track_by_avatar(
    avatar: Avatar, capture: Capture, track: Track, *, size: int | None = None, progress: Progress = SILENT
) -> FittedTrack:
    """Fits the good frames of a copy of the track to the capture's images through the avatar.

    The copy gets the avatar's identity, with which its poses belong together from then on. `size`: side of the images
    that are compared, by default that of the avatar's training. Raises an `EffigyError` for a track of another head
    model.
    """
    check_track(track, avatar.head_model)
    size = min(size or avatar.settings.size, capture.size)
    track = replace(track, identity=np.asarray(avatar.identity, np.float32))
    poses = TrackPoses(track, avatar.head_model, avatar.device)
    good = np.flatnonzero(track.flags == 0)
    allowances = torch.as_tensor(_allowances(track), device=avatar.device)
    units = torch.zeros(track.frame_count, poses.head.expression_size + 15, device=avatar.device)
    differences = torch.zeros(2, len(good))
    with _frozen(avatar):
        for start in range(0, len(good), WINDOW):
            indices = good[start : start + WINDOW]
            before = good[max(0, start - 2) : start]
            fixed = units[torch.as_tensor(before, device=avatar.device)]
            if start and not _are_neighbours(track, before[-1], indices[0]):
                fixed = fixed[:0]
            images = torch.from_numpy(np.stack([read_truth(capture, int(index), size)[0] for index in indices]))
            images = images.to(avatar.device).float() / 255
            fitted = _fit_window(avatar, poses, indices, images, fixed, allowances[indices], track, progress)
            units[torch.as_tensor(indices, device=avatar.device)] = fitted
            with torch.no_grad():
                for row, offsets in enumerate((torch.zeros_like(fitted), fitted)):
                    difference = _differences(avatar, poses, indices, images, offsets)
                    differences[row, start : start + len(indices)] = difference.cpu()
            progress.update("Fitting the avatar to the footage", min(start + WINDOW, len(good)), len(good))
    before, after = differences.mean(1).tolist()
    refined = _with_offsets(track, poses, good, units[torch.as_tensor(good, device=avatar.device)])
    return FittedTrack(refined, len(good), before, after)


def _fit_window(
    avatar: Avatar,
    poses: TrackPoses,
    indices: np.ndarray,
    images: Tensor,
    fixed: Tensor,
    allowances: Tensor,
    track: Track,
    progress: Progress,
) -> Tensor:
    """Offsets (W, E + 15) of the frames `indices` (W,) with `images` (W, H, H, 3). `fixed` (at most 2, E + 15) are
    those of the frames just before them.
    """
    start = fixed[-1:] if len(fixed) else torch.zeros_like(allowances[:1])
    units = start.repeat(len(indices), 1).requires_grad_()
    smooth = torch.as_tensor([_are_neighbours(track, *pair) for pair in pairwise(indices)], device=units.device)
    smooth = torch.cat((torch.ones(len(fixed), dtype=torch.bool, device=units.device), smooth))
    triples = (smooth[:-1] & smooth[1:]).float()[:, None]
    best, least = units.detach().clone(), torch.full((len(indices),), math.inf, device=units.device)
    for scale, (steps, rate) in zip((2, 1), zip(STEPS, RATES, strict=True), strict=True):
        target = torch.nn.functional.avg_pool2d(images.permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1)
        optimizer = torch.optim.Adam([units], rate)
        # The energies of two image sizes cannot be compared.
        least.fill_(math.inf)
        for step in range(steps + 1):
            progress.raise_if_cancelled()
            energies = _differences(avatar, poses, indices, target, units) + PRIOR_WEIGHT * (
                units / allowances
            ).square().mean(1)
            with torch.no_grad():
                better = energies < least
                least = torch.where(better, energies, least)
                best = torch.where(better[:, None], units, best)
            if step == steps:
                break
            series = torch.cat((fixed, units))
            bends = (series[:-2] - 2 * series[1:-1] + series[2:]) * triples
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.zero_grad()
            (energies.sum() + SMOOTHNESS_WEIGHT * bends.square().mean(1).sum()).backward()
            optimizer.step()
        with torch.no_grad():
            units.copy_(best)
    return best


def _differences(avatar: Avatar, poses: TrackPoses, indices: np.ndarray, images: Tensor, units: Tensor) -> Tensor:
    """(W,) mean absolute differences between `images` (W, H, H, 3), over white, and the avatar with these offsets."""
    pose, motion = poses.refined_pose(indices, offsets_from_units(units))
    raster = rasterize(motion.move(avatar.networks(pose)[0]), poses.cameras(indices, images.shape[1]))
    return (raster.color + (1 - raster.alpha[..., None]) - images).abs().mean((1, 2, 3))


def _with_offsets(track: Track, poses: TrackPoses, good: np.ndarray, units: Tensor) -> Track:
    with torch.no_grad():
        offsets = offsets_from_units(units)
        motion = offsets.rigid_motion(head_centre(poses.shaped)).matrices.cpu().numpy()
    expression, rotations, cameras = (part.copy() for part in (track.expression, track.rotations, track.head_to_camera))
    expression[good] += offsets.expression.cpu().numpy()
    rotations[good, JAW:] += offsets.joints.cpu().numpy()
    cameras[good] = cameras[good] @ motion
    return track.posed(expression=expression, rotations=rotations, head_to_camera=cameras)


def _allowances(track: Track) -> np.ndarray:
    """(F, E + 15) float32, at least 1."""
    size = track.expression.shape[1]
    result = np.ones((track.frame_count, size + 15), np.float32)
    if track.sigma is None:
        return result
    good = track.flags == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = track.sigma / np.nanmedian(track.sigma[good], 0)
    relative = np.clip(np.nan_to_num(relative, nan=1.0), 1, LARGEST_ALLOWANCE)
    result[:, : size + 3] = relative[:, : size + 3]
    # Each eye has two standard deviations and three offsets; rotation and position are given about the camera's axes,
    # the offsets about the head's.
    result[:, size + 3 : size + 5] = relative[:, size + 3 : size + 5]
    result[:, size + 6 : size + 8] = relative[:, size + 5 : size + 7]
    result[:, size + 9 : size + 12] = relative[:, size + 7 : size + 10].mean(1, keepdims=True)
    result[:, size + 12 :] = relative[:, size + 10 :].mean(1, keepdims=True)
    return result


def _are_neighbours(track: Track, before: int, after: int) -> bool:
    return float(track.times[after] - track.times[before]) <= LONGEST_GAP


@contextmanager
def _frozen(avatar: Avatar) -> Iterator[None]:
    """The networks without gradients of their own parameters, which nobody needs here."""
    wanted = {name: parameter.requires_grad for name, parameter in avatar.networks.named_parameters()}
    avatar.networks.requires_grad_(False)
    try:
        yield
    finally:
        for name, parameter in avatar.networks.named_parameters():
            parameter.requires_grad_(wanted[name])
