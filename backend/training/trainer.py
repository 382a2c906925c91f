"""Captures and their tracks → Avatar, its file and checkpoints: what is trained, on which device, and what is written.
`stages` trains.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..avatar.avatar import Avatar, save_avatar
from ..avatar.settings import DEFAULT_GENERATOR, GENERATORS, AvatarSettings
from ..devices import choose_device, give_up_cuda, usable_cuda
from ..errors import EffigyError
from ..formats.capture import Capture, load_capture, unchanged
from ..formats.track import Track, save_track
from ..head.registry import find_head
from ..progress import SILENT, Progress
from ..storage import RETRY_SECONDS, held, remove_file
from .capture_light import light_in_words
from .checkpoint import check_job, checkpoint_path, load_checkpoint
from .optimisation import SEED
from .pose_refinement import REFINED_TRACK
from .presets import Preset, find_preset
from .session import TrainingSession
from .stages import Task, train_on
from .tracked_captures import check_one_person, identification, load_training_track


def train(
    capture_folders: Path | Sequence[Path],
    avatar_path: Path,
    *,
    preset: str = "draft",
    generator: str | None = None,
    refined: bool = False,
    fit_poses: bool = False,
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
    replace it. `refined` trains in the poses of REFINED_TRACK as well as in the tracked ones, and refines none;
    `fit_poses` lets the avatar find such poses on its way (`fitted_poses`). Where the first capture shows shoulders,
    the avatar gets a bust after its `minutes`, unless it is `head_only`. `plan` replaces the values of `preset`; the
    avatar file then still records the name `preset`. `seed` is that of first weights and of every step's draws. `clock`
    returns the seconds by which minutes are counted. If poses are refined, the captures get REFINED_TRACK.

    If a GPU fails on the way (its memory runs out, a kernel cannot be built, the driver gives up), this is said in a
    message and the training goes on on the CPU from its last step or, if the GPU no longer gives its data back, from
    its last checkpoint.
    """
    avatar_path = Path(avatar_path)
    checkpoint_file = checkpoint_path(avatar_path)
    resumed = load_checkpoint(checkpoint_file) if resume else None
    # Checkpoints of earlier versions have an enhancer with blendshapes too.
    paper = resumed.has_enhancer if resumed else generator == "unet"
    plan = plan or find_preset(preset, paper=paper)
    if refined or fit_poses:
        # Of these, one replaces the other; refined poses are there already.
        plan = replace(plan, fits_poses=not refined, refinement=False)
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
    if settings is None:
        made_by = resumed.generator if resumed and generator is None else GENERATORS[generator or DEFAULT_GENERATOR]
        lips_turn = resumed.lips_turn if resumed else 1
        settings = AvatarSettings(enhancer_width=plan.enhancer_width, lips_turn=lips_turn, **made_by)
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
    if plan.fits_poses:
        job["fits_poses"] = True
    # Trainings that an earlier version has begun have learnt another mouth, and keep it.
    holds_mouth = resumed is None or bool(resumed.job.get("holds_mouth"))
    if holds_mouth:
        job["holds_mouth"] = True
    if refined:
        poses = [
            part for track in fitted or tracks for part in (track.expression, track.rotations, track.head_to_camera)
        ]
        job["track"] = hashlib.sha256(b"".join(part.tobytes() for part in poses)).hexdigest()
    if resumed:
        check_job(checkpoint_file, resumed, job)
    session = TrainingSession(checkpoint_file, job, progress, resumed)
    bust_steps = 0 if head_only else plan.bust_steps
    task = Task(
        captures, tracks, fitted, model, plan, preset, size, settings, minutes, seed, clock, bust_steps, holds_mouth
    )
    torch_device = choose_device(device)
    if device == "auto" and usable_cuda().gpu and not usable_cuda().usable:
        progress.message(usable_cuda().reason)
    trained = None
    try:
        trained = train_on(torch_device, task, session)
    except RuntimeError as error:
        reason = None if torch_device == torch.device("cpu") else give_up_cuda(error)
        if reason is None:
            raise
        progress.message(f"{reason} Training continues on the CPU.")
    if trained is None:
        # Outside of the exception's handler, whose traceback keeps the GPU's memory occupied.
        session.continue_from_last()
        trained = train_on(torch.device("cpu"), task, session)
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


def _save_refined_track(track: Track, capture: Capture, progress: Progress) -> None:
    """Save the refined track into the capture. If this fails, the avatar is kept and the user gets a message."""
    try:
        with held(capture.folder, "saving a refined track", wait=RETRY_SECONDS), unchanged(capture):
            save_track(track, capture.folder / REFINED_TRACK)
    except EffigyError as error:
        progress.message(f"The refined track could not be saved. {error}")
