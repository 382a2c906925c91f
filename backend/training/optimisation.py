"""The optimisation loop of warm-up and training: batches, learning-rate schedule, averaged weights, progress.

Random numbers are those of `step_draws`. Inside a step the CPU reads nothing from a GPU; see `transfers`.

On a CPU the frames of a step are distributed over worker threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..avatar.enhancer import Enhancer, enhance, head_depth
from ..progress import Progress
from ..reading import Damaged
from ..splatting.rasterize import rasterize
from .capture_light import CaptureLight
from .frames import Batch, TrainingFrames
from .losses import ANCHOR_LIMIT_WEIGHT, AnchorLimits, batch_psnr, spawned_limit_loss, total_loss
from .parameter_groups import ParameterGroup
from .pose_refinement import PoseRefiner
from .step_draws import StepDraws, draw_step
from .transfers import PendingNumber
from .unobserved_regions import UnobservedPrior
from .visible_eyes import EVERY, WEIGHT, VisibleEyes
from .worker_threads import worker_threads

PSNR_STEPS = 10
"""Steps from one measurement of the training frames' PSNR to the next."""
SEED = 20251
SPAWNED_EVERY = 4
"""Steps from one in which the spawned Gaussians' limits are looked at, with as much more weight, to the next: each time
takes a twelfth of a step."""
COARSE_STEP = 0.45
"""Time of a step with images of half the size, of one with whole images, on a CPU at 512 x 512
(bench/results/detail.md)."""
AVERAGE_DECAY = 0.995
"""Decay of the exponential moving average of the weights. It averages about 200 steps, because the weights after any
single step fit the frames of that step better than the others."""


