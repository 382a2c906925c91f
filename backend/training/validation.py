"""Frames of the training part that are kept from training, to tell when more of it stops helping.

They are two runs of consecutive frames: single ones would have neighbours that training sees, and look as those do. Every
so often the averaged weights are scored on them, and the best are what training ends with. The held-out fifth of the
clip is never looked at.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .optimisation import Fitting, picture_of

RUNS = 2
EVERY_STEPS = 500
MOST_FRAMES = 12
FEWEST = 60
"""Training frames from which some can be spared."""


def split_rows(count: int, share: float) -> tuple[Tensor, Tensor]:
    """Rows 0 ... `count` - 1 for training, and those kept from it: about `share` of them, in `RUNS` runs, evenly placed."""
    rows = np.arange(count)
    length = round(share * count / RUNS)
    kept = np.zeros(count, bool)
    if length and count >= FEWEST:
        for run in range(RUNS):
            middle = round((run + 1) * count / (RUNS + 1))
            kept[middle - length // 2 : middle - length // 2 + length] = True
    return torch.from_numpy(rows[~kept]), torch.from_numpy(rows[kept])


class Validation:
    def __init__(self, rows: Tensor) -> None:
        """`rows` of the frames that `Fitting` has; may be empty."""
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), MOST_FRAMES)).round().astype(int)
        self.rows = rows[chosen] if len(rows) else rows
        self.best_psnr = float("nan")
        self._best: dict[str, Tensor] | None = None

    def look(self, fitting: Fitting) -> None:
        """Score the averaged weights; keep them if they are the best so far."""
        if not len(self.rows):
            return
        with fitting.averaged():
            squared = [self._error(fitting, row) for row in self.rows.split(1)]
        psnr = float(-10 * np.log10(np.mean(squared)))
        if not psnr <= self.best_psnr:
            self.best_psnr = psnr
            self._best = {name: value.clone() for name, value in fitting.average.items()}

    @staticmethod
    def _error(fitting: Fitting, row: Tensor) -> float:
        batch = fitting.frames.batch(row, fitting.size)
        truth = batch.color * batch.matte[..., None] + (1 - batch.matte[..., None])
        return float((picture_of(fitting.model, batch, fitting.enhancer) - truth).square().mean())

    def choose(self, fitting: Fitting) -> None:
        """Leave the best weights in the model: with frames to tell by those, without the last ones' average."""
        self.look(fitting)
        if self._best:
            fitting.average = self._best
        fitting.use_average()
