"""Temporal stability: how much the rendered face flickers while its expression is constant and the head moves.

The avatar is rendered with the clip's own head poses and one constant expression. Landmarks detected in these images
should move exactly as the mesh does; their deviation is flicker. It is measured as the second difference over time,
which a slow drift does not increase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from ..avatar.render import SplatSource, draw
from ..correspondence.landmark_sets import IBUG_68
from ..footage.detector import FaceDetector
from ..formats.track import Track
from ..head.forward import landmarks as mesh_landmarks
from ..head.model import NECK, HeadModel
from ..progress import SILENT, Progress
from .frames import TrackPoses
from .metrics import LANDMARK_SIZE, ibug_landmarks

MAX_FRAMES = 60
"""Most consecutive frames that are measured: more frames take more time and change the mean little."""

LandmarkDetector = Callable[[np.ndarray], np.ndarray | None]
"""uint8 RGB image -> its landmarks (68, 2) in pixels, or None if there is no face."""


def hold_expression(track: Track, frames: np.ndarray) -> Track:
    """The track with expression, jaw and gaze held at their medians over `frames`; head and neck poses are kept."""
    rotations = track.rotations.copy()
    rotations[:, NECK + 1 :] = np.median(track.rotations[frames, NECK + 1 :], 0)
    expression = np.broadcast_to(np.median(track.expression[frames], 0), track.expression.shape).astype(np.float32)
    return track.posed(expression=expression, rotations=rotations)


def mean_jitter(points: np.ndarray) -> float | None:
    """Mean length, in pixels, of the second difference over time of P points (F, P, 2) in consecutive frames.

    Frames without a face are NaN and are left out; None if no three consecutive frames remain.
    """
    lengths = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=2)
    return None if np.isnan(lengths).all() else float(np.nanmean(lengths))


def measure_jitter(
    source: SplatSource,
    track: Track,
    model: HeadModel,
    frames: np.ndarray,
    size: int,
    detect: LandmarkDetector,
    progress: Progress = SILENT,
) -> float | None:
    """`mean_jitter` of detected landmarks minus the mesh's, in pixels of an image of width LANDMARK_SIZE.

    `frames` are frame numbers of the track; it is measured on the longest run of consecutive ones, at most MAX_FRAMES.
    `size` is the width of the rendered images, pixels. None without three consecutive frames in which a face is found.
    """
    run = _longest_run(frames)[:MAX_FRAMES]
    if len(run) < 3:
        return None
    constant_track = hold_expression(track, frames)
    posed = TrackPoses(constant_track, model).pose(run).posed
    mesh = mesh_landmarks(posed, model)[:, IBUG_68].numpy()
    cameras = constant_track.head_to_camera[run]
    in_camera = mesh @ cameras[:, :3, :3].swapaxes(1, 2) + cameras[:, None, :3, 3]
    pixels = in_camera @ constant_track.intrinsics.T
    pixels = pixels[..., :2] / pixels[..., 2:] * (LANDMARK_SIZE / constant_track.size)
    detected = np.full(pixels.shape, np.nan)
    for row, index in enumerate(run.tolist()):
        image = np.rint(255 * draw(source, constant_track, [index], size)[0].over((1.0, 1.0, 1.0))).astype(np.uint8)
        points = detect(image)
        if points is not None:
            detected[row] = points * (LANDMARK_SIZE / size)
        progress.update("Looking for flicker", row + 1, len(run))
        progress.raise_if_cancelled()
    return mean_jitter(detected - pixels)


def _longest_run(frames: np.ndarray) -> np.ndarray:
    """The longest run of consecutive numbers in ascending `frames`."""
    runs = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1)
    return max(runs, key=len)


@contextmanager
def landmark_detector() -> Iterator[LandmarkDetector]:
    """Context that yields a landmark detector and closes it afterwards."""
    detector = FaceDetector()

    def detect(image: np.ndarray) -> np.ndarray | None:
        faces = detector.detect(image)
        return ibug_landmarks(faces[0].landmarks) if faces else None

    try:
        yield detect
    finally:
        detector.close()
