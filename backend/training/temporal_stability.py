"""Temporal stability: how much the rendered face flickers while its expression is constant and the head moves.

The avatar is rendered with the clip's own head poses and one constant expression. Landmarks detected in these images
should move exactly as the mesh does; their deviation is flicker. It is measured as the second difference over time,
which a slow drift does not increase.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..avatar.render import SplatSource, draw
from ..formats.track import Track
from ..head.forward import landmarks as mesh_landmarks
from ..head.model import NECK, HeadModel
from ..progress import SILENT, Progress
from .frames import TrackPoses
from .metrics import IBUG_68, LANDMARK_SIZE

MAX_FRAMES = 60
"""Consecutive frames that are measured: more take time and change the mean little."""

Landmarks = Callable[[np.ndarray], np.ndarray | None]
"""uint8 RGB image -> (68, 2) pixels, or None where there is no face."""


def hold_expression(track: Track, frames: np.ndarray) -> Track:
    """The track with constant expression, jaw and gaze, the medians over `frames`; head poses are unchanged."""
    rotations = track.rotations.copy()
    rotations[:, NECK + 1 :] = np.median(track.rotations[frames, NECK + 1 :], 0)
    expression = np.broadcast_to(np.median(track.expression[frames], 0), track.expression.shape).astype(np.float32)
    return track.posed(expression=expression, rotations=rotations)


def mean_jitter(points: np.ndarray) -> float | None:
    """(F, P, 2) pixels in consecutive frames, NaN without a face -> mean length of the second difference over time."""
    seconds = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)
    return None if np.isnan(seconds).all() else float(np.nanmean(seconds))


def measure_jitter(
    source: SplatSource,
    track: Track,
    model: HeadModel,
    frames: np.ndarray,
    size: int,
    find: Landmarks,
    progress: Progress = SILENT,
) -> float | None:
    """Mean jitter of the detected landmarks against the avatar's mesh, in pixels of an image of LANDMARK_SIZE, over the
    longest run of consecutive `frames`. None without three consecutive frames in which a face is found.
    """
    run = _longest_run(frames)[:MAX_FRAMES]
    if len(run) < 3:
        return None
    still = hold_expression(track, frames)
    posed = TrackPoses(still, model).pose(run).posed
    mesh = mesh_landmarks(posed, model)[:, list(IBUG_68)].numpy()
    cameras = still.head_to_camera[run]
    seen = mesh @ cameras[:, :3, :3].swapaxes(1, 2) + cameras[:, None, :3, 3]
    pixels = seen @ still.intrinsics.T
    pixels = pixels[..., :2] / pixels[..., 2:] * (LANDMARK_SIZE / still.size)
    found = np.full(pixels.shape, np.nan)
    for place, index in enumerate(run.tolist()):
        image = np.rint(255 * draw(source, still, [index], size)[0].over((1.0, 1.0, 1.0))).astype(np.uint8)
        points = find(image)
        if points is not None:
            found[place] = points * (LANDMARK_SIZE / size)
        progress.update("Looking for flicker", place + 1, len(run))
        progress.raise_if_cancelled()
    return mean_jitter(found - pixels)


def _longest_run(frames: np.ndarray) -> np.ndarray:
    """The longest run of consecutive numbers in ascending `frames`."""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return max(runs, key=len)
