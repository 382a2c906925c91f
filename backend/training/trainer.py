"""Captures and their tracks → Avatar: warm-up with free Gaussians, their transfer to the networks, then training of all
networks, and of the bust below the finished head.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..avatar.anchors import mean_edge_lengths
from ..avatar.avatar import Avatar, build_networks, save_avatar
from ..avatar.enhancer import head_depth
from ..avatar.graph_avatar import GraphAvatar
from ..avatar.posing import Pose
from ..avatar.settings import DEFAULT_GENERATOR, GENERATORS, AvatarSettings
from ..devices import choose_device, give_up_cuda, usable_cuda
from ..errors import EffigyError
from ..formats.capture import Capture, load_capture, unchanged
from ..formats.track import Track, save_track
from ..head.model import HeadModel
from ..head.registry import find_head
from ..progress import SILENT, Progress
from ..reading import reading
from ..storage import RETRY_SECONDS, held, remove_file
from .bust import train_bust
from .capture_light import CaptureLight, light_in_words
from .checkpoint import REMEDY, check_job, checkpoint_path, load_checkpoint
from .filmed_limits import store_materials, store_training_ranges, store_weight_limits
from .fitted_poses import fit_poses, restore_poses
from .frames import TrainingFrames, evenly_spaced
from .losses import anchor_limits
from .optimisation import SEED, Optimisation, Part
from .parameter_groups import ParameterGroup, groups_beside_avatar, parameter_groups
from .pose_refinement import REFINED_TRACK, PoseRefiner
from .presets import BUST_SHARE, FIT_AT, WARMUP_SHARE, Preset, find_preset
from .projection import project_into
from .session import TrainingSession
from .tracked_captures import check_one_person, identification, load_training_track
from .unobserved_regions import UnobservedPrior, find_unobserved
from .validation import Validation, split_captures
from .warmup import VertexBoundGaussians, distil_into_networks

CONDITION_NOISE = 0.03
"""Standard deviation of the noise on `Pose.conditions` in training: about the tracker's own error."""
DISTILLATION_FRAMES = 4
"""Frames on which the networks are started from the free Gaussians."""


