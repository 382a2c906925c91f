"""Capture and track → Avatar: warm-up with free Gaussians, their transfer to the networks, then training of all
networks.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..avatar.anchors import mean_edge_lengths
from ..avatar.avatar import Avatar, build_networks, save_avatar
from ..avatar.enhancer import head_depth
from ..avatar.graph_avatar import GraphAvatar
from ..avatar.settings import DEFAULT_GENERATOR, GENERATORS, AvatarSettings
from ..avatar.views import expression_limits, view_range
from ..devices import choose_device, give_up_cuda, usable_cuda
from ..errors import EffigyError
from ..formats.capture import Capture, load_capture, unchanged
from ..formats.track import Track, load_track, save_track
from ..head.model import HeadModel
from ..head.registry import find_head
from ..progress import SILENT, Progress
from ..storage import RETRY_SECONDS, held, remove_file
from .checkpoint import check_job, checkpoint_path, load_checkpoint
from .frames import TrainingFrames, evenly_spaced
from .losses import anchor_limits
from .optimisation import SEED, Optimisation, ParameterGroup
from .pose_refinement import REFINED_TRACK, PoseRefiner
from .presets import WARMUP_SHARE, Preset, find_preset
from .session import TrainingSession
from .unobserved_regions import UnobservedPrior, find_unobserved
from .validation import Validation, split_rows
from .warmup import VertexBoundGaussians, distil_into_networks

CONDITION_NOISE = 0.03
"""Standard deviation of the noise on `Pose.conditions` in training: about the tracker's own error."""
REFINEMENT_LEARNING_RATE = 1e-2
"""Ten times the learning rate of the graph networks: each frame is visited a few dozen times only, within which its
pose offset must converge."""
DISTILLATION_FRAMES = 4
"""Frames on which the networks are started from the free Gaussians."""


def train(
    capture_folder: Path,
    avatar_path: Path,
    *,
    preset: str = "draft",
    generator: str | None = None,
    refined: bool = False,
    size: int | None = None,
    device: str = "auto",
    minutes: float | None = None,
    resume: bool = False,
    settings: AvatarSettings | None = None,
    plan: Preset | None = None,
    seed: int = SEED,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = SILENT,
) -> Avatar:
    """Train on the frames before the held-out part, write `avatar_path` and return the avatar.

    With `minutes`, training ends by the clock instead of by the preset's number of steps. A killed run leaves a
    checkpoint beside `avatar_path`, from which `resume` continues. `size` is the training image size in pixels, by
    default the preset's. `generator` is a key of GENERATORS, None the default, or that of the checkpoint; `settings`
    replace it. `refined` trains in the poses of REFINED_TRACK. `plan` replaces the values of `preset`; the avatar file
    then still records the name `preset`. `seed` is that of first weights and of every step's draws. `clock` returns the
    seconds by which minutes are counted. If poses are refined, the capture gets REFINED_TRACK.

    If a GPU fails on the way (its memory runs out, a kernel cannot be built, the driver gives up), this is said in a
    message and the training goes on on the CPU from its last step or, if the GPU no longer gives its data back, from
    its last checkpoint.
    """
    avatar_path = Path(avatar_path)
    plan = plan or find_preset(preset)
    capture = load_capture(Path(capture_folder))
    track = _track_of(capture, refined)
    model = find_head(track.head_name, track.head_fingerprint, f"The track of {capture.source_name}")
    size = size or min(plan.size, capture.size)
    if not 64 <= size <= capture.size:
        raise EffigyError(f"The training size {size} does not fit this capture: choose 64 to {capture.size} pixels.")
    checkpoint_file = checkpoint_path(avatar_path)
    resumed = load_checkpoint(checkpoint_file) if resume else None
    if settings is None:
        made_by = resumed.generator if resumed and generator is None else GENERATORS[generator or DEFAULT_GENERATOR]
        settings = AvatarSettings(enhancer_width=plan.enhancer_width, **made_by)
    settings = replace(settings, size=size)
    job = {
        "capture": capture.source_sha256,
        "frames": capture.frame_count,
        "head": model.fingerprint,
        "preset": preset,
        "refinement": plan.refinement,
        "warmup": plan.warmup_steps > 0,
        "minutes": minutes,
        "settings": settings.to_dict(),
    }
    if refined:
        poses = (track.expression, track.rotations, track.head_to_camera)
        job["track"] = hashlib.sha256(b"".join(part.tobytes() for part in poses)).hexdigest()
    if resumed:
        check_job(checkpoint_file, resumed, job)
    session = TrainingSession(checkpoint_file, job, progress, resumed)
    task = _Task(capture, track, model, plan, preset, size, settings, minutes, seed, clock)
    torch_device = choose_device(device)
    if device == "auto" and usable_cuda().gpu and not usable_cuda().usable:
        progress.message(usable_cuda().reason)
    trained = None
    try:
        trained = _train_on(torch_device, task, session)
    except RuntimeError as error:
        reason = None if torch_device == torch.device("cpu") else give_up_cuda(error)
        if reason is None:
            raise
        progress.message(f"{reason} Training continues on the CPU.")
    if trained is None:
        # Outside of the exception's handler, whose traceback keeps the GPU's memory occupied.
        session.continue_from_last()
        trained = _train_on(torch.device("cpu"), task, session)
    avatar, pose_refiner = trained
    save_avatar(avatar, avatar_path)
    if pose_refiner:
        _save_refined_track(pose_refiner, capture, progress)
    remove_file(checkpoint_file)
    return avatar


