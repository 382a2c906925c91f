"""Distils the networks of an avatar into Gaussian blendshapes, which Blender plays without the backend.

The networks are evaluated in random poses within the ranges of the training frames, extremes among them, and in the
poses of the footage where that is known: expressions that go together there need far fewer shapes. A principal
component analysis of all attributes gives their mean and the K directions in which they vary most; a second one, over
the anchors, gives each anchor F features by which the shapes are written (`backend.avatar.blendshapes`). Both have
closed forms. Last, a small network learns the weights of the shapes from the conditions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from ..avatar.anchors import GEOMETRY_SIZE
from ..avatar.avatar import Avatar, build_networks, check_track
from ..avatar.blendshapes import GaussianBlendshapes
from ..avatar.posing import Pose
from ..avatar.settings import GENERATORS
from ..avatar.views import clamp_view
from ..errors import EffigyError
from ..formats.track import Track
from ..head.model import EYE_L, EYE_R, JAW
from ..progress import SILENT, Progress
from ..splatting.rasterize import rasterize
from ..splatting.types import Cameras

SHAPES: Final = 64
"""With 48, sliders of one of three avatars differ by more than 1.5 / 255 (bench/results/player.md)."""
LEAST_WIDTH: Final = 128
"""Hidden units of the network that weighs the shapes."""
BASIS_POSES: Final = 384
"""From which the shapes are made: 0.4 GB of attributes on the open head."""
WEIGHT_POSES: Final = 2048
"""From which their weights are learnt."""
HELD_OUT: Final = 16
"""Poses in which the result is compared with the networks."""
BATCH: Final = 8
STEPS: Final = 2000
FOOTAGE_SHARE: Final = 0.4
"""Of the poses that are taken from footage."""
WIDEST: Final = 0.5
"""Radians, and coefficients, up to which an avatar varies that does not say what its clip performed."""
DISTANCE: Final = 0.6
"""Metres from the camera to the eyes."""
IMAGE: Final = 256
"""Side in pixels of the compared images."""


@dataclass(frozen=True)
class Baked:
    """The result of `bake`."""

    avatar: Avatar
    decibels: float
    """Of the images in held-out poses, against those of the networks."""


@dataclass(frozen=True)
class Samples:
    """Attributes of an avatar in M poses as L orthonormal shapes, the most varied first: (N, O) attributes."""

    conditions: Tensor
    """(M, C)"""
    mean: Tensor
    """(N, O)"""
    basis: Tensor
    """(L, N O) of the attributes times their importance."""
    weights: Tensor
    """(M, L)"""


def bake(
    avatar: Avatar,
    tracks: Sequence[Track] = (),
    *,
    shapes: int = SHAPES,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Baked:
    """An avatar of `shapes` blendshapes that looks like `avatar`, which is not changed. `tracks`: of its footage, of
    which the training frames are used. Raises an `EffigyError` for an avatar that has blendshapes already, and for
    tracks of another head model.
    """
    poses = sampler(avatar, seed, tracks)
    made = distil(avatar, sample(avatar, shapes, poses, progress), shapes, seed, progress)
    made.metrics["baked_psnr"] = decibels = _decibels(avatar, made, poses)
    return Baked(made, decibels)


@torch.no_grad()
def sample(avatar: Avatar, most: int, poses: PoseSampler, progress: Progress = SILENT) -> Samples:
    """The avatar in random poses, as at most `most` shapes. Raises as `bake`."""
    if avatar.networks.blendshapes is not None:
        raise EffigyError("The avatar consists of blendshapes already: Blender plays it as it is.")
    count, total = 0, BASIS_POSES + WEIGHT_POSES
    found, conditions = [], []
    for pose, attributes in poses.evaluated(BASIS_POSES):
        progress.raise_if_cancelled()
        progress.update("baking", count := count + len(attributes), total)
        found.append(attributes)
        conditions.append(pose.conditions)
    mean, basis, targets = _shapes_of(torch.cat(found), most)
    del found
    weights = [targets]
    for pose, attributes in poses.evaluated(WEIGHT_POSES):
        progress.raise_if_cancelled()
        progress.update("baking", count := count + len(attributes), total)
        weights.append(((attributes - mean) * _importance(mean)).flatten(1) @ basis.T)
        conditions.append(pose.conditions)
    return Samples(torch.cat(conditions), mean, basis, torch.cat(weights))


def distil(avatar: Avatar, samples: Samples, shapes: int, seed: int = 0, progress: Progress = SILENT) -> Avatar:
    """An avatar of the first `shapes` of the samples' shapes."""
    settings = replace(avatar.settings, **sizes(shapes))
    torch.manual_seed(seed)
    networks = build_networks(settings, avatar.head_model, avatar.identity).to(avatar.device)
    blended = networks.blendshapes
    assert blended is not None
    weights = samples.weights[:, :shapes]
    with torch.no_grad():
        networks.views.copy_(avatar.networks.views)
        networks.performed.copy_(avatar.networks.performed)
        networks.filmed.copy_(avatar.networks.filmed)
        if avatar.networks.neural is not None:
            blended.positions.copy_(avatar.networks.neural.offsets)
        if avatar.networks.enhancer is not None:
            networks.enhancer = avatar.networks.enhancer
        _store_shapes(blended, samples.mean, samples.basis[:shapes], weights.std(0))
    _learn_weights(blended, samples.conditions, weights, progress)
    blended.limit_weights(samples.conditions)
    return Avatar(networks.eval(), avatar.head_model, avatar.identity, settings, dict(avatar.metrics), bust=avatar.bust)


