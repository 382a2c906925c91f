"""Trains an avatar on a rig's capture: starting, and resuming with the settings that the training was started with.

A stopped training leaves a checkpoint beside its avatar. Its settings are stored on the rig, in the .blend file, so
that it can be resumed after Blender was closed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import bpy

from . import avatars, tasks
from .errors import EffigyError
from .paths import absolute, stored
from .rig.data import TrackData
from .rig.performance import apply_track_steps
from .rig.rig_properties import Rig, find_rig, find_rigs
from .rig.steps import Steps
from .tasks import Task

CHECKPOINT: Final = ".checkpoint"
"""Suffix of the checkpoint that a stopped training leaves beside its avatar: `anna.effigy.checkpoint`."""
REFINED_TRACK: Final = "track_refined.npz"
"""The track in the capture's folder that training writes if its preset refines the track."""


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

    def params(self) -> dict[str, Any]:
        """The job's parameters in the worker protocol."""
        required = {
            "capture": str(self.capture),
            "avatar": str(self.avatar),
            "preset": self.preset,
            "device": self.device,
        }
        optional = {"size": self.size, "minutes": self.minutes, "resume": self.resume or None}
        return required | {name: value for name, value in optional.items() if value is not None}

    def to_json(self, path_text: Callable[[Path], str]) -> str:
        """For a rig's property `training`. `path_text` writes a path, for example relative to the .blend file."""
        params = replace(self, resume=False).params()
        return json.dumps(params | {"capture": path_text(self.capture), "avatar": path_text(self.avatar)})

    @classmethod
    def from_json(cls, text: str, path_of: Callable[[str], Path]) -> TrainingRequest | None:
        """From a rig's property `training`; None if it is empty or damaged."""
        try:
            params: Mapping[str, Any] = json.loads(text)
            return cls(
                path_of(params["capture"]),
                path_of(params["avatar"]),
                params["preset"],
                params["device"],
                params.get("size"),
                params.get("minutes"),
            )
        except (ValueError, TypeError, KeyError):
            return None


def train(rig: Rig) -> Task:
    """Starts training a new avatar on the rig's capture, with the settings on the rig."""
    settings = rig.armature.effigy
    capture = capture_of(rig)
    taken = tuple(Path(task.params.get("avatar", "")) for task in tasks.running())
    return _start(
        rig,
        TrainingRequest(
            capture,
            avatars.unused(capture.with_suffix(avatars.SUFFIX), taken),
            settings.preset,
            settings.device,
            settings.size or None,
            round(settings.minutes, 3) if settings.minutes else None,
        ),
    )


def resume(rig: Rig) -> Task:
    """Resumes the training that was stopped, or that ended when Blender was closed."""
    if not can_resume(rig):
        raise EffigyError(f"“{rig.armature.name}” has no stopped training to go on with: start one.")
    return _start(rig, replace(last_training(rig), resume=True))


def can_resume(rig: Rig) -> bool:
    """Whether the rig's last training has left a checkpoint and is not running."""
    last = last_training(rig)
    return last is not None and checkpoint_of(last).is_file() and task_of(rig) is None


def checkpoint_of(request: TrainingRequest) -> Path:
    return Path(f"{request.avatar}{CHECKPOINT}")


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
    """Whether training has written a refined track for the rig's capture, and it can be keyed on the rig."""
    try:
        return (capture_of(rig) / REFINED_TRACK).is_file() and rig.is_editable
    except EffigyError:
        return False


def take_refined_track(rig: Rig) -> Task:
    """Starts keying the refined track on the rig in place of the tracked performance."""
    path, name = capture_of(rig) / REFINED_TRACK, rig.armature.name
    if not path.is_file():
        raise EffigyError(
            f"Training has not refined the performance of “{name}”: train it with the preset Standard or Full."
        )
    return tasks.start_local(f"Refined track of {name}", lambda: _apply_refined_track(path, name))


def _apply_refined_track(path: Path, name: str) -> Steps[str]:
    track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(path)})))
    # Looked up again, because the file may have changed while the track was read.
    armature = bpy.data.objects.get(name)
    rig = find_rig(armature) if armature else None
    if rig is None:
        raise EffigyError(f"“{name}” is gone from this file or has another name: take its refined track again.")
    yield from apply_track_steps(rig, track)
    return f"“{name}” performs the refined track."


def capture_of(rig: Rig) -> Path:
    """The folder of the rig's capture. Raises an `EffigyError` if it is not set, missing or not tracked."""
    path_text = rig.armature.effigy.capture
    if not path_text:
        raise EffigyError(
            f"It is not known which capture “{rig.armature.name}” was tracked on: choose its folder under Train."
        )
    path = absolute(path_text, rig.armature)
    if not (path / "capture.json").is_file():
        raise EffigyError(
            f"The capture of “{rig.armature.name}” is not at {path}: choose its folder under Train, or "
            "import the video again."
        )
    if not (path / "track.npz").is_file():
        raise EffigyError(f"The capture {path} has no track: import the video again.")
    return path


def _start(rig: Rig, request: TrainingRequest) -> Task:
    if task_of(rig):
        raise EffigyError(f"“{rig.armature.name}” is being trained already: wait for it, or stop it first.")
    if rig.armature.library is not None:
        raise EffigyError(
            f"“{rig.armature.name}” is linked from another file: train it there, or make a library override."
        )
    avatar = request.avatar
    task = tasks.start(
        f"Train {avatar.stem}",
        "train",
        request.params(),
        lambda _: _show_avatar(avatar),
        f"The avatar is in {avatar}: add it to its rig with Add Avatar.",
    )
    rig.armature.effigy.training = request.to_json(stored)
    return task


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
        rig.armature.effigy.avatar, rig.armature.effigy.packed = stored(avatar), None
    if not rigs:
        return f"The avatar is in {avatar}. Its rig is no longer in this file."
    return f"The avatar is in {avatar} and on “{rigs[0].armature.name}”."
