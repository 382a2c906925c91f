"""Of how many sharp images a blurred one is the mean, and when and through which point of the lens each is taken.

The images are taken at equal shares of the light that the shutter lets through, and through points of the lens that
fill its opening evenly (Vogel's spiral, in an order that spreads over the time), so that one set of images serves both.
It is the same in each frame: an animation does not flicker.

Sharp edges show as ghosts where images are further apart than the pixels that a Gaussian covers. So as many are taken
as movement and blur need, and no more than the artist's limit: a head that keeps still and is in focus is rendered
once. The steps of Cycles and EEVEE are no measure: Cycles interpolates between its steps, and EEVEE smears images.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ..rig.conventions import points_to_head
from ..rig.pose import RigPose
from .camera import WorkerCamera
from .lens import Lens
from .shutter import Shutter
from .sight import Sight

STEP: Final = 0.75
"""Pixels of the path of a point from image to image. A Gaussian covers more than one."""
AREA: Final = 1.5
"""Square pixels of the blur of a point for each image."""
GOLDEN: Final = (5**0.5 - 1) / 2
"""Turns from point to point of Vogel's spiral."""
LEAST_MOVED: Final = 8
"""Images of a movement that shows at all."""
STILL: Final = 0.1
"""Pixels of movement or blur that do not show."""
MOST: Final = 1 << 20
"""Beyond any limit that an artist can set."""
_PROBES: Final = np.array(list(itertools.product((-0.11, 0.11), (-0.13, 0.12), (-0.16, 0.17))))
"""(8, 3) corners of a box around a head at rest, in Blender's axes, metres."""
_JAW, _EXPRESSION = 0.1, 0.03
"""Metres by which the face moves at most when the jaw turns by a radian, and a coefficient changes by 1."""


@dataclass(frozen=True)
class Instant:
    """One of the images."""

    time: float
    """Frames from the time of the image."""
    point: np.ndarray | None
    """(2,) of the lens, see `Lens.points`; None for its centre."""


def instants(count: int, shutter: Shutter | None, lens: Lens | None) -> list[Instant]:
    """In the order of time."""
    numbers = np.arange(count)
    times = np.zeros(count) if shutter is None else shutter.times((numbers + 0.5) / count)
    points: Sequence[np.ndarray | None] = [None] * count
    if lens is not None:
        order = np.argsort(np.argsort(_reversed_digits(numbers)))
        points = list(lens.points(np.stack((order * GOLDEN % 1, (order + 0.5) / count), -1)))
    return [Instant(float(time), point) for time, point in zip(times, points, strict=True)]


def images_of_movement(sights: Sequence[Sight]) -> int:
    """How many images the movement between such times needs."""
    path = max((max(_steps(before, after), default=0.0) for before, after in itertools.pairwise(sights)), default=0.0)
    path *= max(len(sights) - 1, 1)
    return 1 if path < STILL else max(LEAST_MOVED, int(min(np.ceil(path / STEP), MOST)))


def images_of_blur(sight: Sight) -> int:
    """How many images the blur of the heads out of focus needs."""
    if sight.lens is None or not sight.poses:
        return 1
    depths = np.concatenate([_seen(sight.view, pose)[1] for pose in sight.poses])
    blur = sight.lens.blur(sight.view, depths)
    return 1 if blur < STILL else int(min(np.ceil(np.pi / 4 * blur**2 / AREA) + 1, MOST))


def _steps(before: Sight, after: Sight) -> list[float]:
    """Pixels by which each head, or a part of its face, moves. Heads that come or go count as moving far."""
    if len(before.poses) != len(after.poses):
        return [np.inf if before.poses or after.poses else 0.0]
    found = []
    for first, second in zip(before.poses, after.poses, strict=True):
        (here, near), (there, _) = _seen(before.view, first), _seen(after.view, second)
        size = np.diag(before.view.intrinsics)[:2].max() * np.cbrt(abs(np.linalg.det(first.root[:3, :3])))
        face = _JAW * np.linalg.norm(second.jaw - first.jaw)
        face += _EXPRESSION * np.abs(second.expression - first.expression).sum()
        found.append(float(np.linalg.norm(there - here, axis=1).max() + size / near.min() * face))
    return found


def _seen(view: WorkerCamera, pose: RigPose) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (8, 2) and depths (8,) of a head's corners, metres; depths of 1 in an orthographic view."""
    world = points_to_head(_PROBES @ pose.head_motion[:3, :3].T + pose.head_motion[:3, 3])
    seen = world @ view.world_to_camera[:3, :3].T + view.world_to_camera[:3, 3]
    depths = np.ones(len(seen)) if view.orthographic else np.maximum(seen[:, 2], 1e-3)
    return seen[:, :2] / depths[:, None] * np.diag(view.intrinsics)[:2] + view.intrinsics[:2, 2], depths


def _reversed_digits(numbers: np.ndarray) -> np.ndarray:
    """Van der Corput's sequence: the binary digits of each number behind the point, in reversed order."""
    found, share, rest = np.zeros(len(numbers)), 1.0, numbers.copy()
    while rest.any():
        share /= 2
        found += share * (rest % 2)
        rest //= 2
    return found
