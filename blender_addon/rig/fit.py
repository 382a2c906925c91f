"""How well the tracked head fits each frame of its film, which frames fit worst, and which the track is unsure of.

The errors and the tracker's flags come with the track and are kept on the armature, so that nothing has to be read for
them.
"""

from __future__ import annotations

from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError
from .data import TrackData
from .performance import tracked_strip
from .rig_properties import Rig

FIT_PROPERTY: Final = "effigy_fit"
"""On the armature: for each frame of the track its error, whether it has a flag, and when it is shown in frames of the
track's action."""
MOST_WORST: Final = 10
WORSE: Final = 1.25
"""How much larger than the usual error that of a bad frame is."""
LEAST_APART: Final = 0.4
"""Seconds between two of the worst frames: neighbours show the same fault."""
UNSURE: Final = 1.5
"""How much larger than the usual error that of a frame is of which the track is unsure."""


def remember_fit(rig: Rig, track: TrackData, frame_start: int) -> None:
    """Keeps the errors of a track whose action begins at `frame_start`. A track without them leaves nothing."""
    if track.residual is None or not np.isfinite(track.residual).any():
        rig.armature.pop(FIT_PROPERTY, None)
        return
    rig.armature[FIT_PROPERTY] = {
        "error": np.nan_to_num(track.residual.astype(np.float64), nan=-1.0).tolist(),
        "frames": (track.positions + frame_start).astype(np.float64).tolist(),
        "flagged": (track.flags != 0).astype(np.int32).tolist(),
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


def need_errors(rig: Rig) -> None:
    """Raises an `EffigyError` for a rig that does not know how well its track fits."""
    if errors_of(rig) is None:
        raise EffigyError(
            f"“{rig.armature.name}” does not know how well its track fits: add its capture again with Add Capture."
        )


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


def unsure_ranges(rig: Rig) -> list[tuple[int, int, str]]:
    """First and last of the scene's frames of which the track is unsure, and why: no face was found, the tracker has
    flagged them, or the error is far larger than usual. Frames less than `LEAST_APART` apart are in one range.
    """
    found = errors_of(rig)
    if found is None:
        return []
    shown, errors, rate = found
    flags = _flags(rig.armature[FIT_PROPERTY], len(errors))
    usual = np.median(errors[errors >= 0]) if (errors >= 0).any() else np.inf
    unsure = np.flatnonzero((errors < 0) | flags | (errors > UNSURE * usual))
    if not len(unsure):
        return []
    ranges = []
    for run in np.split(unsure, np.flatnonzero(np.diff(shown[unsure]) > LEAST_APART * rate) + 1):
        largest = errors[run].max()
        reason = "no face" if largest < 0 else f"error {largest:.1f} px"
        ranges.append((int(np.ceil(shown[run[0]] - 1e-3)), int(np.ceil(shown[run[-1]] - 1e-3)), reason))
    return ranges


def _flags(stored: Any, count: int) -> np.ndarray:
    """(F,) bool: the frames with a flag; none in a rig of an earlier version."""
    try:
        flags = np.array(stored["flagged"], np.int32)
    except (KeyError, TypeError, ValueError, OverflowError):
        return np.zeros(count, bool)
    return flags != 0 if flags.shape == (count,) else np.zeros(count, bool)


def next_unsure(rig: Rig, frame: int, *, backwards: bool = False) -> int | None:
    """The first frame of the next range of which the track is unsure, or of the one before; around at the ends."""
    starts = [first for first, _, _ in unsure_ranges(rig)]
    if not starts:
        return None
    if backwards:
        return next((start for start in reversed(starts) if start < frame), starts[-1])
    return next((start for start in starts if start > frame), starts[0])


def mark_unsure(rig: Rig, scene: bpy.types.Scene) -> int:
    """Puts a marker on the timeline at each range of which the track is unsure, in place of earlier ones of this rig.
    Returns how many.
    """
    clear_marks(rig, scene)
    ranges = unsure_ranges(rig)
    for first, last, reason in ranges:
        count = f"{last - first + 1} frames, " if last > first else ""
        scene.timeline_markers.new(f"{_mark_of(rig)}{count}{reason}", frame=first)
    return len(ranges)


def clear_marks(rig: Rig, scene: bpy.types.Scene) -> None:
    for marker in [each for each in scene.timeline_markers if each.name.startswith(_mark_of(rig))]:
        scene.timeline_markers.remove(marker)


def has_marks(rig: Rig, scene: bpy.types.Scene) -> bool:
    return any(marker.name.startswith(_mark_of(rig)) for marker in scene.timeline_markers)


def _mark_of(rig: Rig) -> str:
    """What the names of the rig's markers begin with. Blender cuts them after 63 bytes."""
    return f"{rig.armature.name[:30]}: "


def film_camera(rig: Rig) -> bpy.types.Object | None:
    """The camera that shows the rig's film, in one of the rig's collections."""
    for collection in rig.mesh.users_collection:
        for obj in collection.objects:
            if obj.type == "CAMERA" and obj.data.background_images:
                return obj
    return None
