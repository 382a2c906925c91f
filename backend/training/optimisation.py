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
"""Exponential moving average over about the last 200 steps, which averages out what each step owes to its own
frames."""

MEAN_ROWS = 8
"""Random frames drawn for each frame of a step, over which the mean of the pose offsets is kept at zero."""


@dataclass(frozen=True)
class ParameterGroup:
    parameters: Iterable[nn.Parameter]
    rate: float


class Optimisation:
    """One training stage: a model called as `model(pose) -> (splats, anchors)`, its optimizer, and its progress."""

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
        """`enhancer` is the model's own, if it has one. `rows` are the rows of `frames` to train on, all by default.
        `clock` returns seconds, by which `minutes` are counted.
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
        self.rates = [group.rate for group in groups]
        self.optimizer = torch.optim.Adam(
            [{"params": list(group.parameters), "lr": group.rate} for group in groups], eps=1e-15
        )
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.average = {name: parameter.detach().clone() for name, parameter in self._named()}
        self.step = 0
        self.seconds = 0.0
        self.recent_psnr = float("nan")
        self._lanes = 1

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters that this stage trains: those of the model and of the pose refinement network."""
        yield from self.model.named_parameters()
        if self.pose_refiner:
            yield from self.pose_refiner.refinement.named_parameters(prefix="refinement")

    @property
    def fraction_done(self) -> float:
        """In [0, 1]: by steps, or by the clock where the user gave minutes."""
        if self.minutes is not None:
            return min(1.0, self.seconds / (60 * self.minutes))
        return min(1.0, self.step / self.steps)

    def run(self, progress: Progress, after_step: Callable[[Optimisation], None] | None = None) -> None:
        """Run the remaining steps. `after_step` may save a checkpoint; cancelling raises `Cancelled` between steps."""
        started = self.clock() - self.seconds
        with self._in_lanes():
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
    def _in_lanes(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        if self.frames.device.type != "cpu" or threads == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            with ThreadPoolExecutor(threads, "lane") as self._pool:
                self._lanes = threads
                yield
        finally:
            self._lanes = 1
            torch.set_num_threads(threads)

    def _step(self) -> None:
        generator = torch.Generator().manual_seed(SEED + self.step)
        rows = self._rows()
        # Cosine decay of each group's learning rate to `final_rate` of its start.
        factor = self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * self.fraction_done))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        # Drawn for the whole batch, so that results do not depend on the number of workers.
        noise = self.condition_noise * torch.randn((self.batch, self.frames.condition_size), generator=generator)
        background = torch.rand((self.batch, 3), generator=generator)
        # The perceptual crop stays in the middle half of the image, where the head is.
        corners = 0.25 + 0.5 * torch.rand((self.batch, 2), generator=generator)
        other_rows = torch.randint(len(self.frames), (self.batch, MEAN_ROWS), generator=generator)
        parts = torch.arange(self.batch).chunk(self._lanes)
        work = [
            (rows[part], noise[part], background[part], corners[part], other_rows[part].flatten()) for part in parts
        ]
        results = (
            list(self._pool.map(self._gradients, *zip(*work, strict=True)))
            if self._lanes > 1
            else [self._gradients(*work[0])]
        )
        shares = [len(part) / self.batch for part in parts]
        for place, parameter in enumerate(self._parameters):
            gradients = [
                share * gradient
                for share, result in zip(shares, results, strict=True)
                if (gradient := result[0][place]) is not None
            ]
            parameter.grad = sum(gradients[1:], gradients[0]) if gradients else None
        self.optimizer.step()
        self.step += 1
        self._fold_average()
        if self.step % 10 == 1:
            fresh = sum(share * result[1] for share, result in zip(shares, results, strict=True))
            self.recent_psnr = fresh if math.isnan(self.recent_psnr) else 0.8 * self.recent_psnr + 0.2 * fresh

    def _gradients(
        self, rows: Tensor, noise: Tensor, background: Tensor, corners: Tensor, other_rows: Tensor
    ) -> tuple[tuple[Tensor | None, ...], float]:
        """The gradient of the mean loss of some frames (B,) by every parameter, and their PSNR."""
        batch = self.frames.batch(rows, self.size)
        # Noise on the conditions, as large as the tracker's own, keeps the networks from depending on their last
        # digits.
        pose, motion, penalty = (
            self.pose_refiner.pose(batch, rows, other_rows) if self.pose_refiner else (batch.pose, None, 0.0)
        )
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
        """The frames of this step. Each epoch visits every frame once, in shuffled order."""
        count = len(self.rows)
        places = torch.arange(self.step * self.batch, (self.step + 1) * self.batch)
        orders = {
            epoch: torch.randperm(count, generator=torch.Generator().manual_seed(SEED + 7919 * epoch))
            for epoch in set((places // count).tolist())
        }
        return self.rows[torch.stack([orders[place // count][place % count] for place in places.tolist()])]

    @torch.no_grad()
    def _fold_average(self) -> None:
        decay = min(AVERAGE_DECAY, self.step / (self.step + 10))
        for name, parameter in self._named():
            self.average[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def use_average(self) -> None:
        """Replace the model's weights by the averaged ones."""
        for name, parameter in self._named():
            parameter.copy_(self.average[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the model has the averaged weights."""
        own = {name: parameter.detach().clone() for name, parameter in self._named()}
        self.use_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._named():
                    parameter.copy_(own[name])

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint stores besides `step` and `seconds`, as one flat dictionary."""
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
    """(B, H, W, 3) in [0, 1] over white, without gradients."""
    with torch.no_grad():
        splats = model(batch.pose)[0]
        raster = enhance(enhancer, rasterize(splats, batch.cameras), splats, batch.cameras)
    return (raster.color + (1 - raster.alpha[..., None])).clamp(0, 1)
