"""One training run over all of its stages: checkpoints, previews, and where it goes on after an interruption."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from ..progress import Progress
from ..reading import reading
from .checkpoint import EVERY_SECONDS, REMEDY, Checkpoint, save_checkpoint
from .optimisation import Optimisation, Part, render_over_white
from .validation import EVERY_STEPS, Validation

PREVIEW_SECONDS = 10.0
"""Time between two preview images."""


class TrainingSession:
    """Checkpoints and previews of one training run over all of its stages."""

    def __init__(
        self, checkpoint_file: Path | None, job: dict[str, object], progress: Progress, resumed: Checkpoint | None
    ) -> None:
        """`job` identifies this training in its checkpoints. `resumed`: the checkpoint to continue, if any.

        Without `checkpoint_file` nothing is saved.
        """
        self.checkpoint_file, self.job, self.progress, self.resumed = checkpoint_file, job, progress, resumed
        self._last: Checkpoint | None = None
        self.kept: dict[str, torch.Tensor] = {}
        """What every further checkpoint holds besides the stage's own tensors."""
        self.seconds_before = resumed.total_seconds if resumed else 0.0
        self.started = self.last_saved = time.monotonic()
        self.last_preview = -math.inf
        """The first preview is of the first step, which starts from pixels of the clip."""

    @property
    def total_seconds(self) -> float:
        """Seconds since training started, without the time between a killed run and the run that resumed it."""
        return self.seconds_before + time.monotonic() - self.started

    def run(
        self, optimisation: Optimisation, stage: str, validation: Validation | None = None, part: Part | None = None
    ) -> None:
        """Run a stage or a part of it, from the resumed checkpoint if that is of this stage, with checkpoints, previews
        and validation.

        `stage` is the name of the stage in the checkpoint.
        """
        if self.resumed and self.resumed.stage == stage:
            with reading(self.checkpoint_file or Path("checkpoint"), "checkpoint", REMEDY):
                optimisation.check_restorable(self.resumed.tensors)
                if validation:
                    validation.restore(self.resumed.tensors, optimisation)
            optimisation.restore(self.resumed.tensors, self.resumed.step, self.resumed.seconds)
            self.resumed = None
            self.kept |= validation.tensors() if validation else {}

        def after_step(_: Optimisation) -> None:
            if validation and optimisation.step % EVERY_STEPS == 0:
                validation.score(optimisation)
                self.kept |= validation.tensors()
            now = time.monotonic()
            if now - self.last_saved > EVERY_SECONDS:
                self.save(optimisation, stage)
            if now - self.last_preview > PREVIEW_SECONDS:
                self.last_preview = now
                self.progress.preview(self._preview(optimisation))

        try:
            optimisation.run(self.progress, after_step, part)
        except RuntimeError:
            # A GPU that failed may not even give its data back. The last periodic checkpoint then remains.
            with suppress(RuntimeError):
                self.save(optimisation, stage)
            raise
        except BaseException:
            # Cancelled, for example. After SIGKILL the last periodic checkpoint remains.
            self.save(optimisation, stage)
            raise
        self.save(optimisation, stage)

    def save(self, optimisation: Optimisation, stage: str) -> None:
        """Make a checkpoint of a stage, and write it if this run has a checkpoint file."""
        self.last_saved = time.monotonic()
        self._last = Checkpoint(
            self.job,
            stage,
            optimisation.step,
            optimisation.seconds,
            self.total_seconds,
            optimisation.tensors() | self.kept,
        )
        if self.checkpoint_file:
            save_checkpoint(self.checkpoint_file, self._last)

    def continue_from_last(self) -> None:
        """Resume from the last checkpoint that this run made or, if it made none, from where the run itself began."""
        self.resumed = self._last or self.resumed

    def _preview(self, optimisation: Optimisation) -> np.ndarray:
        """The middle training frame as the model renders it now: (size, size, 3) uint8 RGB."""
        batch = optimisation.frames.batch(torch.tensor([len(optimisation.frames) // 2]), optimisation.size)
        return (
            (render_over_white(optimisation.model, batch, optimisation.enhancer)[0].cpu().numpy() * 255)
            .round()
            .astype(np.uint8)
        )