@dataclass(frozen=True)
class Part:
    """A part of a stage, which progress shows as a stage of its own."""

    stage: str
    start: float = 0.0
    """Fraction of the stage."""
    end: float = 1.0


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
        coarse_until: float = 0.0,
        perceptual_crop: int = 0,
        pose_refiner: PoseRefiner | None = None,
        enhancer: Enhancer | None = None,
        unobserved_prior: UnobservedPrior | None = None,
        visible_eyes: VisibleEyes | None = None,
        light: CaptureLight | None = None,
        rows: Tensor | None = None,
        mixed_precision: bool = False,
        seed: int = SEED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up the stage at step 0.

        `stage`: the name of the stage in progress reports.
        `steps`, `minutes`: the length of the stage. If `minutes` is given, `steps` is ignored.
        `batch`: frames in each step; `size`: width and height of the rendered images, pixels.
        `final_rate`: fraction of its initial value to which each learning rate decays, along a cosine.
        `condition_noise`: standard deviation of the Gaussian noise on `Pose.conditions`.
        `coarse_until`: fraction of the stage until which images of half the size are rendered.
        `perceptual_crop`: side of the crop for the perceptual loss, pixels; 0 = no perceptual loss.
        `enhancer`: the model's own, if it has one.
        `light`: of the captures, where there are several.
        `rows`: the rows to train on, all by default.
        `mixed_precision`: compute the enhancer and the network of the perceptual loss in bfloat16. What this costs in
        quality and gains in speed on a GPU has not been measured, so nothing in Effigy switches it on yet.
        `seed`: of the random numbers of every step.
        `clock`: returns the seconds by which `minutes` are counted.
        """
        self.model, self.frames, self.anchor_limit = model, frames, anchor_limit
        self.pose_refiner, self.enhancer, self.light = pose_refiner, enhancer, light
        self.unobserved_prior, self.mixed_precision, self.clock = unobserved_prior, mixed_precision, clock
        self.visible_eyes = visible_eyes
        self.seed = seed
        self.rows = torch.arange(len(frames)) if rows is None else rows
        self.stage, self.steps, self.batch, self.size, self.minutes = stage, steps, batch, size, minutes
        self.final_rate, self.condition_noise = final_rate, condition_noise
        # An odd size has no half.
        self.coarse_until = coarse_until if size % 2 == 0 else 0.0
        self.perceptual_crop = perceptual_crop
        self.learning_rates = [group.learning_rate for group in groups]
        self.optimizer = torch.optim.Adam(
            [
                {"params": list(group.parameters), "lr": group.learning_rate, "eps": group.least_gradient}
                for group in groups
            ]
        )
        self._parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.average = {name: parameter.detach().clone() for name, parameter in self._named()}
        self.step = 0
        self.seconds = 0.0
        self.recent_psnr = float("nan")
        self._pending_psnr: PendingNumber | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._workers = 1

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that this stage trains: those of the model, of the pose refinement network and of the
        captures' light.
        """
        yield from self.model.named_parameters()
        if self.pose_refiner:
            yield from self.pose_refiner.refinement.named_parameters(prefix="refinement")
        if self.light:
            yield from self.light.named_parameters(prefix="light")

    @property
    def fraction_done(self) -> float:
        """Progress of the stage in [0, 1]: by time if the stage has `minutes`, otherwise by steps."""
        if self.minutes is not None:
            return min(1.0, self.seconds / (60 * self.minutes))
        return min(1.0, self.step / self.steps)

    def run(
        self,
        progress: Progress,
        after_step: Callable[[Optimisation], None] | None = None,
        part: Part | None = None,
    ) -> None:
        """Run the remaining steps of the stage, or of a part of it, each followed by `after_step` (checkpoint, preview,
        validation).

        If the user cancels, `Cancelled` is raised before the next step.
        """
        part = part or Part(self.stage)
        started = self.clock() - self.seconds
        try:
            with worker_threads(self.frames.device) as (self._pool, self._workers):
                while self.fraction_done < part.end:
                    progress.raise_if_cancelled()
                    self._step()
                    self.seconds = self.clock() - started
                    units = self._work(self.steps) if self.minutes is None else 60 * self.minutes
                    done = (self._work(self.step) if self.minutes is None else self.seconds) - part.start * units
                    total = (part.end - part.start) * units
                    progress.update(part.stage, round(min(done, total)), round(total), psnr=self.recent_psnr)
                    if after_step:
                        after_step(self)
        finally:
            self._pool, self._workers = None, 1

    def _step(self) -> None:
        """Sum the workers' gradients over the frames of this step, and update weights and their average."""
        # Cosine decay of each group's learning rate to the fraction `final_rate` of its initial value.
        factor = self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * self.fraction_done))
        for group, learning_rate in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            group["lr"] = learning_rate * factor
        # The same for all workers, whatever the clock says meanwhile.
        size = self._drawn_size()
        # Smaller images are compared whole.
        crop = min(self.perceptual_crop, size)
        draws = draw_step(
            self.frames,
            self.rows,
            self.batch,
            seed=self.seed,
            step=self.step,
            condition_noise=self.condition_noise,
            crop_range=size - crop,
        )
        parts = draws.split(self._workers)
        measured = self.step % PSNR_STEPS == 0
        results = (
            list(self._pool.map(lambda part: self._gradients(part, size, crop, measured), parts))
            if self._pool
            else [self._gradients(parts[0], size, crop, measured)]
        )
        shares = [len(part.crops) / self.batch for part in parts]
        for position, parameter in enumerate(self._parameters):
            parameter.grad = _mean([result[0][position] for result in results], shares)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        if measured:
            self._read_psnr()
            psnr = _mean([result[1] for result in results], shares)
            self._pending_psnr = PendingNumber(psnr) if psnr is not None else None
        if self._pending_psnr and self._pending_psnr.arrived:
            self._read_psnr()

    def _read_psnr(self) -> None:
        """Update the moving average `recent_psnr` by the number that was measured last, if it was not read yet."""
        if self._pending_psnr:
            psnr = self._pending_psnr.read()
            self.recent_psnr = psnr if math.isnan(self.recent_psnr) else 0.8 * self.recent_psnr + 0.2 * psnr
        self._pending_psnr = None

    def _work(self, steps: int) -> float:
        """What the first so many steps take, in steps of the full size."""
        coarse = min(steps, self.coarse_until * self.steps)
        return steps - (1 - COARSE_STEP) * coarse

    def _drawn_size(self) -> int:
        """Width and height of the images of the next step, pixels."""
        return self.size // 2 if self.fraction_done < self.coarse_until else self.size

    def _gradients(
        self, draws: StepDraws, size: int, crop: int, measured: bool
    ) -> tuple[tuple[Tensor | None, ...], Tensor | None]:
        """The gradients of the mean loss over the frames of `draws`, one per parameter, and the frames' PSNR (), dB.

        Images are of `size`, with crops of `crop` for the perceptual loss.

        The gradient of a parameter that does not affect the loss is None, as is the PSNR unless `measured`.
        """
        batch = self.frames.batch(draws.rows, size, draws.fitted)
        pose, motion, penalty = (
            self.pose_refiner.pose(batch, draws.rows, draws.other_rows.flatten())
            if self.pose_refiner
            else (batch.pose, None, 0.0)
        )
        # Noise as large as the tracker's own keeps the networks from depending on differences below the tracking error.
        pose = replace(pose, conditions=pose.conditions + draws.noise)
        splats, anchors = self.model(pose)
        if self.step % SPAWNED_EVERY == 0:
            weight = SPAWNED_EVERY * ANCHOR_LIMIT_WEIGHT
            penalty = penalty + weight * spawned_limit_loss(splats, pose, self.anchor_limit)
        if self.visible_eyes and self.step % EVERY == 0:
            penalty = penalty + EVERY * WEIGHT * self.visible_eyes.covered(splats, pose.posed, batch.cameras)
        splats = motion.move(splats) if motion else splats
        raster = rasterize(splats, batch.cameras)
        enhanced = None
        if self.enhancer:
            # The enhancer learns at the native scale of the training images.
            with torch.autocast(self.frames.device.type, torch.bfloat16, enabled=self.mixed_precision):
                enhanced = self.enhancer(raster, head_depth(splats, batch.cameras))
        if self.light:
            raster = self.light.seen_in(batch.captures, raster)
            enhanced = self.light.seen_in(batch.captures, enhanced) if enhanced else None
            penalty = penalty + self.light.penalty()
        loss = total_loss(
            raster,
            batch,
            anchors,
            self.anchor_limit,
            draws.background,
            draws.crops if crop else None,
            crop,
            enhanced,
            self.mixed_precision,
        )
        if self.unobserved_prior:
            loss = loss + self.unobserved_prior.loss(anchors, splats.opacities[:, anchors.opacities.shape[1] :])
        gradients = torch.autograd.grad(loss + penalty, self._parameters, allow_unused=True)
        return gradients, batch_psnr(enhanced or raster, batch) if measured else None

    @torch.no_grad()
    def _update_average(self) -> None:
        # In the first steps the decay is smaller, so that the initial weights drop out of the average quickly.
        decay = min(AVERAGE_DECAY, self.step / (self.step + 10))
        names, parameters = zip(*self._named(), strict=True)
        # One call for all parameters, because a GPU takes as long to start a kernel as to average a small tensor.
        get_ema_multi_avg_fn(decay)([self.average[name] for name in names], list(parameters), self.step)

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
        """For a checkpoint: parameters, their averages, Adam's moments, the unobserved prior and the PSNR, in one
        dictionary.
        """
        state = {f"model.{name}": parameter.detach() for name, parameter in self._named()}
        state |= {f"average.{name}": value for name, value in self.average.items()}
        state |= (
            {f"keeping.{name}": value for name, value in self.unobserved_prior.tensors().items()}
            if self.unobserved_prior
            else {}
        )
        state |= (
            {} if math.isnan(self.recent_psnr) else {"recent_psnr": torch.tensor(self.recent_psnr, dtype=torch.float64)}
        )
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._named()}
        for parameter, moments in self.optimizer.state.items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                state[f"adam.{key}.{names[parameter]}"] = torch.as_tensor(moments[key])
        return {name: value.cpu().contiguous().clone() for name, value in state.items()}

    def check_restorable(self, tensors: dict[str, Tensor]) -> None:
        """Raise `Damaged` where `tensors`, from a checkpoint, lack one that `restore` needs or have one of another
        shape.
        """
        for name, parameter in self._named():
            moments = ("adam.exp_avg", "adam.exp_avg_sq") if f"adam.step.{name}" in tensors else ()
            for kind in ("model", "average", *moments):
                found = tensors.get(f"{kind}.{name}")
                if found is None or found.shape != parameter.shape or not found.is_floating_point():
                    raise Damaged(f"{kind}.{name} does not fit the networks")
            if moments and tensors[f"adam.step.{name}"].numel() != 1:
                raise Damaged(f"adam.step.{name} is no number")
        if tensors.get("recent_psnr", torch.zeros(())).numel() != 1:
            raise Damaged("recent_psnr is no number")
        if self.unobserved_prior and not self.unobserved_prior.fits(_under("keeping.", tensors)):
            raise Damaged("what it keeps of unobserved regions does not fit the head")

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], step: int, seconds: float) -> None:
        """Continue from a checkpoint; `tensors` is what `tensors()` returned."""
        self.step, self.seconds = step, seconds
        self.recent_psnr = float(tensors.get("recent_psnr", math.nan))
        if self.unobserved_prior:
            self.unobserved_prior = self.unobserved_prior.restored(_under("keeping.", tensors))
        for name, parameter in self._named():
            parameter.copy_(tensors[f"model.{name}"])
            self.average[name].copy_(tensors[f"average.{name}"])
            if f"adam.step.{name}" in tensors:
                self.optimizer.state[parameter] = {
                    "step": tensors[f"adam.step.{name}"],
                    "exp_avg": tensors[f"adam.exp_avg.{name}"].to(parameter.device),
                    "exp_avg_sq": tensors[f"adam.exp_avg_sq.{name}"].to(parameter.device),
                }


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _mean(values: Sequence[Tensor | None], shares: Sequence[float]) -> Tensor | None:
    """The sum of the workers' values, weighted by their shares of the batch; None if no worker has a value."""
    if len(values) == 1:
        return values[0]
    weighted = [share * value for share, value in zip(shares, values, strict=True) if value is not None]
    return sum(weighted[1:], weighted[0]) if weighted else None


def render_over_white(
    model: nn.Module, batch: Batch, enhancer: Enhancer | None = None, light: CaptureLight | None = None
) -> Tensor:
    """Render a batch, with the enhancer and in the light of its captures if given: (B, H, W, 3) in [0, 1] over white,
    without gradients.
    """
    with torch.no_grad():
        splats = model(batch.pose)[0]
        raster = enhance(enhancer, rasterize(splats, batch.cameras), splats, batch.cameras)
        raster = light.seen_in(batch.captures, raster) if light else raster
    return (raster.color + (1 - raster.alpha[..., None])).clamp(0, 1)