@dataclass(frozen=True)
class _Task:
    """What is trained, and how; the arguments of `train` after they were checked."""

    capture: Capture
    track: Track
    model: HeadModel
    plan: Preset
    preset: str
    size: int
    settings: AvatarSettings
    minutes: float | None
    seed: int
    clock: Callable[[], float]


def _train_on(device: torch.device, task: _Task, session: TrainingSession) -> tuple[Avatar, PoseRefiner | None]:
    """All stages of a training on one device, from the checkpoint that `session` resumes, if any."""
    track, model, plan, settings, minutes = task.track, task.model, task.plan, task.settings, task.minutes
    resumed = session.resumed
    torch.manual_seed(task.seed)
    frames = TrainingFrames(task.capture, track, model, task.size, device, session.progress)
    networks = build_networks(settings, model, track.identity).to(device)
    pose_refiner = PoseRefiner(networks, frames) if plan.refinement else None
    if networks.enhancer is not None:
        networks.enhancer.density.copy_(median_pixels_per_metre(networks, frames))
    store_training_ranges(networks, frames)
    rows, kept_rows = split_rows(len(frames), plan.validation)
    validation = Validation(kept_rows)
    anchor_limit = anchor_limits(model, networks.base_scale)
    unobserved = find_unobserved(frames, model, anchor_limit)
    unobserved_prior = UnobservedPrior(unobserved.weight)
    warmup_share = WARMUP_SHARE if plan.warmup_steps else 0.0
    if plan.warmup_steps and (resumed is None or resumed.stage == "warmup"):
        free = train_free_gaussians(
            frames,
            track,
            model,
            settings.sh_degree,
            plan,
            session,
            None if minutes is None else warmup_share * minutes,
            pose_refiner=pose_refiner,
            rows=rows,
            seed=task.seed,
            clock=task.clock,
        )
        pose = frames.batch(
            torch.from_numpy(evenly_spaced(np.arange(len(frames)), DISTILLATION_FRAMES)), task.size
        ).pose
        unobserved.extrapolate_into(free, pose)
        with torch.no_grad():
            unobserved_prior = UnobservedPrior(unobserved.weight, free(pose)[1])
        distil_into_networks(free, networks, pose)
    optimisation = Optimisation(
        networks,
        [*parameter_groups(networks), *_pose_refiner_group(pose_refiner)],
        frames,
        anchor_limit,
        stage="Training",
        steps=plan.steps,
        batch=plan.batch,
        size=task.size,
        final_rate=0.05,
        condition_noise=CONDITION_NOISE,
        perceptual_crop=plan.perceptual_crop,
        pose_refiner=pose_refiner,
        enhancer=networks.enhancer,
        unobserved_prior=unobserved_prior,
        rows=rows,
        seed=task.seed,
        clock=task.clock,
        minutes=None if minutes is None else (1 - warmup_share) * minutes,
    )
    session.run(optimisation, "training", validation)
    validation.restore_best(optimisation)
    metrics = {
        "preset": task.preset,
        "steps": optimisation.step,
        "training_seconds": round(session.total_seconds, 1),
        "training_frames": len(rows),
        "device": str(device),
        "training_psnr": round(optimisation.recent_psnr, 2),
    }
    if len(kept_rows):
        metrics["validation_psnr"] = round(validation.best_psnr, 2)
    return Avatar(networks.eval(), model, track.identity, settings, metrics), pose_refiner


def _track_of(capture: Capture, refined: bool) -> Track:
    file = capture.folder / (REFINED_TRACK if refined else "track.npz")
    if refined and not file.exists():
        raise EffigyError(
            f"{capture.folder} has no refined track: train an avatar on it and run `refine` with it first, or train "
            "without --refined."
        )
    track = load_track(file)
    if len(track.flags) != capture.frame_count:
        raise EffigyError(
            f"{file} has {len(track.flags)} frames, the capture has {capture.frame_count}: "
            f"{'refine its track' if refined else 'track the capture'} again."
        )
    return track


