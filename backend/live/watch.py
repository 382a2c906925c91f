"""Watches a face through a camera: detector, then smoothing, with no optimisation between.

The scores of the detector are ARKit's channels, and its pose of the head is in head space's axes. Both jitter on a
still face, so that they go through a One-Euro filter; blinks move so fast that it leaves them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from scipy.spatial.transform import Rotation

from ..footage.detector import FaceDetector
from .camera import Shot, open_camera
from .one_euro import OneEuro

CHANNEL_CUTOFF, CHANNEL_SLOPE = 1.2, 8.0
"""Hertz, and hertz for each whole channel a second."""
HEAD_CUTOFF, HEAD_SLOPE = 1.0, 12.0
"""Hertz, and hertz for each radian a second."""
MEASURED: Final = 1000
"""Frames of which the durations are kept."""


@dataclass(frozen=True)
class LiveFace:
    """What a frame shows."""

    time: float
    """`time.monotonic` when the camera had the frame."""
    age: float
    """Seconds from then until now."""
    channels: np.ndarray | None
    """(52,) in the order of SCORE_NAMES; None where no face is seen."""
    head: np.ndarray | None
    """(3,) axis-angle of the head towards the camera, head space."""


@dataclass
class Durations:
    """Milliseconds of each step, the last `MEASURED` frames."""

    capture: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))
    detector: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))
    smoothing: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))
    whole: deque[float] = field(default_factory=lambda: deque(maxlen=MEASURED))
    """From the camera to the report."""


@dataclass
class Watched:
    """What has been watched so far."""

    frames: int = 0
    faces: int = 0
    passed_over: int = 0
    """Frames for which there was no time."""
    seconds: float = 0.0
    durations: Durations = field(default_factory=Durations)


class Smoother:
    """Smooths the channels and the rotation of one face over time."""

    def __init__(self) -> None:
        self._channels = OneEuro(CHANNEL_CUTOFF, CHANNEL_SLOPE)
        self._head = OneEuro(HEAD_CUTOFF, HEAD_SLOPE)

    def __call__(self, channels: np.ndarray, head: np.ndarray, when: float) -> tuple[np.ndarray, np.ndarray]:
        return self._channels(channels, when), self._head(head, when)

    def forget(self) -> None:
        self._channels.forget()
        self._head.forget()


def watch(
    source: str, report: Callable[[LiveFace], None], go_on: Callable[[Watched], bool], *, smooth: bool = True
) -> Watched:
    """Watches a camera (`camera.open_camera`) while `go_on` says so, or until a film ends; `report` gets what each
    frame shows.
    """
    made, smoother = Watched(), Smoother()
    with closing(FaceDetector()) as detector, open_camera(source) as camera:
        begun = time.monotonic()
        while go_on(made):
            shot = camera.newest()
            if shot is None:
                break
            face = _face_of(shot, detector, smoother if smooth else None, made.durations)
            report(face)
            made.frames += 1
            made.faces += face.channels is not None
            made.passed_over = camera.passed_over
            made.seconds = time.monotonic() - begun
            made.durations.whole.append(1e3 * (time.monotonic() - shot.time))
    return made


def _face_of(shot: Shot, detector: FaceDetector, smoother: Smoother | None, durations: Durations) -> LiveFace:
    durations.capture.append(1e3 * shot.read_seconds)
    begun = time.perf_counter()
    faces = detector.detect(shot.image)
    durations.detector.append(1e3 * (time.perf_counter() - begun))
    if not faces:
        if smoother is not None:
            smoother.forget()
        return LiveFace(shot.time, time.monotonic() - shot.time, None, None)
    begun = time.perf_counter()
    channels = faces[0].scores.astype(np.float64)
    head = Rotation.from_matrix(faces[0].pose[:3, :3]).as_rotvec()
    if smoother is not None:
        channels, head = smoother(channels, head, shot.time)
    durations.smoothing.append(1e3 * (time.perf_counter() - begun))
    return LiveFace(shot.time, time.monotonic() - shot.time, channels, head)