def sizes(shapes: int) -> dict[str, int]:
    """The settings of an avatar of so many shapes: as many features for each as a training takes."""
    usual = GENERATORS["blendshapes"]
    return {
        "blendshapes": shapes,
        "feature_size": shapes * usual["feature_size"] // usual["blendshapes"],
        "neural_width": max(LEAST_WIDTH, 2 * shapes),
    }


class PoseSampler:
    """Random poses within an avatar's ranges of expressions and views, and as many from footage where there is any."""

    def __init__(self, avatar: Avatar, random: np.random.Generator, tracks: Sequence[Track] = ()) -> None:
        self._avatar, self._random = avatar, random
        frames: list[list[np.ndarray]] = [[], [], []]
        for track in tracks:
            check_track(track, avatar.head_model)
            good = np.flatnonzero(track.flags[: track.training_count] == 0)
            for gathered, part in zip(frames, (track.expression, track.rotations, track.head_to_camera), strict=True):
                gathered.append(part[good])
        self._frames = [np.concatenate(parts) for parts in frames] if tracks else None
        performed, views = (part.cpu().numpy() for part in (avatar.networks.performed, avatar.networks.views))
        self._low, self._high = np.clip(performed[0], -WIDEST, None), np.clip(performed[1], None, WIDEST)
        finite = np.isfinite(performed).all(0)
        self._low[finite], self._high[finite] = performed[0, finite], performed[1, finite]
        self._views = np.clip(views, -WIDEST, WIDEST)

    def evaluated(self, count: int) -> Iterator[tuple[Pose, Tensor]]:
        """Poses, clamped to the ranges, and the attributes (B, N, O) of the avatar's networks in them."""
        for start in range(0, count, BATCH):
            pose = clamp_view(self.draw(min(BATCH, count - start))[0], self._avatar.networks.views)
            yield pose, self._avatar.networks.attributes(pose)

    def draw(self, count: int) -> tuple[Pose, Tensor]:
        """Poses, a third each: one value at its limit, some of them, and all of them at random; each with a random
        view, whose cameras (B, 4, 4) are the second value.
        """
        random, size = self._random, len(self._low)
        rest = np.clip(np.zeros(size), self._low, self._high)
        face = np.tile(rest, (count, 1))
        for row, kind in zip(face, random.integers(3, size=count), strict=True):
            share = random.random(size)
            values = self._low + share * (self._high - self._low)
            if kind == 0:
                chosen = random.integers(size)
                row[chosen] = (self._low, self._high)[random.integers(2)][chosen]
            elif kind == 1:
                chosen = random.random(size) < 0.2
                row[chosen] = values[chosen]
            else:
                row[:] = rest + 0.6 * (values - rest)
        device = self._avatar.device
        expression, joints = np.split(face.astype(np.float32), [size - 9], 1)
        rotations = np.zeros((count, 5, 3), np.float32)
        rotations[:, JAW : EYE_R + 1] = joints.reshape(count, 3, 3)
        parts = [expression, rotations, self._cameras(count)]
        if self._frames is not None and len(self._frames[0]):
            ours = random.random(count) < FOOTAGE_SHARE
            chosen = random.integers(len(self._frames[0]), size=count)
            for part, frames in zip(parts, self._frames, strict=True):
                part[ours] = frames[chosen[ours]]
        coefficients, turns, cameras = (torch.as_tensor(part, device=device) for part in parts)
        return self._avatar.pose(coefficients, turns, cameras), cameras

    def _cameras(self, count: int) -> np.ndarray:
        """(B, 4, 4) world to camera, upright, towards the eyes."""
        low, high = self._views.T[:, :, None]
        yaw, pitch = self._random.uniform(low, high, (2, count))
        ahead = np.stack((np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)), 1)
        right = np.cross(ahead, (0.0, 1.0, 0.0))
        right /= np.linalg.norm(right, axis=1, keepdims=True)
        eyes = self._avatar.shaped.joints[0, EYE_L : EYE_R + 1].mean(0).cpu().numpy()
        cameras = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
        cameras[:, :3, :3] = np.stack((right, np.cross(ahead, right), ahead), 1)
        cameras[:, :3, 3] = -np.einsum("bij,bj->bi", cameras[:, :3, :3], eyes - DISTANCE * ahead)
        return cameras


