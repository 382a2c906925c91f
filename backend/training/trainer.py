"""Capture and track → Avatar: the warm-up's free Gaussians, handed over to the U-Nets, then all networks together."""

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
from ..avatar.views import performed_range, view_range
from ..devices import choose_device
from ..errors import EffigyError
from ..formats.capture import Capture, load_capture
from ..formats.track import Track, load_track, save_track
from ..head.model import HeadModel
from ..head.registry import find_head
from ..progress import SILENT, Progress
from .checkpoint import EVERY_SECONDS, Checkpoint, checkpoint_path, load_checkpoint, save_checkpoint
from .frames import TrainingFrames
from .losses import leash_of
from .optimisation import SEED, Fitting, ParameterGroup, picture_of
from .pose_refinement_in_training import REFINED_TRACK, Refining
from .presets import Preset, find_preset
from .unobserved_regions import Keeping, find_unseen
from .validation import EVERY_STEPS, Validation, split_rows
from .warmup import VertexBoundGaussians, hand_over

PREVIEW_SECONDS = 10.0
WARMUP_SHARE = 0.1
"""Of the minutes that a user gives; the free Gaussians level off long before, but the U-Nets start where they end."""
CONDITION_NOISE = 0.03
REFINEMENT_RATE = 1e-2
"""Ten times the networks': a frame is seen a few dozen times, and its offset has to be found in them."""
HAND_OVER_FRAMES = 4


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
    """Train on the frames before the held-out part and write `avatar_path`. With `minutes`, the clock ends it
    instead of the preset's steps. A killed run leaves a checkpoint beside `avatar_path`, which `resume` continues.
    `plan`: instead of the preset of that name, which then only names it in the file. `clock`: seconds; what minutes are
    counted by.
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
    place = checkpoint_path(avatar_path)
    found = load_checkpoint(place, job) if resume else None
    torch.manual_seed(SEED)
    chosen = choose_device(device)
    frames = TrainingFrames(capture, track, model, size, chosen, progress)
    session = _Session(place, job, progress, found)
    networks = build_networks(settings, model, track.identity).to(chosen)
    refining = Refining(networks, frames) if plan.refinement else None
    if networks.enhancer is not None:
        networks.enhancer.density.copy_(pixels_per_metre(networks, frames))
    remember_range(networks, frames)
    rows, kept_rows = split_rows(len(frames), plan.validation)
    validation = Validation(kept_rows)
    leash = leash_of(model, networks.base_scale)
    unseen = find_unseen(frames, model, leash)
    keeping = Keeping(unseen.hold)
    warmup_share = WARMUP_SHARE if plan.warmup_steps else 0.0
    if plan.warmup_steps and (found is None or found.stage == "warmup"):
        free = fit_free_gaussians(
            frames,
            track,
            model,
            settings.sh_degree,
            plan,
            session,
            None if minutes is None else warmup_share * minutes,
            refining=refining,
            rows=rows,
            clock=clock,
        )
        pose = frames.batch(_spread(len(frames), HAND_OVER_FRAMES), size).pose
        unseen.continue_over(free, pose)
        with torch.no_grad():
            keeping = Keeping(unseen.hold, free(pose)[1])
        hand_over(free, networks, pose)
    fitting = Fitting(
        networks,
        [*parameter_groups(networks), *_refinement_group(refining)],
        frames,
        leash,
        stage="Training",
        steps=plan.steps,
        batch=plan.batch,
        size=size,
        final_rate=0.05,
        condition_noise=CONDITION_NOISE,
        perceptual_crop=plan.perceptual_crop,
        refining=refining,
        enhancer=networks.enhancer,
        keeping=keeping,
        rows=rows,
        clock=clock,
        minutes=None if minutes is None else (1 - warmup_share) * minutes,
    )
    session.run(fitting, "training", validation)
    validation.choose(fitting)
    metrics = {
        "preset": preset,
        "steps": fitting.step,
        "training_seconds": round(session.total_seconds, 1),
        "training_frames": len(rows),
        "device": str(chosen),
        "training_psnr": round(fitting.recent_psnr, 2),
    }
    if len(kept_rows):
        metrics["validation_psnr"] = round(validation.best_psnr, 2)
    avatar = Avatar(networks.eval(), model, track.identity, settings, metrics)
    save_avatar(avatar, avatar_path)
    if refining:
        _write_refined(refining, track, capture.folder / REFINED_TRACK, progress)
    place.unlink(missing_ok=True)
    return avatar


def _write_refined(refining: Refining, track: Track, path: Path, progress: Progress) -> None:
    """A capture that cannot be written to costs the refined track, not the avatar."""
    try:
        save_track(refining.refined_track(track), path)
    except EffigyError as error:
        progress.message(f"The refined track was not kept. {error}")


def fit_free_gaussians(
    frames: TrainingFrames,
    track: Track,
    model: HeadModel,
    sh_degree: int,
    plan: Preset,
    session: _Session,
    minutes: float | None,
    *,
    size: int | None = None,
    refining: Refining | None = None,
    rows: torch.Tensor | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> VertexBoundGaussians:
    """The warm-up's first half, at half size unless told: it finds colours and places, detail comes later.

    The track is refined from here on: Gaussians that the mesh alone moves cannot learn a frame's tracking error by heart.
    """
    vertices = model.template + model.shape_basis @ track.identity
    lengths = torch.from_numpy(mean_edge_lengths(vertices, model.faces))
    free = VertexBoundGaussians(lengths, sh_degree).to(frames.device)
    fitting = Fitting(
        free,
        [ParameterGroup([free.geometry], 1e-2), ParameterGroup([free.appearance], 2e-2), *_refinement_group(refining)],
        frames,
        leash_of(model, free.base_scale),
        stage="Warm-up",
        steps=plan.warmup_steps,
        batch=plan.batch,
        size=size or (frames.size // 2 if frames.size % 2 == 0 else frames.size),
        final_rate=0.1,
        minutes=minutes,
        refining=refining,
        rows=rows,
        clock=clock,
    )
    session.run(fitting, "warmup")
    fitting.use_average()
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
    """The baseline of `evaluate --baselines`: free Gaussians driven by the mesh alone, trained for as long as the avatar."""
    torch.manual_seed(SEED)
    frames = TrainingFrames(capture, track, model, size, progress=progress)
    session = _Session(None, {}, progress, None)
    return fit_free_gaussians(frames, track, model, sh_degree, find_preset("draft"), session, minutes, size=size).eval()


def parameter_groups(networks: GraphAvatar) -> list[ParameterGroup]:
    """Rates: networks as in the released code, twice that for the neural Gaussians and the enhancer; what is one number a vertex moves
    faster, since few pixels tell it where to go.
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
def pixels_per_metre(networks: GraphAvatar, frames: TrainingFrames) -> torch.Tensor:
    """How large the training pictures show the head: the scale at which the enhancer works."""
    batch = frames.batch(_spread(len(frames), 16), frames.size)
    depth = head_depth(networks(batch.pose)[0], batch.cameras)
    return (batch.cameras.intrinsics[:, 0, 0] / depth).median()


