"""The optimisation loop that warm-up and training proper share: batches, schedule, averaged weights, progress.

Everything random is a function of (seed, step), so that a resumed run sees the frames that the undisturbed one would.

On a CPU the frames of a step are shared out to lanes, one thread each with PyTorch inside it on one thread as well: most of
a step's operations are too small to be worth splitting, and whole frames are not.
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
from .losses import Leash, psnr_of, total_loss
from .pose_refinement_in_training import Refining
from .unobserved_regions import Keeping

SEED = 20251
AVERAGE_DECAY = 0.995
"""Weights are averaged over about the last 200 steps: what each step owes to its own four frames cancels."""


MEAN_ROWS = 8
"""Frames besides each frame of a step over which the refinement's mean is kept at zero."""


@dataclass(frozen=True)
class ParameterGroup:
    parameters: Iterable[nn.Parameter]
    rate: float


class Fitting:
    """One stage: a model called as `model(pose) -> (splats, anchors)`, its optimizer, and how far it has come."""

    def __init__(
        self,
        model: nn.Module,
        groups: list[ParameterGroup],
        frames: TrainingFrames,
        leash: Leash,
        *,
        stage: str,
        steps: int,
        batch: int,
        size: int,
        final_rate: float,
        minutes: float | None = None,
        condition_noise: float = 0.0,
        perceptual_crop: int = 0,
        refining: Refining | None = None,
        enhancer: Enhancer | None = None,
        keeping: Keeping | None = None,
        rows: Tensor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`enhancer` is one of the model's own, where it has one. `rows`: those of the frames that are trained on; all,
        unless given. `clock`: seconds, by which `minutes` are counted.
        """
        self.model, self.frames, self.leash, self.refining, self.enhancer = model, frames, leash, refining, enhancer
        self.keeping, self.clock = keeping, clock
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
        """All parameters that this stage trains: the model's, and those of the track's refinement."""
        yield from self.model.named_parameters()
        if self.refining:
            yield from self.refining.refinement.named_parameters(prefix="refinement")

    @property
    def share(self) -> float:
        """How much of the stage is done, in [0, 1]: by steps, or by the clock where the user gave minutes."""
        if self.minutes is not None:
            return min(1.0, self.seconds / (60 * self.minutes))
        return min(1.0, self.step / self.steps)

    def run(self, progress: Progress, after_step: Callable[[Fitting], None] | None = None) -> None:
        """Step until done. `after_step` may checkpoint; cancelling raises `Cancelled` between steps."""
        started = self.clock() - self.seconds
        with self._in_lanes():
            while self.share < 1:
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
        # Cosine from each group's rate down to `final_rate` of it.
        factor = self.final_rate + (1 - self.final_rate) * 0.5 * (1 + math.cos(math.pi * self.share))
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        # Drawn for the whole batch, so that the number of lanes changes nothing.
        noise = self.condition_noise * torch.randn((self.batch, self.frames.condition_size), generator=generator)
        background = torch.rand((self.batch, 3), generator=generator)
        # In the middle half, where the head is.
        corners = 0.25 + 0.5 * torch.rand((self.batch, 2), generator=generator)
        elsewhere = torch.randint(len(self.frames), (self.batch, MEAN_ROWS), generator=generator)
        parts = torch.arange(self.batch).chunk(self._lanes)
        work = [(rows[part], noise[part], background[part], corners[part], elsewhere[part].flatten()) for part in parts]
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
        self, rows: Tensor, noise: Tensor, background: Tensor, corners: Tensor, elsewhere: Tensor
    ) -> tuple[tuple[Tensor | None, ...], float]:
        """Of some frames (B,): the mean loss's gradient by every parameter, and PSNR."""
        batch = self.frames.batch(rows, self.size)
        # Noise on the conditions, of the size of the tracker's own: what is fitted must not hang on their last digit.
        pose, motion, penalty = self.refining.pose(batch, rows, elsewhere) if self.refining else (batch.pose, None, 0.0)
        pose = replace(pose, conditions=pose.conditions + noise.to(pose.conditions))
        splats, anchors = self.model(pose)
        splats = motion.move(splats) if motion else splats
        raster = rasterize(splats, batch.cameras)
        # At the training pictures' own scale: what the enhancer learns is of this size in the head.
        enhanced = self.enhancer(raster, head_depth(splats, batch.cameras)) if self.enhancer else None
        loss = total_loss(
            raster,
            batch,
            anchors,
            self.leash,
            background.to(batch.color),
            corners if self.perceptual_crop else None,
            self.perceptual_crop,
            enhanced,
        )
        if self.keeping:
            loss = loss + self.keeping.loss(anchors, splats.opacities[:, anchors.opacities.shape[1] :])
        return torch.autograd.grad(loss + penalty, self._parameters, allow_unused=True), psnr_of(
            enhanced or raster, batch
        )

    def _rows(self) -> Tensor:
        """The frames of this step: every frame once an epoch, in a shuffled order."""
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
        """Leave the averaged weights in the model."""
        for name, parameter in self._named():
            parameter.copy_(self.average[name])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model with the averaged weights, for as long as that is needed."""
        own = {name: parameter.detach().clone() for name, parameter in self._named()}
        self.use_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._named():
                    parameter.copy_(own[name])

    def tensors(self) -> dict[str, Tensor]:
        """All that a checkpoint needs besides `step` and `seconds`, flat."""
        state = {f"model.{name}": parameter.detach() for name, parameter in self._named()}
        state |= {f"average.{name}": value for name, value in self.average.items()}
        state |= {f"keeping.{name}": value for name, value in self.keeping.tensors().items()} if self.keeping else {}
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._named()}
        for parameter, moments in self.optimizer.state.items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                state[f"adam.{key}.{names[parameter]}"] = torch.as_tensor(moments[key])
        return {name: value.cpu().contiguous().clone() for name, value in state.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], step: int, seconds: float) -> None:
        """Continue from what `tensors` gave."""
        self.step, self.seconds = step, seconds
        if self.keeping:
            self.keeping = self.keeping.restored(
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


def picture_of(model: nn.Module, batch: Batch, enhancer: Enhancer | None = None) -> Tensor:
    """(B, H, W, 3) in [0, 1] over white, without gradients."""
    with torch.no_grad():
        splats = model(batch.pose)[0]
        raster = enhance(enhancer, rasterize(splats, batch.cameras), splats, batch.cameras)
    return (raster.color + (1 - raster.alpha[..., None])).clamp(0, 1)
