"""The stages of a training on one device: warm-up with free Gaussians, their transfer to the networks, training of all
networks, and of the bust below the finished head.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..avatar.anchors import mean_edge_lengths
from ..avatar.avatar import Avatar, build_networks
from ..avatar.enhancer import head_depth
from ..avatar.graph_avatar import GraphAvatar
from ..avatar.posing import Pose
from ..avatar.settings import AvatarSettings
from ..formats.capture import Capture
from ..formats.track import Track
from ..head.model import HeadModel
from ..reading import reading
from .bust import train_bust
from .capture_light import CaptureLight
from .checkpoint import REMEDY
from .filmed_limits import hold_mouth, store_materials, store_training_ranges, store_weight_limits
from .fitted_poses import fit_poses, restore_poses
from .frames import TrainingFrames, evenly_spaced
from .losses import anchor_limits
from .optimisation import SEED, Optimisation, Part
from .parameter_groups import ParameterGroup, groups_beside_avatar, parameter_groups
from .pose_refinement import PoseRefiner
from .presets import BUST_SHARE, FIT_AT, WARMUP_SHARE, Preset
from .projection import project_into
from .session import TrainingSession
from .unobserved_regions import UnobservedPrior, UnobservedVertices
from .validation import Validation, split_captures
from .vertex_visibility import find_unobserved
from .visible_eyes import VisibleEyes
from .warmup import VertexBoundGaussians, distil_into_networks

CONDITION_NOISE = 0.03
"""Standard deviation of the noise on `Pose.conditions` in training: about the tracker's own error."""
DISTILLATION_FRAMES = 4
"""Frames on which the networks are started from the free Gaussians."""


@dataclass(frozen=True)
class Task:
    """What is trained, and how; the arguments of `train` after they were checked."""

    captures: list[Capture]
    tracks: list[Track]
    fitted: list[Track]
    """Further poses of the captures' frames, or none."""
    model: HeadModel
    plan: Preset
    preset: str
    size: int
    settings: AvatarSettings
    minutes: float | None
    seed: int
    clock: Callable[[], float]
    bust_steps: int
    holds_mouth: bool
    """See `filmed_limits.hold_mouth`."""


def train_on(
    device: torch.device, task: Task, session: TrainingSession
) -> tuple[Avatar, PoseRefiner | None, CaptureLight | None]:
    """All stages of a training on one device, from the checkpoint that `session` resumes, if any."""
    model, plan, settings, minutes = task.model, task.plan, task.settings, task.minutes
    identity = task.tracks[0].identity
    resumed = session.resumed
    torch.manual_seed(task.seed)
    frames = TrainingFrames(
        task.captures,
        task.tracks,
        model,
        task.size,
        device,
        session.progress,
        fewest=plan.fewest_frames,
        most=plan.frames,
        lips_turn=bool(settings.lips_turn),
    )
    frames.add_poses(task.fitted)
    networks = build_networks(settings, model, identity).to(device)
    pose_refiner = PoseRefiner(networks, frames) if plan.refinement else None
    light = CaptureLight(len(task.captures)).to(device) if len(task.captures) > 1 else None
    if networks.enhancer is not None:
        networks.enhancer.density.copy_(median_pixels_per_metre(networks, frames))
    store_training_ranges(networks, frames)
    if task.holds_mouth:
        hold_mouth(networks, model)
    rows, kept_rows = split_captures(frames.counts, plan.validation)
    validation = Validation(kept_rows)
    anchor_limit = anchor_limits(model, networks.base_scale)
    unobserved = find_unobserved(frames, model, anchor_limit)
    anchor_limit = unobserved.closing(anchor_limit, networks.base_scale)
    unobserved_prior = UnobservedPrior(unobserved.weight)
    warmup_share = WARMUP_SHARE if plan.warmup_steps else 0.0
    if plan.warmup_steps and (resumed is None or resumed.stage == "warmup"):
        free = train_free_gaussians(
            frames,
            identity,
            model,
            settings.sh_degree,
            plan,
            session,
            None if minutes is None else warmup_share * minutes,
            pose_refiner=pose_refiner,
            light=light,
            rows=rows,
            seed=task.seed,
            clock=task.clock,
            unobserved=unobserved,
        )
        pose = distillation_poses(frames)
        unobserved.extrapolate_into(free, pose, anchor_limit)
        with torch.no_grad():
            unobserved_prior = UnobservedPrior(unobserved.weight, free(pose)[1])
        distil_into_networks(free, networks, pose)
    optimisation = Optimisation(
        networks,
        [*parameter_groups(networks), *groups_beside_avatar(pose_refiner, light)],
        frames,
        anchor_limit,
        stage="Training",
        steps=plan.steps,
        batch=plan.batch,
        size=task.size,
        final_rate=0.05,
        condition_noise=CONDITION_NOISE,
        # An enhancer learns at the native scale of the images alone, and poses are fitted at it.
        coarse_until=0.0 if networks.enhancer or plan.fits_poses else plan.coarse_until,
        perceptual_crop=plan.perceptual_crop,
        pose_refiner=pose_refiner,
        enhancer=networks.enhancer,
        unobserved_prior=unobserved_prior,
        visible_eyes=VisibleEyes(model, settings.neural_per_anchor, frames),
        light=light,
        rows=rows,
        seed=task.seed,
        clock=task.clock,
        minutes=None if minutes is None else (1 - warmup_share) * minutes,
    )
    if resumed:
        with reading(session.checkpoint_file or Path("checkpoint"), "checkpoint", REMEDY):
            restore_poses(frames, resumed.tensors, session)
    rest = Part(stage="Training on", start=FIT_AT) if plan.fits_poses else None
    if plan.fits_poses and not frames.fitted:
        session.run(optimisation, "training", validation, Part(stage="Training", end=FIT_AT))
        fit_poses(Avatar(networks, model, identity, settings), task.captures, frames, optimisation, session)
        rest = Part(stage="Training on", start=optimisation.fraction_done)
    session.run(optimisation, "training", validation, rest)
    validation.restore_best(optimisation)
    if plan.fits_poses:
        store_training_ranges(networks, frames)
    store_weight_limits(networks, model, frames)
    store_materials(networks, model, distillation_poses(frames))
    metrics = {
        "preset": task.preset,
        "steps": optimisation.step,
        "training_seconds": round(session.total_seconds, 1),
        "training_frames": len(rows),
        "device": str(device),
    }
    if math.isfinite(optimisation.recent_psnr):
        # Checkpoints of earlier versions do not hold it.
        metrics["training_psnr"] = round(optimisation.recent_psnr, 2)
    if len(kept_rows):
        metrics["validation_psnr"] = round(validation.best_psnr, 2)
    avatar = Avatar(networks.eval(), model, identity, settings, metrics)
    track = (pose_refiner.refined_tracks() if pose_refiner else task.tracks)[0]
    if task.bust_steps and track.torso_to_camera is not None:
        avatar.bust = train_bust(
            avatar,
            task.captures[0],
            track,
            steps=task.bust_steps,
            minutes=None if minutes is None else BUST_SHARE * minutes,
            seed=task.seed,
            clock=task.clock,
            progress=session.progress,
        )
    return avatar, pose_refiner, light


