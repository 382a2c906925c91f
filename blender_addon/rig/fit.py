"""How well the tracked head fits each frame of its film, and which frames fit worst.

The errors come with the track and are kept on the armature, so that nothing has to be read for them.
"""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np

from .data import TrackData
from .performance import tracked_strip
from .rig_properties import Rig

FIT_PROPERTY: Final = "effigy_fit"
"""On the armature: for each frame of the track its error, and when it is shown in frames of the track's action."""
MOST_WORST: Final = 10
WORSE: Final = 1.25
"""How much larger than the usual error that of a bad frame is."""
LEAST_APART: Final = 0.4
"""Seconds between two of the worst frames: neighbours show the same fault."""


def remember_fit(rig: Rig, track: TrackData, frame_start: int) -> None:
    """Keeps the errors of a track whose action begins at `frame_start`. A track without them leaves nothing."""
    if track.residual is None or not np.isfinite(track.residual).any():
        rig.armature.pop(FIT_PROPERTY, None)
        return
    rig.armature[FIT_PROPERTY] = {
        "error": np.nan_to_num(track.residual.astype(np.float64), nan=-1.0).tolist(),
        "frames": (track.positions + frame_start).astype(np.float64).tolist(),
        "fps": float(track.fps),
    }


def errors_of(rig: Rig) -> tuple[np.ndarray, np.ndarray, float] | None:
    """(F,) the scene's frames at which the track's frames are shown, ascending; (F,) their errors in pixels of the
    capture, negative where there is no face; and the scene's frames in a second. None for a rig without them.
    """
    stored, strip = rig.armature.get(FIT_PROPERTY), tracked_strip(rig)
    if stored is None or strip is None:
        return None
    try:
        errors, frames = np.array(stored["error"], np.float64), np.array(stored["frames"], np.float64)
        fps = float(stored["fps"])
    except (KeyError, TypeError, ValueError):
        return None
    if errors.ndim != 1 or errors.shape != frames.shape or not len(errors) or not np.isfinite(frames).all():
        return None
    shown = strip.frame_start + (frames - strip.action_frame_start) * strip.scale
    return shown, errors, fps * strip.scale


def error_at(rig: Rig, frame: int) -> float | None:
    """The error in pixels of the film's frame that the scene shows; None where there is no face, or no film."""
    found = errors_of(rig)
    if found is None:
        return None
    shown, errors, _ = found
    index = int(np.searchsorted(shown, frame + 1e-3, side="right")) - 1
    if index < 0 or frame > shown[-1] + 1 or errors[index] < 0:
        return None
    return float(errors[index])


def worst_frames(rig: Rig) -> list[int]:
    """The scene's frames with the largest errors, the worst first; neighbours count as one."""
    found = errors_of(rig)
    if found is None:
        return []
    shown, errors, rate = found
    if not (errors > 0).any():
        return []
    bad = WORSE * np.median(errors[errors > 0])
    worst: list[int] = []
    for index in np.argsort(-errors, kind="stable").tolist():
        if len(worst) == MOST_WORST or (worst and errors[index] < bad):
            break
        # The first whole frame that shows it.
        frame = int(np.ceil(shown[index] - 1e-3))
        if all(abs(frame - other) >= LEAST_APART * rate for other in worst):
            worst.append(frame)
    return worst


def next_worst(rig: Rig, frame: int) -> int | None:
    """The frame to look at after `frame`: the next in the order of the errors, or the worst."""
    worst = worst_frames(rig)
    if not worst:
        return None
    return worst[(worst.index(frame) + 1) % len(worst)] if frame in worst else worst[0]


def film_camera(rig: Rig) -> bpy.types.Object | None:
    """The camera that shows the rig's film, in one of the rig's collections."""
    for collection in rig.mesh.users_collection:
        for obj in collection.objects:
            if obj.type == "CAMERA" and obj.data.background_images:
                return obj
    return None
