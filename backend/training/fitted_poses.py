"""The training frames' poses, fitted again by the avatar during its training, which goes on in both poses.

An avatar that is trained in the tracker's poses alone learns its errors, and is less sharp where the same face was
tracked differently. One that is trained in fitted poses alone is worse in tracked ones (bench/results/training.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from ..avatar.avatar import Avatar
from ..formats.capture import Capture
from ..reading import Damaged
from .frames import TrainingFrames
from .optimisation import Optimisation
from .presets import MOST_FITTED
from .session import TrainingSession
from .track_by_avatar import track_by_avatar

FEWEST_FITTED: Final = 16
STEPS_PER_FRAME: Final = 3.2
"""Training steps of four frames in whose time one frame is fitted."""
SHARE: Final = 0.3
"""Of the time that is left for training, which fitting may take."""
PREFIX: Final = "fitted."
POSE: Final = ("expression", "rotations", "head_to_camera")


def frames_to_fit(optimisation: Optimisation) -> int:
    """How many frames are fitted, 0 where the training is too short for it."""
    left = 1 - optimisation.fraction_done
    steps = optimisation.step * left / optimisation.fraction_done if optimisation.minutes else optimisation.steps * left
    most = min(MOST_FITTED, int(SHARE * steps / STEPS_PER_FRAME))
    return most if most >= FEWEST_FITTED else 0


def fit_poses(
    avatar: Avatar,
    captures: Sequence[Capture],
    frames: TrainingFrames,
    optimisation: Optimisation,
    session: TrainingSession,
) -> None:
    """Adds fitted poses to `frames`, and to what `session` keeps in its checkpoints. `avatar` has the networks of
    `optimisation`, whose averaged weights are used.
    """
    started = optimisation.clock()
    most = frames_to_fit(optimisation)
    if not most:
        return
    fitted = []
    with optimisation.averaged():
        lights = optimisation.light.affine().detach() if optimisation.light else [None] * len(captures)
        for number, (capture, track) in enumerate(zip(captures, frames.tracks, strict=True)):
            used = np.ones_like(track.flags)
            used[frames.indices_in(number)] = 0
            share = -(-most * frames.counts[number] // len(frames))
            found = track_by_avatar(
                avatar,
                capture,
                replace(track, flags=used),
                size=frames.size,
                most=share,
                light=lights[number],
                progress=session.progress,
            )
            fitted.append(found.track)
    frames.add_poses(fitted)
    session.kept |= {
        f"{PREFIX}{number}.{name}": torch.as_tensor(getattr(track, name))
        for number, track in enumerate(fitted)
        for name in POSE
    }
    if optimisation.minutes:
        optimisation.seconds += optimisation.clock() - started


def restore_poses(frames: TrainingFrames, tensors: Mapping[str, Tensor], session: TrainingSession) -> None:
    """Adds the poses that a checkpoint holds, if any. Raises `Damaged` where they do not fit the tracks."""
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    if not kept:
        return
    fitted = []
    for number, track in enumerate(frames.tracks):
        parts = {name: kept.get(f"{PREFIX}{number}.{name}") for name in POSE}
        for name, part in parts.items():
            if part is None or part.shape != getattr(track, name).shape or not part.is_floating_point():
                raise Damaged(f"{PREFIX}{number}.{name} does not fit the track")
        fitted.append(replace(track, **{name: part.numpy() for name, part in parts.items() if part is not None}))
    frames.add_poses(fitted)
    session.kept |= kept
