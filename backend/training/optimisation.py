"""The optimisation loop of warm-up and training: batches, learning-rate schedule, averaged weights, progress.

All random numbers are functions of (seed, step), so that a resumed run sees the same frames as an uninterrupted one.

On a CPU the frames of a step are distributed over worker threads, and PyTorch uses a single thread inside each of them:
most operations of a step are too small to be worth splitting, while whole frames are large enough.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..avatar.enhancer import Enhancer, enhance, head_depth
from ..progress import Progress
from ..splatting.rasterize import rasterize
from .frames import Batch, TrainingFrames
from .losses import AnchorLimits, batch_psnr, total_loss
from .pose_refinement import PoseRefiner
from .unobserved_regions import UnobservedPrior

SEED = 20251
AVERAGE_DECAY = 0.995
"""Decay of the exponential moving average of the weights. It averages about 200 steps, because the weights after any
single step fit the frames of that step better than the others."""

MEAN_ROWS = 8
"""Pose refinement keeps the mean of its offsets over all frames at zero. Each step estimates this mean on random
frames, as many as this for each frame of the step."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: Iterable[nn.Parameter]
    learning_rate: float
    """At the first step; it decays as `Optimisation` describes."""


class Optimisation:
    """One training stage: a model called as `model(pose) -> (splats, anchors)`, its optimizer (Adam), and its progress.

    A row is an index into `frames`.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[ParameterGroup],
        frames: TrainingFrames,
        anchor_limit: AnchorLimits,
        *,
        stage: str,
        steps: int,
        batch: int,
        size: int,
        final_rate: float,
        minutes: float | None = None,
        condition_noise: float = 0.0,
        perceptual_crop: int = 0,
        pose_refiner: PoseRefiner | None = None,
        enhancer: Enhancer | None = None,
        unobserved_prior: UnobservedPrior | None = None,
        rows: Tensor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the stage at step 0.

        `stage`: the name of the stage in progress reports.
        `steps`, `minutes`: the length of the stage. If `minutes` is given, `steps` is ignored.
        `batch`: frames in each step; `size`: width and height of the rendered images, pixels.
        `final_rate`: fraction of its initial value to which each learning rate decays, along a cosine.
        `condition_noise`: standard deviation of the Gaussian noise on `Pose.conditions`.
        `perceptual_crop`: side of the crop for the perceptual loss, pixels; 0 = no perceptual loss.
        `enhancer`: the model's own, if it has one.
        `rows`: the rows to train on, all by default.
        `clock`: returns the seconds by which `minutes` are counted.
        """
        self.model, self.frames, self.anchor_limit, self.pose_refiner, self.enhancer = (
            model,
            frames,
            anchor_limit,
            pose_refiner,
            enhancer,
        )
        self.unobserved_prior, self.clock = unobserved_prior, clock
        self.rows = torch.arange(len(frames)) if rows is None else rows
        self.stage, self.steps, self.batch, self.size, self.minutes = stage, steps, batch, size, minutes
        self.final_rate, self.condition_noise, self.perceptual_crop = final_rate, condition_noise, perceptual_crop
        self.learning_rates = [group.learning_rate for group in groups]
        self.optimizer = torch.optim.Adam(
            [{"params": list(group.parameters), "lr": group.learning_rate} for group in groups], eps=1e-15
        )
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.average = {name: parameter.detach().clone() for name, parameter in self._named()}
        self.step = 0
        self.seconds = 0.0
        self.recent_psnr = float("nan")
        self._workers = 1

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that this stage trains: those of the model and of the pose refinement network."""
        yield from self.model.named_parameters()
        if self.pose_refiner:
            yield from self.pose_refiner.refinement.named_parameters(prefix="refinement")

    @property
    def fraction_done(self) -> float:
        """Progress of the stage in [0, 1]: by time if the stage has `minutes`, otherwise by steps."""
        if self.minutes is not None:
            return min(1.0, self.seconds / (60 * self.minutes))
        return min(1.0, self.step / self.steps)

    def run(self, progress: Progress, after_step: Callable[[Optimisation], None] | None = None) -> None:
        """Run the remaining steps, each followed by `after_step` (checkpoint, preview, validation).

        If the user cancels, `Cancelled` is raised before the next step.
        """
        started = self.clock() - self.seconds
        with self._worker_threads():
            while self.fraction_done < 1:
                progress.raise_if_cancelled()
                self._step()
                self.seconds = self.clock() - started
                done, total = (
                    (self.step, self.steps) if self.minutes is None else (round(self.seconds), round(60 * self.minutes))
                )
                progress.update(self.stage, min(done, total), total, psnr=self.recent_psnr)
                if after_step:
                    after_step(self)

    @contextmanager
    def _worker_threads(self) -> Iterator[None]:
        """Context in which the frames of a step are distributed over threads, on a CPU with more than one core."""
        threads = torch.get_num_threads()
        if self.frames.device.type != "cpu" or threads == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads, "training") as self._pool:
                self._workers = threads
                yield
        finally:
            self._workers = 1
            torch.set_num_threads(threads)

    def _step(self) -> None:
        """Draw the random numbers of this step, sum the workers' gradients, and update weights and their average."""
        generator = torch.Generator().manual_seed(SEED + self.step)
        rows = self._rows()
        # Cosine decay of each group's learning rate to the fraction `final_rate` of its initial value.
        factor = self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * self.fraction_done))
        for group, learning_rate in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            group["lr"] = learning_rate * factor
        # Drawn for the whole batch, so that results do not depend on the number of workers.
        noise = self.condition_noise * torch.randn((self.batch, self.frames.condition_size), generator=generator)
        background = torch.rand((self.batch, 3), generator=generator)
        # The perceptual crop stays in the middle half of the image, where the head is.
        corners = 0.25 + 0.5 * torch.rand((self.batch, 2), generator=generator)
        other_rows = torch.randint(len(self.frames), (self.batch, MEAN_ROWS), generator=generator)
        parts = torch.arange(self.batch).chunk(self._workers)
        work = [
            (rows[part], noise[part], background[part], corners[part], other_rows[part].flatten()) for part in parts
        ]
        results = (
            list(self._pool.map(self._gradients, *zip(*work, strict=True)))
            if self._workers > 1
            else [self._gradients(*work[0])]
        )
        shares = [len(part) / self.batch for part in parts]
        for position, parameter in enumerate(self._parameters):
            gradients = [
                share * gradient
                for share, result in zip(shares, results, strict=True)
                if (gradient := result[0][position]) is not None
            ]
            parameter.grad = sum(gradients[1:], gradients[0]) if gradients else None
        self.optimizer.step()
        self.step += 1
        self._update_average()
        if self.step % 10 == 1:
            psnr = sum(share * result[1] for share, result in zip(shares, results, strict=True))
            self.recent_psnr = psnr if math.isnan(self.recent_psnr) else 0.8 * self.recent_psnr + 0.2 * psnr

    def _gradients(
        self, rows: Tensor, noise: Tensor, background: Tensor, corners: Tensor, other_rows: Tensor
    ) -> tuple[tuple[Tensor | None, ...], float]:
        """The gradients of the mean loss over the frames `rows` (B,), one per parameter, and the frames' PSNR, dB.

        The gradient of a parameter that does not affect the loss is None. `noise` (B, condition size) is added to the
        conditions; `background` (B, 3) and `corners` (B, 2) are those of `image_loss`; `other_rows` (MEAN_ROWS B,) are
        those of `PoseRefiner.pose`.
        """
        batch = self.frames.batch(rows, self.size)
        pose, motion, penalty = (
            self.pose_refiner.pose(batch, rows, other_rows) if self.pose_refiner else (batch.pose, None, 0.0)
        )
        # Noise as large as the tracker's own keeps the networks from depending on differences below the tracking error.
        pose = replace(pose, conditions=pose.conditions + noise.to(pose.conditions))
        splats, anchors = self.model(pose)
        splats = motion.move(splats) if motion else splats
        raster = rasterize(splats, batch.cameras)
        # The enhancer learns at the native scale of the training images.
        enhanced = self.enhancer(raster, head_depth(splats, batch.cameras)) if self.enhancer else None
        loss = total_loss(
            raster,
            batch,
            anchors,
            self.anchor_limit,
            background.to(batch.color),
            corners if self.perceptual_crop else None,
            self.perceptual_crop,
            enhanced,
        )
        if self.unobserved_prior:
            loss = loss + self.unobserved_prior.loss(anchors, splats.opacities[:, anchors.opacities.shape[1] :])
        return torch.autograd.grad(loss + penalty, self._parameters, allow_unused=True), batch_psnr(
            enhanced or raster, batch
        )

    def _rows(self) -> Tensor:
        """(batch,) rows of this step. Each epoch visits every row once, in shuffled order."""
        count = len(self.rows)
        positions = torch.arange(self.step * self.batch, (self.step + 1) * self.batch)
        orders = {
            epoch: torch.randperm(count, generator=torch.Generator().manual_seed(SEED + 7919 * epoch))
            for epoch in set((positions // count).tolist())
        }
        return self.rows[torch.stack([orders[position // count][position % count] for position in positions.tolist()])]

    @torch.no_grad()
    def _update_average(self) -> None:
        # In the first steps the decay is smaller, so that the initial weights drop out of the average quickly.
        decay = min(AVERAGE_DECAY, self.step / (self.step + 10))
        for name, parameter in self._named():
            self.average[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        """Replace all trained parameters, those of pose refinement included, by their averages."""
        for name, parameter in self._named():
            parameter.copy_(self.average[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which all trained parameters have their averaged values."""
        latest = {name: parameter.detach().clone() for name, parameter in self._named()}
        self.use_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._named():
                    parameter.copy_(latest[name])

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint: parameters, their averages, Adam's moments and the unobserved prior, in one dictionary."""
        state = {f"model.{name}": parameter.detach() for name, parameter in self._named()}
        state |= {f"average.{name}": value for name, value in self.average.items()}
        state |= (
            {f"keeping.{name}": value for name, value in self.unobserved_prior.tensors().items()}
            if self.unobserved_prior
            else {}
        )
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._named()}
        for parameter, moments in self.optimizer.state.items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                state[f"adam.{key}.{names[parameter]}"] = torch.as_tensor(moments[key])
        return {name: value.cpu().contiguous().clone() for name, value in state.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], step: int, seconds: float) -> None:
        """Continue from a checkpoint; `tensors` is what `tensors()` returned."""
        self.step, self.seconds = step, seconds
        if self.unobserved_prior:
            self.unobserved_prior = self.unobserved_prior.restored(
                {name.removeprefix("keeping."): value for name, value in tensors.items() if name.startswith("keeping.")}
            )
        for name, parameter in self._named():
            parameter.copy_(tensors[f"model.{name}"])
            self.average[name].copy_(tensors[f"average.{name}"])
            if f"adam.step.{name}" in tensors:
                self.optimizer.state[parameter] = {
                    "step": tensors[f"adam.step.{name}"],
                    "exp_avg": tensors[f"adam.exp_avg.{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"adam.exp_avg_sq.{name}"].to(parameter.device),
                }


def render_over_white(model: nn.Module, batch: Batch, enhancer: Enhancer | None = None) -> Tensor:
    """Render a batch, with the enhancer if given: (B, H, W, 3) in [0, 1] over white, without gradients."""
    with torch.no_grad():
        splats = model(batch.pose)[0]
        raster = enhance(enhancer, rasterize(splats, batch.cameras), splats, batch.cameras)
    return (raster.color + (1 - raster.alpha[..., None])).clamp(0, 1)