def _save_refined_track(pose_refiner: PoseRefiner, capture: Capture, progress: Progress) -> None:
    """Save the refined track into the capture. If this fails, the avatar is kept and the user gets a message."""
    try:
        with held(capture.folder, "saving a refined track", wait=RETRY_SECONDS), unchanged(capture):
            save_track(pose_refiner.refined_track(), capture.folder / REFINED_TRACK)
    except EffigyError as error:
        progress.message(f"The refined track could not be saved. {error}")


def train_free_gaussians(
    frames: TrainingFrames,
    track: Track,
    model: HeadModel,
    sh_degree: int,
    plan: Preset,
    session: TrainingSession,
    minutes: float | None,
    *,
    size: int | None = None,
    pose_refiner: PoseRefiner | None = None,
    rows: torch.Tensor | None = None,
    seed: int = SEED,
    clock: Callable[[], float] = time.monotonic,
) -> VertexBoundGaussians:
    """Train the free Gaussians of the warm-up, at half the image size unless `size` is given.

    They find colours and positions; detail comes later. With `minutes`, this stage ends after that time, otherwise
    after `plan.warmup_steps`. Pose refinement starts here, because Gaussians that only the mesh moves cannot overfit
    the tracking error of single frames. `rows` are those of `Optimisation`.
    """
    vertices = model.template + model.shape_basis @ track.identity
    lengths = torch.from_numpy(mean_edge_lengths(vertices, model.faces))
    free = VertexBoundGaussians(lengths, sh_degree).to(frames.device)
    optimisation = Optimisation(
        free,
        [
            ParameterGroup([free.geometry], 1e-2),
            ParameterGroup([free.appearance], 2e-2),
            *_pose_refiner_group(pose_refiner),
        ],
        frames,
        anchor_limits(model, free.base_scale),
        stage="Warm-up",
        steps=plan.warmup_steps,
        batch=plan.batch,
        size=size or (frames.size // 2 if frames.size % 2 == 0 else frames.size),
        final_rate=0.1,
        minutes=minutes,
        pose_refiner=pose_refiner,
        rows=rows,
        seed=seed,
        clock=clock,
    )
    session.run(optimisation, "warmup")
    optimisation.use_average()
    return free


def train_vertex_bound(
    capture: Capture,
    track: Track,
    model: HeadModel,
    *,
    size: int,
    minutes: float,
    sh_degree: int = 1,
    progress: Progress = SILENT,
) -> VertexBoundGaussians:
    """The baseline of `evaluate --baselines`: free Gaussians driven by the mesh alone, trained for `minutes`."""
    torch.manual_seed(SEED)
    frames = TrainingFrames(capture, track, model, size, progress=progress)
    session = TrainingSession(None, {}, progress, None)
    return train_free_gaussians(
        frames, track, model, sh_degree, find_preset("draft"), session, minutes, size=size
    ).eval()


def parameter_groups(networks: GraphAvatar) -> list[ParameterGroup]:
    """The networks' parameters with their learning rates, in three groups.

    The graph networks, and the shapes and the mixing network of blendshapes, have the learning rate of the released
    GraphAvatar code; the neural Gaussians and the enhancer have twice that. Per-vertex parameters have five times that
    of the graph networks: few pixels constrain each one.
    """
    per_vertex, graph, neural = [], [], []
    for name, parameter in networks.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(("bias_output", "blendshapes.mean", "blendshapes.positions", "blendshapes.latents")) or (
            name.startswith("neural") and (name.endswith((".bias", "offsets")) and "from_" not in name)
        ):
            per_vertex.append(parameter)
        else:
            (neural if name.startswith(("neural", "enhancer")) else graph).append(parameter)
    return [ParameterGroup(per_vertex, 5e-3), ParameterGroup(graph, 1e-3), ParameterGroup(neural, 2e-3)]


@torch.no_grad()
def median_pixels_per_metre(networks: GraphAvatar, frames: TrainingFrames) -> torch.Tensor:
    """The size in pixels (a scalar) of one metre at the head's depth, median over the training images.

    It is the native scale of the enhancer.
    """
    batch = frames.batch(torch.from_numpy(evenly_spaced(np.arange(len(frames)), 16)), frames.size)
    depth = head_depth(networks(batch.pose)[0], batch.cameras)
    return (batch.cameras.intrinsics[:, 0, 0] / depth).median()


@torch.no_grad()
def store_training_ranges(networks: GraphAvatar, frames: TrainingFrames) -> None:
    """Store the range of views and of expressions of the training frames in the networks; see
    `backend.avatar.views`.
    """
    rows = torch.arange(len(frames))
    conditions = torch.cat([frames.batch_poses(part).conditions for part in rows.split(64)])
    networks.views.copy_(view_range(conditions))
    networks.performed.copy_(expression_limits(conditions))


def _pose_refiner_group(pose_refiner: PoseRefiner | None) -> list[ParameterGroup]:
    return [ParameterGroup(pose_refiner.refinement.parameters(), REFINEMENT_LEARNING_RATE)] if pose_refiner else []
