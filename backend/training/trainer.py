"""Capture and track → Avatar: warm-up with free Gaussians, their transfer to the U-Nets, then training of all
networks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..avatar.anchors import mean_edge_lengths
from ..avatar.avatar import Avatar, build_networks, save_avatar
from ..avatar.enhancer import head_depth
from ..avatar.graph_avatar import GraphAvatar
from ..avatar.settings import AvatarSettings
from ..avatar.views import expression_limits, view_range
from ..devices import choose_device, usable_cuda
from ..errors import EffigyError
from ..formats.capture import Capture, load_capture
from ..formats.track import Track, load_track, save_track
from ..head.model import HeadModel
from ..head.registry import find_head
from ..progress import SILENT, Progress
from ..storage import remove_file
from .checkpoint import EVERY_SECONDS, Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from .frames import TrainingFrames, evenly_spaced
from .losses import anchor_limits
from .optimisation import SEED, Optimisation, ParameterGroup, render_over_white
from .pose_refinement import REFINED_TRACK, PoseRefiner
from .presets import Preset, find_preset
from .unobserved_regions import UnobservedPrior, find_unobserved
from .validation import EVERY_STEPS, Validation, split_rows
from .warmup import VertexBoundGaussians, distil_into_networks

PREVIEW_SECONDS = 10.0
"""Time between two preview images."""
WARMUP_SHARE = 0.1
"""Fraction of the user's minutes that the free Gaussians get. Their loss levels off long before, but the U-Nets start
from their result."""
CONDITION_NOISE = 0.03
"""Standard deviation of the noise on `Pose.conditions` in training: about the tracker's own error."""
REFINEMENT_LEARNING_RATE = 1e-2
"""Ten times the learning rate of the graph networks: each frame is visited a few dozen times only, within which its
pose offset must converge."""
DISTILLATION_FRAMES = 4
"""Frames on which the U-Nets are regressed to the free Gaussians."""


def train(
    capture_folder: Path,
    avatar_path: Path,
    *,
    preset: str = "draft",
    size: int | None = None,
    device: str = "auto",
    minutes: float | None = None,
    resume: bool = False,
    settings: AvatarSettings | None = None,
    plan: Preset | None = None,
    clock: Callable[[], float] = time.monotonic,
    progress: Progress = SILENT,
) -> Avatar:
    """Train on the frames before the held-out part, write `avatar_path` and return the avatar.

    With `minutes`, training ends by the clock instead of by the preset's number of steps. A killed run leaves a
    checkpoint beside `avatar_path`, from which `resume` continues. `size` is the training image size in pixels, by
    default the preset's. `plan` replaces the values of `preset`; the avatar file then still records the name `preset`.
    `clock` returns the seconds by which minutes are counted. If poses are refined, the capture gets REFINED_TRACK.
    """
    avatar_path = Path(avatar_path)
    plan = plan or find_preset(preset)
    capture = load_capture(Path(capture_folder))
    track = load_track(capture.folder / "track.npz")
    model = find_head(track.head_name, track.head_fingerprint, f"The track of {capture.source_name}")
    size = size or min(plan.size, capture.size)
    if not 64 <= size <= capture.size:
        raise EffigyError(f"The training size {size} does not fit this capture: choose 64 to {capture.size} pixels.")
    settings = replace(settings or AvatarSettings(enhancer_width=plan.enhancer_width), size=size)
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
    checkpoint_file = checkpoint_path(avatar_path)
    resumed = load_checkpoint(checkpoint_file, job) if resume else None
    torch.manual_seed(SEED)
    torch_device = choose_device(device)
    if device == "auto" and torch_device.type == "cpu" and usable_cuda().gpu:
        progress.message(usable_cuda().reason)
    frames = TrainingFrames(capture, track, model, size, torch_device, progress)
    session = _Session(checkpoint_file, job, progress, resumed)
    networks = build_networks(settings, model, track.identity).to(torch_device)
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
            clock=clock,
        )
        pose = frames.batch(torch.from_numpy(evenly_spaced(np.arange(len(frames)), DISTILLATION_FRAMES)), size).pose
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
        size=size,
        final_rate=0.05,
        condition_noise=CONDITION_NOISE,
        perceptual_crop=plan.perceptual_crop,
        pose_refiner=pose_refiner,
        enhancer=networks.enhancer,
        unobserved_prior=unobserved_prior,
        rows=rows,
        clock=clock,
        minutes=None if minutes is None else (1 - warmup_share) * minutes,
    )
    session.run(optimisation, "training", validation)
    validation.restore_best(optimisation)
    metrics = {
        "preset": preset,
        "steps": optimisation.step,
        "training_seconds": round(session.total_seconds, 1),
        "training_frames": len(rows),
        "device": str(torch_device),
        "training_psnr": round(optimisation.recent_psnr, 2),
    }
    if len(kept_rows):
        metrics["validation_psnr"] = round(validation.best_psnr, 2)
    avatar = Avatar(networks.eval(), model, track.identity, settings, metrics)
    save_avatar(avatar, avatar_path)
    if pose_refiner:
        _save_refined_track(pose_refiner, track, capture.folder / REFINED_TRACK, progress)
    remove_file(checkpoint_file)
    return avatar


