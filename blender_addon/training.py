"""Trains an avatar on a rig's capture: starting, and resuming with the settings that the training was started with.
Also what the avatar is good for there: a refined track.

A stopped training leaves a checkpoint beside its avatar. Its settings are stored on the rig, in the .blend file, so
that it can be resumed after Blender was closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import bpy

from . import avatars, tasks, trusted_paths
from .errors import EffigyError
from .file_names import beside, file_name
from .paths import MORE, absolute, check_written, is_file, settings_of, stored
from .reading import check_unless_missing
from .renaming import unused
from .rig.data import TrackData
from .rig.performance import apply_track_steps
from .rig.rig_properties import Rig, find_rig, find_rigs
from .rig.steps import Steps
from .tasks import Task

CHECKPOINT: Final = ".checkpoint"
"""Suffix of the checkpoint that a stopped training leaves beside its avatar: `anna.effigy.checkpoint`."""
REFINED_TRACK: Final = "track_refined.npz"
"""The track in the capture's folder that *Refine Track with Avatar* writes, and a training that refines poses."""


@dataclass(frozen=True)
class TrainingRequest:
    """The worker's job `train`."""

    capture: Path
    avatar: Path
    """The file to write."""
    preset: str
    device: str
    size: int | None = None
    """Side of the training images, pixels; None: as in the preset."""
    minutes: float | None = None
    """None: the preset's number of steps."""
    resume: bool = False
    more: tuple[Path, ...] = ()
    """Further captures of the person, tracked together with `capture`, whose colours the avatar has."""

    @property
    def captures(self) -> tuple[Path, ...]:
        return self.capture, *self.more

    def params(self) -> dict[str, Any]:
        """The job's parameters in the worker protocol."""
        required = {
            "capture": [str(path) for path in self.captures] if self.more else str(self.capture),
            "avatar": str(self.avatar),
            "preset": self.preset,
            "device": self.device,
        }
        optional = {"size": self.size, "minutes": self.minutes, "resume": self.resume or None}
        return required | {name: value for name, value in optional.items() if value is not None}

    def to_json(self, path_text: Callable[[Path], str]) -> str:
        """For a rig's property `training`. `path_text` writes a path, for example relative to the .blend file."""
        params = replace(self, resume=False).params()
        paths: dict[str, Any] = {"capture": path_text(self.capture), "avatar": path_text(self.avatar)}
        if self.more:
            paths[MORE] = [path_text(path) for path in self.more]
        return json.dumps(params | paths)

    @classmethod
    def from_json(cls, text: str, path_of: Callable[[str], Path]) -> TrainingRequest | None:
        """From a rig's property `training`; None if it is empty or damaged."""
        match settings_of(text):
            case {"capture": str(capture), "avatar": str(avatar), "preset": str(preset), "device": str(device), **rest}:
                size, minutes, more = rest.get("size"), rest.get("minutes"), rest.get(MORE, [])
            case _:
                return None
        if not (size is None or type(size) is int) or not (minutes is None or type(minutes) in (int, float)):
            return None
        try:
            paths = path_of(capture), path_of(avatar)
            return cls(*paths, preset, device, size, minutes, more=tuple(path_of(path) for path in more))
        except EffigyError:
            return None


def train(rig: Rig, others: Sequence[Rig] = ()) -> Task:
    """Starts training a new avatar on the rig's capture, with the settings on the rig, and on the captures of `others`,
    which were tracked together with it (`together`).
    """
    settings = rig.armature.effigy
    capture = capture_of(rig)
    more = further_captures(rig, others)
    for other, path in more.items():
        check_written(path, other)
    taken = tuple(Path(task.params.get("avatar", "")) for task in tasks.running())
    return _start(
        rig,
        TrainingRequest(
            capture,
            unused(capture.with_name(file_name(capture.stem, avatars.SUFFIX)), taken),
            settings.preset,
            settings.device,
            settings.size or None,
            round(settings.minutes, 3) if settings.minutes else None,
            more=tuple(more.values()),
        ),
    )


def further_captures(rig: Rig, others: Sequence[Rig]) -> dict[bpy.types.Object, Path]:
    """The captures of other rigs, by their armatures, each once and without that of `rig`."""
    found: dict[bpy.types.Object, Path] = {}
    capture = capture_of(rig)
    for other in others:
        if other.armature != rig.armature and (path := capture_of(other)) not in (capture, *found.values()):
            found[other.armature] = path
    return found


def resume(rig: Rig) -> Task:
    """Resumes the training that was stopped, or that ended when Blender was closed."""
    last = last_training(rig)
    if last is None or task_of(rig) is not None or not is_file(checkpoint_of(last)):
        raise EffigyError(f"“{rig.armature.name}” has no stopped training to go on with: start one.")
    return _start(rig, replace(last, resume=True))


def can_resume(rig: Rig) -> bool:
    """Whether the rig's last training has left a checkpoint and is not running. For a path that was not used on this
    computer before, it is not looked whether there is a checkpoint, because panels ask this without a click.
    """
    last = last_training(rig)
    if last is None or task_of(rig) is not None:
        return False
    return not trusted_paths.trusts(last.avatar) or is_file(checkpoint_of(last))


def checkpoint_of(request: TrainingRequest) -> Path:
    return beside(request.avatar, CHECKPOINT)


