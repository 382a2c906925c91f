"""The score of an avatar with its bust: against the whole person instead of head and neck."""

from __future__ import annotations

import numpy as np

from ..avatar.avatar import Avatar
from ..avatar.render import draw
from ..formats.capture import Capture
from ..formats.image_files import to_bytes
from ..formats.track import Track
from ..progress import Progress
from .frames import WHITE, read_person, read_whole_truth
from .metrics import ImageMetrics, compare


def score_with_bust(
    avatar: Avatar, capture: Capture, track: Track, scored: np.ndarray, size: int, progress: Progress
) -> list[ImageMetrics]:
    """The metrics of the frames `scored` (N,), in which “head” means the whole person."""
    metrics = []
    for done, index in enumerate(scored.tolist(), start=1):
        progress.raise_if_cancelled()
        truth, matte = read_whole_truth(capture, index, size)
        frame = draw(avatar, track, [index], size)[0]
        cutout = read_person(capture, index, size) / np.float32(255)
        cutout[..., :3] *= cutout[..., 3:]
        pictures = (part / np.float32(255) for part in (to_bytes(frame.over(WHITE)), truth, matte))
        metrics.append(compare(*pictures, cutouts=(frame.rgba, cutout)))
        progress.update("Scoring the bust", done, len(scored))
    return metrics
