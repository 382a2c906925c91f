"""The score of an avatar in the light of a capture: with the change of colour that the training frames show.

An avatar that was trained on several captures has the colours of the first (`capture_light`). Against frames of another
capture the plain metrics mostly measure the difference of the light.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..avatar.avatar import Avatar
from ..avatar.render import Frame, draw
from ..formats.capture import Capture
from ..formats.track import Track
from ..progress import Progress
from .capture_light import fit_affine
from .frame_scores import score_frames
from .frames import TRAIN_FRAMES, evenly_spaced, read_truth
from .metrics import ImageMetrics

SOLID = 240
"""Alpha and matte, of 255, above which a pixel shows the head alone."""


def score_in_own_light(
    avatar: Avatar,
    capture: Capture,
    track: Track,
    training: np.ndarray,
    scored: np.ndarray,
    size: int,
    progress: Progress,
) -> list[ImageMetrics]:
    """The metrics of the frames `scored` (N,), after one affine change of colour that was fitted to `training` (T,)."""
    pairs = []
    chosen = evenly_spaced(training, TRAIN_FRAMES).tolist()
    for done, index in enumerate(chosen, start=1):
        frame, (truth, matte) = draw(avatar, track, [index], size)[0], read_truth(capture, index, size)
        solid = (matte >= SOLID) & (frame.alpha >= SOLID / 255)
        pairs.append((frame.color[solid], truth[solid] / np.float32(255)))
        progress.update("Finding the light", done, len(chosen))
    rendered, seen = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*pairs, strict=True))
    affine = fit_affine(rendered, seen).float().numpy()
    return score_frames(
        lambda index: _in_light(draw(avatar, track, [index], size)[0], affine), capture, scored, size, progress
    )


def _in_light(frame: Frame, affine: np.ndarray) -> Frame:
    return replace(frame, color=frame.color @ affine[:, :3].T + frame.alpha[..., None] * affine[:, 3])
