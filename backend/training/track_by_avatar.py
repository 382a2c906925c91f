"""Tracks a person again by analysis through their own avatar (analysis by synthesis).

The tracker explains a frame by landmarks and by patches of skin; a trained avatar explains all of its pixels. Here the
avatar is fixed, and expression, jaw, eyes and head pose of every frame are optimised until its image fits the frame:

    E = |avatar's image - frame|                         mean over the image, both over white
      + PRIOR_WEIGHT      (offset / allowance)^2         mean over the components
      + SMOOTHNESS_WEIGHT (second difference in time)^2  mean over the components

An offset is the difference to the track, in units of a tracker's typical errors (`offsets_from_units`). Its allowance
is 1, and larger where the tracker's own standard deviation of this component is above its median over the clip: what
the landmarks left open in a frame may be corrected further.

The clip is cut into one segment for each worker thread, and a segment into windows, in the order of time. A window
starts from the offsets of the frame before it, since a tracker's error changes slowly, and is smooth with respect to
the two frames before it. In the end the offsets are filtered in time, which takes out most of what the noise of single
frames has added (`_filtered`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
from ..progress import SILENT, Progress
from ..splatting.rasterize import rasterize
from ..splatting.types import Splats
from .capture_light import in_light
from .frames import TrackPoses, evenly_spaced, read_truth
from .worker_threads import worker_threads

WINDOW: Final = 8
"""Frames that are optimised together."""
COARSE_STEPS: Final = 12
"""Steps of Adam at half the image size, in which the mesh carries Gaussians that the networks made once: a step then
takes a third of the time, and the poses become nearly as accurate."""
FINE_STEPS: Final = 8
"""Steps at full size and with the networks."""
COARSE_RATE: Final = 0.3
"""In units of the offsets: at first a third of a degree, 1 mm or 0.03 of a coefficient per step."""
FINE_RATE: Final = 0.15
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
    """The same in the fitted poses, before they are filtered in time."""


def track_by_avatar(
    avatar: Avatar,
    capture: Capture,
    track: Track,
    *,
    size: int | None = None,
    most: int | None = None,
    light: Tensor | None = None,
    progress: Progress = SILENT,
) -> FittedTrack:
    """Fits the good frames of a copy of the track to the capture's images through the avatar.

    The copy gets the avatar's identity, with which its poses belong together from then on. `size`: side of the images
    that are compared, by default that of the avatar's training. With more than `most` good frames only so many, evenly
    spaced, are fitted, and the offsets of those between are interpolated: a tracker's error changes slowly. `light`
    (3, 4): the change of colour by which the capture's light differs from the avatar's (`capture_light`). Raises an
    `EffigyError` for a track of another head model.
    """
    check_track(track, avatar.head_model)
    size = min(size or avatar.settings.size, capture.size)
    track = replace(track, identity=np.asarray(avatar.identity, np.float32))
    good = np.flatnonzero(track.flags == 0)
    fitted = good if most is None else evenly_spaced(good, most)
    fit = _Fit(avatar, capture, track, size, progress, light)
    done = 0
    with _frozen(avatar), worker_threads(avatar.device) as (pool, workers):
        segments = [part for part in np.array_split(fitted, workers) if len(part)]
        for start in range(0, max(map(len, segments), default=0), WINDOW):
            for finished in (pool.map if pool else map)(lambda part, at=start: fit.window(part, at), segments):
                done += finished
            progress.update("Fitting poses again", done, len(fitted))
    before, after = fit.differences[fitted].mean(0).tolist() if len(fitted) else (0.0, 0.0)
    units = _filtered(track, fitted, fit.units)
    if len(fitted) < len(good):
        between = [np.interp(track.times[good], track.times[fitted], series) for series in units.T.cpu().numpy()]
        units = torch.as_tensor(np.stack(between, 1), dtype=units.dtype, device=units.device)
    return FittedTrack(fit.poses.moved_tracks(good, offsets_from_units(units))[0], len(fitted), before, after)


class _Fit:
    """The offsets of a track's frames while they are fitted. Windows of different segments may be fitted at once."""

    def __init__(
        self,
        avatar: Avatar,
        capture: Capture,
        track: Track,
        size: int,
        progress: Progress,
        light: Tensor | None = None,
    ) -> None:
        self.avatar, self.capture, self.track, self.size, self.progress = avatar, capture, track, size, progress
        self.light = light
        self.poses = TrackPoses(
            track, avatar.head_model, avatar.device, avatar.face_limits, bool(avatar.settings.lips_turn)
        )
        self.allowances = torch.as_tensor(_allowances(track), device=avatar.device)
        self.units = torch.zeros_like(self.allowances)
        """(F, E + 15)"""
        self.differences = torch.zeros(track.frame_count, 2)
        """As in `FittedTrack`, before and after."""

    def window(self, segment: np.ndarray, start: int) -> int:
        """Fit the window of a segment (G,) that begins at `start`; returns its number of frames."""
        indices = segment[start : start + WINDOW]
        if not len(indices):
            return 0
        images = np.stack([read_truth(self.capture, int(index), self.size)[0] for index in indices])
        full = torch.from_numpy(images).to(self.avatar.device).float() / 255
        half = torch.nn.functional.avg_pool2d(full.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        before = segment[max(0, start - 2) : start]
        if start and not _are_neighbours(self.track, before[-1], indices[0]):
            before = before[:0]
        fixed = self.units[torch.as_tensor(before, device=full.device)]
        units = (fixed[-1:] if len(fixed) else torch.zeros_like(self.units[:1])).repeat(len(indices), 1)
        units = self._optimised(indices, fixed, units, COARSE_STEPS, COARSE_RATE, self._carried(indices, half, units))
        units = self._optimised(
            indices, fixed, units, FINE_STEPS, FINE_RATE, lambda units: self._difference(indices, full, units)
        )
        rows = torch.as_tensor(indices, device=full.device)
        self.units[rows] = units
        with torch.no_grad():
            for column, offsets in enumerate((torch.zeros_like(units), units)):
                self.differences[indices, column] = self._difference(indices, full, offsets).cpu()
        return len(indices)

    def _optimised(
        self,
        indices: np.ndarray,
        fixed: Tensor,
        units: Tensor,
        steps: int,
        rate: float,
        difference: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """The offsets (W, E + 15) with the least energy of each frame after `steps` of Adam from `units`. `fixed` (at
        most 2, E + 15) are those of the frames just before; `difference` is the first term of the energy.
        """
        together = [True] * len(fixed) + [_are_neighbours(self.track, *pair) for pair in pairwise(indices)]
        triples = torch.tensor([a and b for a, b in pairwise(together)], device=units.device).float()[:, None]
        allowances = self.allowances[torch.as_tensor(indices, device=units.device)]
        units = units.clone().requires_grad_()
        best, least = units.detach().clone(), torch.full((len(indices),), math.inf, device=units.device)
        optimizer = torch.optim.Adam([units], rate)
        for step in range(steps + 1):
            self.progress.raise_if_cancelled()
            energies = difference(units) + PRIOR_WEIGHT * (units / allowances).square().mean(1)
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
            total = energies.sum() + SMOOTHNESS_WEIGHT * bends.square().mean(1).sum()
            (units.grad,) = torch.autograd.grad(total, [units])
            optimizer.step()
        return best

    def _difference(self, indices: np.ndarray, images: Tensor, units: Tensor) -> Tensor:
        """(W,) mean absolute differences between `images` (W, H, H, 3), over white, and the avatar with these
        offsets.
        """
        pose, motion = self.poses.refined_pose(indices, offsets_from_units(units))
        return self._compared(indices, images, motion.move(self.avatar.networks(pose)[0]))

    def _carried(self, indices: np.ndarray, images: Tensor, start: Tensor) -> Callable[[Tensor], Tensor]:
        """A function like `_difference` that lets the mesh carry the Gaussians of the offsets `start`."""
        with torch.no_grad():
            pose, _ = self.poses.refined_pose(indices, offsets_from_units(start))
            made = self.avatar.networks(pose)[0]
            count = pose.posed.shape[1]
            # The Gaussians of the anchors come first, then those that each anchor spawned.
            anchors = torch.arange(count, device=start.device)
            spawned = (made.means.shape[1] - count) // count
            vertex_of = torch.cat((anchors, anchors.repeat_interleave(spawned)))

        def difference(units: Tensor) -> Tensor:
            offsets = offsets_from_units(units)
            moved = self.poses.vertices(indices, offsets) - pose.posed
            splats = Splats(**{**vars(made), "means": made.means + moved[:, vertex_of]})
            motion = offsets.rigid_motion(head_centre(self.poses.shaped))
            return self._compared(indices, images, motion.move(splats))

        return difference

    def _compared(self, indices: np.ndarray, images: Tensor, splats: Splats) -> Tensor:
        raster = rasterize(splats, self.poses.cameras(indices, images.shape[1]))
        raster = raster if self.light is None else in_light(raster, self.light.expand(len(indices), -1, -1))
        return (raster.color + (1 - raster.alpha[..., None]) - images).abs().mean((1, 2, 3))


def _filtered(track: Track, good: np.ndarray, units: Tensor) -> Tensor:
    """The offsets (G, E + 15) of the good frames, each the mean of (1, 2, 1) / 4 with its neighbours in time.

    On a frontal clip this halves the second differences of the head's position, which are then as small as before the
    fit, and costs less than 0.1 dB.
    """
    series = units[torch.as_tensor(good, device=units.device)]
    if len(good) < 2:
        return series
    together = torch.tensor([_are_neighbours(track, *pair) for pair in pairwise(good)], device=units.device)
    steps = torch.where(together[:, None], series[1:] - series[:-1], 0.0) / 4
    result = series.clone()
    result[:-1] += steps
    result[1:] -= steps
    return result


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
    trained = [parameter for parameter in avatar.networks.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
