"""Validation frames, kept out of training to select the best weights.

They are two runs of consecutive frames; single frames would be almost equal to their neighbours in the training set.
The averaged weights are scored on them every `EVERY_STEPS` steps, and training ends with the best ones. The held-out
fifth of the clip is never used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..reading import Damaged
from .optimisation import Optimisation, render_over_white

RUNS = 2
EVERY_STEPS = 500
MAX_FRAMES = 12
PREFIX = "best."
"""Of the best weights in a checkpoint, and of their PSNR."""
MIN_TRAINING_FRAMES = 60
"""With fewer frames than this, all are used for training."""


def split_rows(count: int, share: float) -> tuple[Tensor, Tensor]:
    """Split rows 0 ... `count` - 1 into training rows and validation rows: about `share` of them, in RUNS evenly spaced
    runs.
    """
    rows = np.arange(count)
    length = round(share * count / RUNS)
    kept = np.zeros(count, bool)
    if length and count >= MIN_TRAINING_FRAMES:
        for run in range(RUNS):
            middle = round((run + 1) * count / (RUNS + 1))
            kept[middle - length // 2 : middle - length // 2 + length] = True
    return torch.from_numpy(rows[~kept]), torch.from_numpy(rows[kept])


def split_captures(counts: Sequence[int], share: float) -> tuple[Tensor, Tensor]:
    """`split_rows` of each of the captures, of which `counts` says how many of the rows they have, one after another.
    So the same moments are kept from training in all cameras that saw them.
    """
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    parts = [split_rows(count, share) for count in counts]
    training, kept = (
        torch.cat([start + part[which] for start, part in zip(starts, parts, strict=True)]) for which in (0, 1)
    )
    return training, kept


class Validation:
    def __init__(self, rows: Tensor) -> None:
        """`rows` are rows of the optimisation's `frames`; they may be empty."""
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), MAX_FRAMES)).round().astype(int)
        self.rows = rows[chosen] if len(rows) else rows
        self.best_psnr = float("nan")
        self._best: dict[str, Tensor] | None = None

    def score(self, optimisation: Optimisation) -> None:
        """Score the averaged weights, and keep a copy if they are the best so far."""
        if not len(self.rows):
            return
        with optimisation.averaged():
            squared = [self._error(optimisation, row) for row in self.rows.split(1)]
        psnr = float(-10 * np.log10(np.mean(squared)))
        if not psnr <= self.best_psnr:
            self.best_psnr = psnr
            self._best = {name: value.clone() for name, value in optimisation.average.items()}

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: the best weights so far and their PSNR, if there are any."""
        if self._best is None:
            return {}
        kept = {f"{PREFIX}{name}": value.cpu() for name, value in self._best.items()}
        return kept | {f"{PREFIX}psnr": torch.tensor(self.best_psnr, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, Tensor], optimisation: Optimisation) -> None:
        """Continue from a checkpoint. Raises `Damaged` where its best weights do not fit those of `optimisation`."""
        kept = {name.removeprefix(PREFIX): value for name, value in tensors.items() if name.startswith(PREFIX)}
        if not kept:
            return
        psnr = kept.pop("psnr", None)
        shapes = {name: value.shape for name, value in optimisation.average.items()}
        fits = psnr is not None and psnr.numel() == 1 and shapes == {name: value.shape for name, value in kept.items()}
        if psnr is None or not fits or not all(value.is_floating_point() for value in kept.values()):
            raise Damaged("its best weights do not fit the networks")
        self.best_psnr, self._best = float(psnr), kept

    @staticmethod
    def _error(optimisation: Optimisation, row: Tensor) -> float:
        batch = optimisation.frames.batch(row, optimisation.size)
        truth = batch.color * batch.matte[..., None] + (1 - batch.matte[..., None])
        image = render_over_white(optimisation.model, batch, optimisation.enhancer, optimisation.light)
        return float((image - truth).square().mean())

    def restore_best(self, optimisation: Optimisation) -> None:
        """Put the best weights into the model; without validation frames, the last averaged weights."""
        self.score(optimisation)
        if self._best:
            optimisation.average = self._best
        optimisation.use_average()