def last_training(rig: Rig) -> TrainingRequest | None:
    """What the rig's last training was started with, or None. Its paths are those of today."""
    return TrainingRequest.from_json(rig.armature.effigy.training, lambda path: absolute(path, rig.armature))


def task_of(rig: Rig) -> Task | None:
    """The running training of this rig, or None."""
    last = last_training(rig)
    if last is None:
        return None
    return next((task for task in tasks.running() if Path(task.params.get("avatar", "")) == last.avatar), None)


def has_refined_track(rig: Rig) -> bool:
    """Whether there is a refined track for the rig's capture, and it can be keyed on the rig. It is not
    looked for in a folder that was not used on this computer before, as in `can_resume`.
    """
    settings = rig.armature.effigy
    try:
        known = not settings.capture or trusted_paths.trusts(absolute(settings.capture, rig.armature))
        return rig.is_editable and (not known or is_file(capture_of(rig) / REFINED_TRACK))
    except EffigyError:
        return False


def take_refined_track(rig: Rig) -> Task:
    """Starts keying the refined track on the rig in place of the tracked performance."""
    path, name = capture_of(rig) / REFINED_TRACK, rig.armature.name
    if not is_file(path):
        raise EffigyError(f"The performance of “{name}” has not been refined: press Refine Track with Avatar.")
    return tasks.start_local(f"Refined track of {name}", lambda: _apply_refined_track(path, name))


def _apply_refined_track(path: Path, name: str) -> Steps[str]:
    track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(path)})))
    # Looked up again, because the file may have changed while the track was read.
    armature = bpy.data.objects.get(name)
    rig = find_rig(armature) if armature else None
    if rig is None:
        raise EffigyError(f"“{name}” is gone from this file or has another name: take its refined track again.")
    applied = yield from apply_track_steps(rig, track)
    return f"“{name}” performs the refined track. {applied.note}".rstrip()


def refine_track(rig: Rig) -> Task:
    """Starts tracking the rig's capture again through its avatar, and keys the result on the rig at the end."""
    capture, name = capture_of(rig), rig.armature.name
    if not avatars.has_avatar(rig.armature):
        raise EffigyError(f"“{name}” has no avatar to refine its track with: train one first, or press Add Avatar.")
    check_written(capture, rig.armature)
    path = capture / REFINED_TRACK
    return tasks.start(
        f"Refine track of {name}",
        "refine",
        {"capture": str(capture), "avatar": str(avatars.avatar_path(rig.armature))},
        lambda _: _apply_refined_track(path, name),
        f"The refined track is in {path}: press Take Refined Track to use it.",
    )


def capture_of(rig: Rig) -> Path:
    """The folder of the rig's capture. Raises an `EffigyError` if it is not set, missing or not tracked."""
    path_text = rig.armature.effigy.capture
    if not path_text:
        raise EffigyError(
            f"It is not known which capture “{rig.armature.name}” was tracked on: choose its folder under Train."
        )
    path = absolute(path_text, rig.armature)
    if not is_file(path / "capture.json"):
        check_unless_missing(path / "capture.json", "capture")
        raise EffigyError(
            f"The capture of “{rig.armature.name}” is not at {path}: choose its folder under Train, or "
            "import the video again."
        )
    if not is_file(path / "track.npz"):
        raise EffigyError(f"The capture {path} has no track: import the video again.")
    return path


def _start(rig: Rig, request: TrainingRequest) -> Task:
    if task_of(rig):
        raise EffigyError(f"“{rig.armature.name}” is being trained already: wait for it, or stop it first.")
    if rig.armature.library is not None:
        raise EffigyError(
            f"“{rig.armature.name}” is linked from another file: train it there, or make a library override."
        )
    _check_places(rig, request)
    avatar = request.avatar
    task = tasks.start(
        f"Train {avatar.stem}",
        "train",
        request.params(),
        lambda _: _show_avatar(avatar),
        f"The avatar is in {avatar}: add it to its rig with Add Avatar.",
    )
    trusted_paths.trust(*request.captures, avatar)
    rig.armature.effigy.training = request.to_json(stored)
    return task


def _check_places(rig: Rig, request: TrainingRequest) -> None:
    """Refuses a training that would write where only the .blend says: it writes the avatar, and into the capture."""
    avatar, armature = request.avatar, rig.armature
    if avatar.suffix.lower() != avatars.SUFFIX:
        raise EffigyError(
            f"The stopped training of “{armature.name}” would write {avatar.name}, which is no {avatars.SUFFIX} file: "
            "start a new training."
        )
    check_written(request.capture, armature)
    if request.resume:
        for path in request.more:
            check_written(path, armature)
    # *Train Avatar* always writes beside the capture, which the panel shows.
    if avatar.parent != request.capture.parent:
        check_written(avatar, armature)


def _show_avatar(avatar: Path) -> Steps[str]:
    """Puts the trained avatar on the rigs that it was trained for. They are searched for, because they may have been
    renamed or copied since.
    """
    yield 0.5
    rigs = [
        rig
        for scene in bpy.data.scenes
        for rig in find_rigs(scene.objects)
        if (last := last_training(rig)) and last.avatar == avatar and rig.armature.library is None
    ]
    for rig in rigs:
        avatars.use_file(rig.armature, avatar)
    if not rigs:
        return f"The avatar is in {avatar}. Its rig is no longer in this file."
    return f"The avatar is in {avatar} and on “{rigs[0].armature.name}”."