def _save_refined_track(pose_refiner: PoseRefiner, track: Track, path: Path, progress: Progress) -> None:
    """Save the refined track into the capture. If this fails, the avatar is kept and the user gets a message."""
    try:
        save_track(pose_refiner.refined_track(track), path)
    except EffigyError as error:
        progress.message(f"The refined track could not be saved. {error}")


def train_free_gaussians(
    frames: TrainingFrames,
    track: Track,
    model: HeadModel,
    sh_degree: int,
    plan: Preset,
    session: _Session,
    minutes: float | None,
    *,
    size: int | None = None,
    pose_refiner: PoseRefiner | None = None,
    rows: torch.Tensor | None = None,
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
    session = _Session(None, {}, progress, None)
    return train_free_gaussians(
        frames, track, model, sh_degree, find_preset("draft"), session, minutes, size=size
    ).eval()


def parameter_groups(networks: GraphAvatar) -> list[ParameterGroup]:
    """The networks' parameters with their learning rates, in three groups.

    The graph networks have the learning rate of the released GraphAvatar code; the neural Gaussians and the enhancer
    have twice that. Per-vertex parameters have five times that of the graph networks: few pixels constrain each one.
    """
    per_vertex, graph, neural = [], [], []
    for name, parameter in networks.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith("bias_output") or (
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


class _Session:
    """Checkpoints and previews of one training run over all of its stages."""

    def __init__(
        self, checkpoint_file: Path | None, job: dict[str, object], progress: Progress, resumed: Checkpoint | None
    ) -> None:
        """`job` identifies this training in its checkpoints. `resumed`: the checkpoint to continue, if any.

        Without `checkpoint_file` nothing is saved.
        """
        self.checkpoint_file, self.job, self.progress, self.resumed = checkpoint_file, job, progress, resumed
        self.seconds_before = resumed.total_seconds if resumed else 0.0
        self.started = self.last_saved = self.last_preview = time.monotonic()

    @property
    def total_seconds(self) -> float:
        """Seconds since training started, without the time between a killed run and the run that resumed it."""
        return self.seconds_before + time.monotonic() - self.started

    def run(self, optimisation: Optimisation, stage: str, validation: Validation | None = None) -> None:
        """Run a stage, from the resumed checkpoint if that is of this stage, with checkpoints, previews and validation.

        `stage` is the name of the stage in the checkpoint.
        """
        if self.resumed and self.resumed.stage == stage:
            optimisation.restore(self.resumed.tensors, self.resumed.step, self.resumed.seconds)

        def after_step(_: Optimisation) -> None:
            if validation and optimisation.step % EVERY_STEPS == 0:
                validation.score(optimisation)
            now = time.monotonic()
            if now - self.last_saved > EVERY_SECONDS:
                self.save(optimisation, stage)
            if now - self.last_preview > PREVIEW_SECONDS:
                self.last_preview = now
                self.progress.preview(self._preview(optimisation))

        try:
            optimisation.run(self.progress, after_step)
        finally:
            # Saved also when cancelled. After SIGKILL the last periodic checkpoint remains.
            self.save(optimisation, stage)

    def save(self, optimisation: Optimisation, stage: str) -> None:
        """Write a checkpoint of a stage, if this run has a checkpoint file."""
        self.last_saved = time.monotonic()
        if self.checkpoint_file:
            save_checkpoint(
                self.checkpoint_file,
                Checkpoint(
                    self.job, stage, optimisation.step, optimisation.seconds, self.total_seconds, optimisation.tensors()
                ),
            )

    def _preview(self, optimisation: Optimisation) -> np.ndarray:
        """The middle training frame as the model renders it now: (size, size, 3) uint8 RGB."""
        batch = optimisation.frames.batch(torch.tensor([len(optimisation.frames) // 2]), optimisation.size)
        return (
            (render_over_white(optimisation.model, batch, optimisation.enhancer)[0].cpu().numpy() * 255)
            .round()
            .astype(np.uint8)
        )
