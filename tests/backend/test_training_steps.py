"""A training step: its learning rate, the noise on the conditions, and the loss of the unenhanced image."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from small_capture import SIZE, make_small_capture

from backend.progress import SILENT
from backend.splatting.types import Raster
from backend.training import losses, trainer
from backend.training.frames import TrainingFrames
from backend.training.losses import COARSE_WEIGHT, anchor_limits, image_loss, total_loss
from backend.training.optimisation import Optimisation, ParameterGroup
from backend.training.presets import Preset
from backend.training.trainer import CONDITION_NOISE, train
from backend.training.warmup import VertexBoundGaussians


@pytest.fixture(scope="module", autouse=True)
def user_folder(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def small(user_folder, tmp_path_factory):
    return make_small_capture(tmp_path_factory.mktemp("steps"), frames=10)


@pytest.fixture(scope="module")
def frames(small):
    capture, track, model = small
    return TrainingFrames(capture, track, model, SIZE)


def make_fitting(frames, model, **options) -> Optimisation:
    free = VertexBoundGaussians(torch.full((len(model.template),), 0.02), 0)
    options = {"stage": "", "steps": 8, "batch": 2, "size": SIZE, "final_rate": 0.1} | options
    groups = [ParameterGroup([free.geometry], 1e-2), ParameterGroup([free.appearance], 3e-2)]
    return Optimisation(free, groups, frames, anchor_limits(model, free.base_scale), **options)


def rates_of(optimisation) -> list[list[float]]:
    """(steps, groups): the learning rates of every step."""
    rates = []
    optimisation.run(SILENT, lambda _: rates.append([group["lr"] for group in optimisation.optimizer.param_groups]))
    return rates


def test_every_groups_learning_rate_decays_to_a_tenth_over_the_steps(frames, small):
    rates = rates_of(make_fitting(frames, small[2]))
    assert rates[0] == pytest.approx([1e-2, 3e-2])
    # Half-way along a cosine the rate is the mean of both ends.
    assert rates[4] == pytest.approx([0.55e-2, 1.65e-2])
    assert all(after < before for before, after in itertools.pairwise(rate[0] for rate in rates))
    assert 1e-3 < rates[-1][0] < 1.5e-3


def test_with_a_time_budget_the_learning_rate_decays_with_the_clock(frames, small):
    seconds = itertools.chain((0.0,), itertools.count(15.0, 15.0))
    rates = rates_of(make_fitting(frames, small[2], steps=1000, minutes=1.0, clock=lambda: next(seconds)))
    assert [rate[0] for rate in rates] == pytest.approx([1e-2, 0.868e-2, 0.55e-2, 0.232e-2], abs=1e-5)


def test_conditions_get_noise_of_the_given_size(frames, small):
    capture, track, model = small
    optimisation = make_fitting(frames, model, batch=4, condition_noise=0.03)
    tracked = torch.cat([frames.batch_poses(torch.tensor([row])).conditions for row in range(len(frames))])
    forward, noise = optimisation.model.forward, []

    def watched(pose):
        # The nearest conditions are those of the same frame: the noise is smaller than the differences between frames.
        nearest = torch.cdist(pose.conditions, tracked).argmin(1)
        noise.append(pose.conditions - tracked[nearest])
        return forward(pose)

    optimisation.model.forward = watched
    optimisation.run(SILENT)
    drawn = torch.cat(noise)
    assert drawn.std().item() == pytest.approx(0.03, rel=0.15) and abs(drawn.mean().item()) < 0.01
    assert not torch.equal(noise[0], noise[-1]), "every step draws its own"


def test_avatars_are_trained_with_noisy_conditions_and_a_decaying_learning_rate(small, tmp_path, monkeypatch):
    made = []

    class Watched(Optimisation):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)

    monkeypatch.setattr(trainer, "Optimisation", Watched)
    train(small[0].folder, tmp_path / "ball.effigy", plan=Preset(size=SIZE, warmup_steps=2, steps=20, refinement=False))
    warmup, main = made
    assert warmup.condition_noise == 0 and main.condition_noise == CONDITION_NOISE > 0
    assert main.optimizer.param_groups[0]["lr"] < 0.1 * main.learning_rates[0]


def test_with_an_enhancer_the_unenhanced_image_keeps_a_tenth_of_the_loss(monkeypatch):
    generator = torch.Generator().manual_seed(0)

    def raster() -> Raster:
        return Raster(
            torch.rand(1, 16, 16, 3, generator=generator), torch.full((1, 16, 16), 0.5), torch.ones(1, 16, 16)
        )

    monkeypatch.setattr(losses, "anchor_limit_loss", lambda anchors, anchor_limit: 0.0)
    batch = SimpleNamespace(color=torch.rand(1, 16, 16, 3, generator=generator), matte=torch.ones(1, 16, 16))
    background, enhanced, plain, other = torch.rand(1, 3, generator=generator), raster(), raster(), raster()
    # All three have the same alpha, so only the term of the unenhanced colours differs.
    cost = [total_loss(each, batch, None, None, background, enhanced=enhanced) for each in (plain, other)]
    alone = [image_loss(each, batch, background, None, 0) for each in (plain, other)]
    assert abs(alone[0] - alone[1]) > 1e-3
    torch.testing.assert_close(cost[0] - cost[1], COARSE_WEIGHT * (alone[0] - alone[1]), rtol=1e-3, atol=1e-7)
