"""The metrics of rendered frames against the footage: those that need neither a detector nor a network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..avatar.render import Frame
from ..formats.capture import Capture, read_head_matte
from ..formats.image_files import to_bytes
from ..progress import Progress
from .frames import WHITE, MatteReader, premultiplied_cutout, read_truth
from .metrics import ImageMetrics, compare


def score_frames(
    render: Callable[[int], Frame],
    capture: Capture,
    indices: np.ndarray,
    size: int,
    progress: Progress,
    *,
    stage: str | None = None,
    matte_of: MatteReader = read_head_matte,
) -> list[ImageMetrics]:
    """The metrics of the frames `indices` (N,), which `render` makes at `size`. `stage` is what progress calls it.

    With the `matte_of` the whole person, “head” means the whole person.
    """
    metrics = []
    for done, index in enumerate(indices.tolist(), start=1):
        progress.raise_if_cancelled()
        truth, matte = read_truth(capture, index, size, matte_of)
        frame = render(index)
        pictures = (part / np.float32(255) for part in (to_bytes(frame.over(WHITE)), truth, matte))
        metrics.append(compare(*pictures, cutouts=(frame.rgba, premultiplied_cutout(capture, index, size, matte_of))))
        if stage:
            progress.update(stage, done, len(indices))
    return metrics