def sampler(avatar: Avatar, seed: int, tracks: Sequence[Track] = ()) -> PoseSampler:
    return PoseSampler(avatar, np.random.default_rng(seed), tracks)


def _importance(mean: Tensor) -> Tensor:
    """(O,): how much an error of an attribute counts. Log scales and quaternions show less than places and colours."""
    importance = torch.ones(mean.shape[1], device=mean.device)
    importance[3:GEOMETRY_SIZE] = 0.3
    return importance


def _shapes_of(attributes: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Attributes (M, N, O) -> their mean (N, O), L = `most` orthonormal shapes of the weighted attributes (L, N O), and
    the weights (M, L).
    """
    mean = attributes.mean(0)
    varied = ((attributes - mean) * _importance(mean)).flatten(1)
    # Of the M x M matrix of products, because M is far smaller than N O.
    values, vectors = torch.linalg.eigh(varied @ varied.T)
    values, kept = values[-most:].flip(0), vectors[:, -most:].flip(1)
    basis = (kept / values.clamp_min(1e-12).sqrt()).T @ varied
    return mean, basis, varied @ basis.T


def _store_shapes(shapes: GaussianBlendshapes, mean: Tensor, basis: Tensor, spread: Tensor) -> None:
    """Writes mean and shapes as features of the anchors times matrices. A shape of weight 1 has the size `spread` (K,),
    so that the features describe best what is seen most.
    """
    count, (n, outputs), size = len(basis), mean.shape, shapes.latents.shape[1]
    own = basis.view(count, n, outputs) / _importance(mean) * spread[:, None, None]
    rows = own.transpose(0, 1).reshape(n, -1)
    vectors = torch.linalg.eigh(rows.T @ rows)[1][:, -size:]
    shapes.mean.copy_(mean)
    shapes.latents.copy_(rows @ vectors)
    # The graph network adds nothing to the features.
    for parameter in shapes.decode_fine.parameters():
        parameter.zero_()
    shapes.shapes.copy_(vectors.T.reshape(size, count, outputs).transpose(0, 1))


def _learn_weights(shapes: GaussianBlendshapes, conditions: Tensor, targets: Tensor, progress: Progress) -> None:
    """Fits the mixing network: conditions (M, C) -> weights (M, K) in units of their spread."""
    targets = targets / targets.std(0).clamp_min(1e-9)
    centre, size = conditions.mean(0), conditions.std(0).clamp_min(1e-3)
    inputs = (conditions - centre) / size
    optimizer = torch.optim.AdamW(shapes.mix.parameters(), 3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        progress.raise_if_cancelled()
        progress.update("weights", step + 1, STEPS)
        error = (shapes.mix(inputs) - targets).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
    first = shapes.mix[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.weight.div_(size)
        first.bias.sub_(first.weight @ centre)


@torch.inference_mode()
def _decibels(networks: Avatar, made: Avatar, poses: PoseSampler) -> float:
    """PSNR of the images of `made` against those of `networks`, in new poses."""
    focal = 0.9 * IMAGE * DISTANCE / 0.3
    intrinsics = torch.tensor(((focal, 0, IMAGE / 2), (0, focal, IMAGE / 2), (0, 0, 1.0)), device=networks.device)
    error = 0.0
    for _ in range(HELD_OUT):
        pose, matrix = poses.draw(1)
        cameras = Cameras(intrinsics[None], matrix, IMAGE, IMAGE)
        truth, image = (rasterize(each.networks(pose)[0], cameras).color for each in (networks, made))
        error += float((truth - image).square().mean()) / HELD_OUT
    return -10 * float(np.log10(max(error, 1e-12)))