def distillation_poses(frames: TrainingFrames) -> Pose:
    """DISTILLATION_FRAMES evenly spaced poses of a clip."""
    return frames.batch_poses(torch.from_numpy(evenly_spaced(np.arange(len(frames)), DISTILLATION_FRAMES)))


def train_free_gaussians(
    frames: TrainingFrames,
    identity: np.ndarray,
    model: HeadModel,
    sh_degree: int,
    plan: Preset,
    session: TrainingSession,
    minutes: float | None,
    *,
    size: int | None = None,
    pose_refiner: PoseRefiner | None = None,
    light: CaptureLight | None = None,
    rows: torch.Tensor | None = None,
    seed: int = SEED,
    clock: Callable[[], float] = time.monotonic,
    unobserved: UnobservedVertices | None = None,
) -> VertexBoundGaussians:
    """Train the free Gaussians of the warm-up, at half the image size unless `size` is given.

    They find colours and positions; detail comes later. With `minutes`, this stage ends after that time, otherwise
    after `plan.warmup_steps`. Pose refinement starts here, because Gaussians that only the mesh moves cannot overfit
    the tracking error of single frames. So does the light of several captures, or colours would be their mean.
    `identity` (S,) is the person's. `rows` are those of `Optimisation`. `unobserved` says in which colours the inside
    of a mouth starts.
    """
    vertices = model.template + model.shape_basis @ identity
    lengths = torch.from_numpy(mean_edge_lengths(vertices, model.faces))
    free = VertexBoundGaussians(lengths, sh_degree).to(frames.device)
    limits = anchor_limits(model, free.base_scale)
    known = project_into(free, frames, model, limits)
    if unobserved is not None:
        unobserved.paint_inside(free, known)
    optimisation = Optimisation(
        free,
        [
            ParameterGroup([free.geometry], 1e-2),
            ParameterGroup([free.appearance], 2e-2),
            *groups_beside_avatar(pose_refiner, light),
        ],
        frames,
        limits,
        stage="Warm-up",
        steps=plan.warmup_steps,
        batch=plan.batch,
        size=size or (frames.size // 2 if frames.size % 2 == 0 else frames.size),
        final_rate=0.1,
        minutes=minutes,
        pose_refiner=pose_refiner,
        visible_eyes=VisibleEyes(model, 0, frames),
        light=light,
        rows=rows,
        seed=seed,
        clock=clock,
    )
    session.run(optimisation, "warmup")
    optimisation.use_average()
    return free


@torch.no_grad()
def median_pixels_per_metre(networks: GraphAvatar, frames: TrainingFrames) -> torch.Tensor:
    """The size in pixels (a scalar) of one metre at the head's depth, median over the training images.

    It is the native scale of the enhancer.
    """
    batch = frames.batch(torch.from_numpy(evenly_spaced(np.arange(len(frames)), 16)), frames.size)
    depth = head_depth(networks(batch.pose)[0], batch.cameras)
    return (batch.cameras.intrinsics[:, 0, 0] / depth).median()