@torch.no_grad()
def remember_range(networks: GraphAvatar, frames: TrainingFrames) -> None:
    """From where the training frames see the head, and what the face does in them; see `backend.avatar.views`."""
    rows = torch.arange(len(frames))
    conditions = torch.cat([frames.batch_poses(part).conditions for part in rows.split(64)])
    networks.views.copy_(view_range(conditions))
    networks.performed.copy_(performed_range(conditions))


def _refinement_group(refining: Refining | None) -> list[ParameterGroup]:
    return [ParameterGroup(refining.refinement.parameters(), REFINEMENT_RATE)] if refining else []


def _spread(count: int, wanted: int) -> torch.Tensor:
    return torch.linspace(0, count - 1, min(count, wanted)).round().long()


class _Session:
    """Checkpoints and previews of one run, over its stages."""

    def __init__(
        self, place: Path | None, job: dict[str, object], progress: Progress, found: Checkpoint | None
    ) -> None:
        self.place, self.job, self.progress, self.found = place, job, progress, found
        self.before = found.total_seconds if found else 0.0
        self.started = self.saved = self.shown = time.monotonic()

    @property
    def total_seconds(self) -> float:
        """Seconds of training over all sessions of this job."""
        return self.before + time.monotonic() - self.started

    def run(self, fitting: Fitting, stage: str, validation: Validation | None = None) -> None:
        if self.found and self.found.stage == stage:
            fitting.restore(self.found.tensors, self.found.step, self.found.seconds)

        def after_step(_: Fitting) -> None:
            if validation and fitting.step % EVERY_STEPS == 0:
                validation.look(fitting)
            now = time.monotonic()
            if now - self.saved > EVERY_SECONDS:
                self.save(fitting, stage)
            if now - self.shown > PREVIEW_SECONDS:
                self.shown = now
                self.progress.preview(self._preview(fitting))

        try:
            fitting.run(self.progress, after_step)
        finally:
            # Also when cancelled: what was reached is kept. After SIGKILL the last periodic one is.
            self.save(fitting, stage)

    def save(self, fitting: Fitting, stage: str) -> None:
        self.saved = time.monotonic()
        if self.place:
            save_checkpoint(
                self.place,
                Checkpoint(self.job, stage, fitting.step, fitting.seconds, self.total_seconds, fitting.tensors()),
            )

    def _preview(self, fitting: Fitting) -> np.ndarray:
        batch = fitting.frames.batch(torch.tensor([len(fitting.frames) // 2]), fitting.size)
        return (picture_of(fitting.model, batch, fitting.enhancer)[0].cpu().numpy() * 255).round().astype(np.uint8)
