"""Somebody else's performance on a rig: a job fits it to the rig's person, then it is keyed in strips of its own."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import uuid4

import bpy

from . import avatars, preferences, tasks
from .errors import EffigyError
from .paths import absolute
from .rig.data import TrackData
from .rig.performance import lay_performance_steps
from .rig.rig_properties import Rig, find_rig
from .rig.steps import Steps
from .tasks import Task


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
    """Start fitting `performance` to the rig's person, at the scene's frame rate."""
    source = _source_of(performance)
    out = preferences.user_folder("transferred") / f"{uuid4().hex}.npz"
    rate = Fraction(scene.render.fps / scene.render.fps_base).limit_denominator(1001)
    params: dict[str, Any] = {
        "performance": str(source),
        "target": str(_target_of(rig)),
        "out": str(out),
        "intensity": round(intensity, 4),
        "smoothing": round(smoothing, 4),
        "motion": round(motion, 4),
        "fps": str(rate),
    }
    name, title = rig.armature.name, source.stem
    return tasks.start(
        f"Transfer {title}",
        "retarget",
        params,
        lambda _: _lay(out, name, title, frame_start),
        "The rig's file was closed meanwhile: transfer the performance again.",
    )


def _source_of(path: Path) -> Path:
    """A file of a capture, as a file browser gives it, stands for the capture."""
    if path.is_file() and path.name in ("capture.json", "landmarks.npz"):
        path = path.parent
    if not path.exists():
        raise EffigyError(f"There is no performance at {path}.")
    if path.is_dir() and not (path / "track.npz").is_file():
        raise EffigyError(
            f"{path} holds no track: choose a capture that is tracked, a track (.npz) or a Live Link Face table (.csv)."
        )
    return path


def _target_of(rig: Rig) -> Path:
    """What tells the rig's own neutral face: its track, or else its avatar, which is taken at rest."""
    settings = rig.armature.effigy
    if settings.capture:
        capture = absolute(settings.capture, rig.armature)
        if (capture / "track.npz").is_file():
            return capture
    if avatars.has_avatar(rig.armature):
        return avatars.avatar_path(rig.armature)
    raise EffigyError(
        f"Neither a track nor an avatar of “{rig.armature.name}” is here, so its neutral face is not known: show "
        "its capture's folder under Train, or add its avatar."
    )


def _lay(path: Path, name: str, title: str, frame_start: int) -> Steps[str]:
    try:
        track = TrackData.from_answer((yield from tasks.fetch("track.read", {"path": str(path)})))
    finally:
        # The keys are the performance now.
        with suppress(OSError):
            path.unlink(missing_ok=True)
    armature = bpy.data.objects.get(name)
    rig = find_rig(armature) if armature else None
    if rig is None:
        raise EffigyError(f"“{name}” is gone from this file or has another name: transfer the performance again.")
    yield from lay_performance_steps(rig, track, title, frame_start)
    return f"“{name}” performs {title}: {track.frame_count} frames from frame {frame_start} on."