def train(
    capture_folders: Path | Sequence[Path],
    avatar_path: Path,
    *,
    preset: str = "draft",
    generator: str | None = None,
    refined: bool = False,
    head_only: bool = False,
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
    """Train on the frames before each capture's held-out part, write `avatar_path` and return the avatar.

    Several captures are of one person, tracked together. Every frame counts as much as any other, whichever capture
    it belongs to. The avatar has the colours of the first capture; how the light of the others differs is learnt beside
    it (`capture_light`) and said in a message.

    With `minutes`, training ends by the clock instead of by the preset's number of steps. A killed run leaves a
    checkpoint beside `avatar_path`, from which `resume` continues. `size` is the training image size in pixels, by
    default the preset's. `generator` is a key of GENERATORS, None the default, or that of the checkpoint; `settings`
    replace it. `refined` trains in the poses of REFINED_TRACK as well as in
    the tracked ones. Where the first capture shows shoulders, the avatar gets
    a bust after its `minutes`, unless it is `head_only`. `plan` replaces the values of `preset`; the avatar file
    then still records the name `preset`. `seed` is that of first weights and of every step's draws. `clock` returns the
    seconds by which minutes are counted. If poses are refined, the captures get REFINED_TRACK.

    If a GPU fails on the way (its memory runs out, a kernel cannot be built, the driver gives up), this is said in a
    message and the training goes on on the CPU from its last step or, if the GPU no longer gives its data back, from
    its last checkpoint.
    """
    avatar_path = Path(avatar_path)
    plan = plan or find_preset(preset)
    if refined:
        plan = replace(plan, fits_poses=False)
    folders = [capture_folders] if isinstance(capture_folders, (str, Path)) else capture_folders
    captures = [load_capture(Path(folder)) for folder in folders]
    tracks = [load_training_track(capture, False) for capture in captures]
    fitted = [load_training_track(capture, True) for capture in captures] if refined else []
    if fitted and not np.array_equal(fitted[0].identity, tracks[0].identity):
        # They belong to an avatar of another identity, with which the tracked poses do not fit the frames.
        tracks, fitted = fitted, []
    check_one_person(captures, tracks)
    model = find_head(tracks[0].head_name, tracks[0].head_fingerprint, f"The track of {captures[0].source_name}")
    largest = min(capture.size for capture in captures)
    size = size or min(plan.size, largest)
    if not 64 <= size <= largest:
        fits = "this capture" if len(captures) == 1 else "these captures"
        raise EffigyError(f"The training size {size} does not fit {fits}: choose 64 to {largest} pixels.")
    checkpoint_file = checkpoint_path(avatar_path)
    resumed = load_checkpoint(checkpoint_file) if resume else None
    if settings is None:
        made_by = resumed.generator if resumed and generator is None else GENERATORS[generator or DEFAULT_GENERATOR]
        settings = AvatarSettings(enhancer_width=plan.enhancer_width, **made_by)
    settings = replace(settings, size=size)
    job = {
        **identification(captures),
        "head": model.fingerprint,
        "preset": preset,
        "refinement": plan.refinement,
        "warmup": plan.warmup_steps > 0,
        "minutes": minutes,
        "settings": settings.to_dict(),
    }
    if refined:
        poses = [
            part for track in fitted or tracks for part in (track.expression, track.rotations, track.head_to_camera)
        ]
        job["track"] = hashlib.sha256(b"".join(part.tobytes() for part in poses)).hexdigest()
    if resumed:
        check_job(checkpoint_file, resumed, job)
    session = TrainingSession(checkpoint_file, job, progress, resumed)
    bust_steps = 0 if head_only else plan.bust_steps
    task = _Task(captures, tracks, fitted, model, plan, preset, size, settings, minutes, seed, clock, bust_steps)
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
    avatar, pose_refiner, light = trained
    save_avatar(avatar, avatar_path)
    if pose_refiner:
        for capture, track in zip(captures, pose_refiner.refined_tracks(), strict=True):
            _save_refined_track(track, capture, progress)
    if light:
        for capture, affine in zip(captures[1:], light.affine().detach().cpu()[1:], strict=True):
            progress.message(
                f"The light of {capture.folder.name} against that of {captures[0].folder.name}, whose colours the "
                f"avatar has: {light_in_words(affine)}."
            )
    remove_file(checkpoint_file)
    return avatar


@dataclass(frozen=True)
class _Task:
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


def _train_on(
    device: torch.device, task: _Task, session: TrainingSession
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
    )
    frames.add_poses(task.fitted)
    networks = build_networks(settings, model, identity).to(device)
    pose_refiner = PoseRefiner(networks, frames) if plan.refinement else None
    light = CaptureLight(len(task.captures)).to(device) if len(task.captures) > 1 else None
    if networks.enhancer is not None:
        networks.enhancer.density.copy_(median_pixels_per_metre(networks, frames))
    store_training_ranges(networks, frames)
    rows, kept_rows = split_captures(frames.counts, plan.validation)
    validation = Validation(kept_rows)
    anchor_limit = anchor_limits(model, networks.base_scale)
    unobserved = find_unobserved(frames, model, anchor_limit)
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
        )
        pose = _some_poses(frames)
        unobserved.extrapolate_into(free, pose)
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
        perceptual_crop=plan.perceptual_crop,
        pose_refiner=pose_refiner,
        enhancer=networks.enhancer,
        unobserved_prior=unobserved_prior,
        light=light,
        rows=rows,
        seed=task.seed,
        clock=task.clock,
        minutes=None if minutes is None else (1 - warmup_share) * minutes,
    )
    if resumed:
        with reading(session.checkpoint_file or Path("checkpoint"), "checkpoint", REMEDY):
            restore_poses(frames, resumed.tensors, session)
    last_part = Part("Training on", start=FIT_AT) if plan.fits_poses else None
    if plan.fits_poses and not frames.fitted:
        session.run(optimisation, "training", validation, Part("Training", end=FIT_AT))
        fit_poses(Avatar(networks, model, identity, settings), task.captures, frames, optimisation, session)
        last_part = Part("Training on", start=optimisation.fraction_done)
    session.run(optimisation, "training", validation, last_part)
    validation.restore_best(optimisation)
    store_training_ranges(networks, frames)
    store_weight_limits(networks, model, frames)
    store_materials(networks, model, _some_poses(frames))
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


def _some_poses(frames: TrainingFrames) -> Pose:
    """DISTILLATION_FRAMES evenly spaced poses of a clip."""
    return frames.batch_poses(torch.from_numpy(evenly_spaced(np.arange(len(frames)), DISTILLATION_FRAMES)))


def _save_refined_track(track: Track, capture: Capture, progress: Progress) -> None:
    """Save the refined track into the capture. If this fails, the avatar is kept and the user gets a message."""
    try:
        with held(capture.folder, "saving a refined track", wait=RETRY_SECONDS), unchanged(capture):
            save_track(track, capture.folder / REFINED_TRACK)
    except EffigyError as error:
        progress.message(f"The refined track could not be saved. {error}")


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
) -> VertexBoundGaussians:
    """Train the free Gaussians of the warm-up, at half the image size unless `size` is given.

    They find colours and positions; detail comes later. With `minutes`, this stage ends after that time, otherwise
    after `plan.warmup_steps`. Pose refinement starts here, because Gaussians that only the mesh moves cannot overfit
    the tracking error of single frames. So does the light of several captures, or colours would be their mean.
    `identity` (S,) is the person's. `rows` are those of `Optimisation`.
    """
    vertices = model.template + model.shape_basis @ identity
    lengths = torch.from_numpy(mean_edge_lengths(vertices, model.faces))
    free = VertexBoundGaussians(lengths, sh_degree).to(frames.device)
    limits = anchor_limits(model, free.base_scale)
    project_into(free, frames, model, limits)
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
