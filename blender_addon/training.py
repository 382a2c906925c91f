"""Training an avatar on a rig's capture: started, stopped, and resumed with exactly what it was started with."""

from __future__ import annotations

import json
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
"""What a stopped training leaves beside its avatar: `anna.effigy.checkpoint`."""
REFINED_TRACK: Final = "track_refined.npz"
"""What training leaves in the capture where its preset refines the track."""


def train(rig: Rig) -> Task:
    """Start training on the rig's capture, with the settings of its panel, into a new avatar."""
    settings = rig.armature.effigy
    capture = capture_of(rig)
    taken = tuple(Path(task.params.get("avatar", "")) for task in tasks.running())
    avatar = avatars.unused(capture.with_suffix(avatars.SUFFIX), taken)
    params: dict[str, Any] = {
        "capture": str(capture),
        "avatar": str(avatar),
        "preset": settings.preset,
        "device": settings.device,
    }
    if settings.size:
        params["size"] = settings.size
    if settings.minutes:
        params["minutes"] = round(settings.minutes, 3)
    return _start(rig, params)


def resume(rig: Rig) -> Task:
    """Go on with the training that was stopped, or that ended with Blender."""
    if not can_resume(rig):
        raise EffigyError(f"“{rig.armature.name}” has no stopped training to go on with: start one.")
    return _start(rig, _kept(rig) | {"resume": True})


def can_resume(rig: Rig) -> bool:
    params = _kept(rig)
    return bool(params) and Path(params["avatar"] + CHECKPOINT).is_file() and task_of(rig) is None


def task_of(rig: Rig) -> Task | None:
    """The training of this rig that is going on."""
    avatar = _kept(rig).get("avatar")
    return next((task for task in tasks.running() if avatar and task.params.get("avatar") == avatar), None)


def has_refined_track(rig: Rig) -> bool:
    """Whether training has refined the performance of the rig's capture."""
    try:
        return (capture_of(rig) / REFINED_TRACK).is_file() and rig.is_editable
    except EffigyError:
        return False


def take_refined_track(rig: Rig) -> Task:
    """Key the refined performance on the rig, in the tracked one's place."""
    path, name = capture_of(rig) / REFINED_TRACK, rig.armature.name
    if not path.is_file():
        raise EffigyError(
            f"Training has not refined the performance of “{name}”: train it with the preset Standard or Full."
        )
    return tasks.start_local(f"Refined track of {name}", lambda: _take(path, name))


def _take(path: Path, name: str) -> Steps[str]:
    track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(path)})))
    # Found anew: much may have happened while the track was read.
    armature = bpy.data.objects.get(name)
    rig = find_rig(armature) if armature else None
    if rig is None:
        raise EffigyError(f"“{name}” is gone from this file or has another name: take its refined track again.")
    yield from apply_track_steps(rig, track)
    return f"“{name}” performs the refined track."


def capture_of(rig: Rig) -> Path:
    stored = rig.armature.effigy.capture
    if not stored:
        raise EffigyError(
            f"“{rig.armature.name}” does not say which capture it was tracked on: choose its folder under Train."
        )
    path = absolute(stored, rig.armature)
    if not (path / "capture.json").is_file():
        raise EffigyError(
            f"The capture of “{rig.armature.name}” is not at {path}: show its folder under Train, or "
            "import the video again."
        )
    if not (path / "track.npz").is_file():
        raise EffigyError(f"The capture {path} has no track: import the video again.")
    return path


def _start(rig: Rig, params: dict[str, Any]) -> Task:
    if task_of(rig):
        raise EffigyError(f"“{rig.armature.name}” is being trained already: wait for it, or stop it first.")
    if rig.armature.library is not None:
        raise EffigyError(
            f"“{rig.armature.name}” is linked from another file: train it there, or make a library override."
        )
    path = params["avatar"]
    task = tasks.start(
        f"Train {Path(path).stem}",
        "train",
        params,
        lambda _: _show(path),
        f"The avatar is in {path}: add it to its rig with Add Avatar.",
    )
    rig.armature.effigy.training = json.dumps(
        {
            name: stored(Path(value)) if name in ("capture", "avatar") else value
            for name, value in params.items()
            if name != "resume"
        }
    )
    return task


def _kept(rig: Rig) -> dict[str, Any]:
    """The parameters of the rig's last training, its paths as they are now."""
    try:
        params = json.loads(rig.armature.effigy.training or "{}")
        return params | {
            name: str(absolute(params[name], rig.armature)) for name in ("capture", "avatar") if name in params
        }
    except (ValueError, TypeError):
        return {}


def _show(avatar: str) -> Steps[str]:
    """Give the trained avatar to the rigs it was trained for: found anew, since they may have been renamed or
    copied."""
    yield 0.5
    rigs = [
        rig
        for scene in bpy.data.scenes
        for rig in find_rigs(scene.objects)
        if _kept(rig).get("avatar") == avatar and rig.armature.library is None
    ]
    for rig in rigs:
        rig.armature.effigy.avatar, rig.armature.effigy.packed = stored(Path(avatar)), None
    if not rigs:
        return f"The avatar is in {avatar}; its rig is gone from this file."
    return f"The avatar is in {avatar} and on “{rigs[0].armature.name}”."
