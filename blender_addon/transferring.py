"""Transfers another person's performance to a rig.

A job of the worker adapts the performance to the rig's person. It is then keyed on the rig in NLA strips of its own.
"""

from __future__ import annotations

import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import bpy

from . import avatars, preferences, tasks
from .errors import EffigyError
from .paths import absolute, is_file
from .reading import check_file, reading
from .rig.added_performance import add_performance_steps
from .rig.camera import rate_of
from .rig.data import TrackData
from .rig.rig_properties import Rig, find_rig
from .rig.steps import Steps
from .tasks import Task

FORGOTTEN_SECONDS: Final = 86400.0
"""A transferred track is keyed within minutes after it was written."""


@dataclass(frozen=True)
class RetargetRequest:
    """The worker's job `retarget`."""

    performance: Path
    """A capture's folder, a track (.npz) or a recording of ARKit's channels (.csv, .json, .txt)."""
    target: Path
    """A capture's folder or an avatar, which gives the neutral face of the rig's person."""
    out: Path
    """The track to write."""
    intensity: float
    """Factor on the expressions."""
    smoothing: float
    """Seconds."""
    motion: float
    """Factor on the head's motion."""
    frame_rate: Fraction
    """Frames per second of the track to write."""

    def params(self) -> dict[str, Any]:
        """The job's parameters in the worker protocol."""
        return {
            "performance": str(self.performance),
            "target": str(self.target),
            "out": str(self.out),
            "intensity": round(self.intensity, 4),
            "smoothing": round(self.smoothing, 4),
            "motion": round(self.motion, 4),
            "fps": str(self.frame_rate),
        }


def transfer(
    rig: Rig,
    scene: bpy.types.Scene,
    performance: Path,
    *,
    intensity: float,
    smoothing: float,
    motion: float,
    frame_start: int,
) -> Task:
    """Starts adapting `performance` to the rig's person, at the scene's frame rate. The keys begin at `frame_start`;
    for the other arguments see `RetargetRequest`.
    """
    source = _source_of(performance)
    request = RetargetRequest(source, target_of(rig), new_file(), intensity, smoothing, motion, exact_rate_of(scene))
    name, title = rig.armature.name, source.stem
    return tasks.start(
        f"Transfer “{title}”",
        "retarget",
        request.params(),
        lambda _: _add_to_rig(request.out, name, title, frame_start),
        "The rig's file was closed meanwhile: transfer the performance again.",
    )


def new_file() -> Path:
    """A name for a track that a job makes for a rig, in a folder from which forgotten ones are removed."""
    folder = preferences.user_folder("transferred")
    remove_forgotten(folder)
    return folder / f"{uuid4().hex}.npz"


def exact_rate_of(scene: bpy.types.Scene) -> Fraction:
    """The scene's frames per second, such as 30000/1001."""
    return Fraction(rate_of(scene)).limit_denominator(1001)


def remove_forgotten(folder: Path) -> None:
    """Removes tracks that no Blender will read any more, because it was closed, or another file opened, before."""
    for path in folder.glob("*.npz"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                path.unlink()


def _source_of(path: Path) -> Path:
    """The performance that the artist has chosen. In a file browser a capture is chosen by one of the files in it."""
    if is_file(path) and path.name in ("capture.json", "landmarks.npz"):
        path = path.parent
    with reading(path, "performance", "choose another file"):
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    if not is_folder:
        check_file(path, "performance")
    elif not (path / "track.npz").is_file():
        raise EffigyError(
            f"{path} holds no track: choose a capture that is tracked, a track (.npz) or a recording of ARKit's "
            "channels (.csv, .json, .txt)."
        )
    return path


def target_of(rig: Rig) -> Path:
    """The source of the rig's neutral face: its tracked capture, otherwise its avatar, whose rest pose is used."""
    settings = rig.armature.effigy
    if settings.capture:
        capture = absolute(settings.capture, rig.armature)
        if is_file(capture / "track.npz"):
            return capture
    if avatars.has_avatar(rig.armature):
        return avatars.avatar_path(rig.armature)
    raise EffigyError(
        f"“{rig.armature.name}” has neither a track nor an avatar, so its neutral face is not known: choose "
        "its capture's folder under Train, or add its avatar."
    )


def _add_to_rig(path: Path, name: str, title: str, frame_start: int) -> Steps[str]:
    rig, track = yield from rig_and_track(path, name, "transfer the performance")
    applied = yield from add_performance_steps(rig, track, title, frame_start)
    return (
        f"“{name}” performs “{title}”: {track.frame_count} frames from frame {frame_start} on. {applied.note}".rstrip()
    )


def rig_and_track(path: Path, name: str, what: str) -> Steps[tuple[Rig, TrackData]]:
    """The rig called `name`, and the track that a job has written to `path`, which is removed. `what` is to be done
    again where the rig is gone.
    """
    try:
        track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(path)})))
    finally:
        # The performance is in the keyframes from now on.
        with suppress(OSError):
            path.unlink(missing_ok=True)
    armature = bpy.data.objects.get(name)
    rig = find_rig(armature) if armature else None
    if rig is None:
        raise EffigyError(f"“{name}” is gone from this file or has another name: {what} again.")
    return rig, track
