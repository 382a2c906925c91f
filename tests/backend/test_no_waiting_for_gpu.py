"""A training step never makes the CPU wait for a GPU, which can be tested without one.

On a GPU, reading a value (`item`, `if tensor:`, `nonzero`, a boolean index) and copying Python's numbers or NumPy's
arrays to the device wait until all queued work is done. Here a step runs on the CPU, and all such calls of Effigy's
code are recorded. Exempt are `transfers`, where data cross over without waiting, the rasterisers, which are others on
a GPU, and Adam, whose counters of steps lie on the CPU.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from resting_head import LIDS, Frames, camera_before, splats_at
from small_capture import SIZE, make_small_capture
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import backend
from backend.avatar.avatar import build_networks
from backend.avatar.settings import AvatarSettings
from backend.head.formats import load_head
from backend.progress import SILENT
from backend.training import losses
from backend.training.frames import TrainingFrames
from backend.training.optimisation import Optimisation, ParameterGroup
from backend.training.parameter_groups import parameter_groups
from backend.training.pose_refinement import PoseRefiner
from backend.training.ssim import ssim_reference
from backend.training.unobserved_regions import UnobservedPrior
from backend.training.visible_eyes import VisibleEyes

BACKEND = Path(backend.__file__).parent
OPTIMIZERS = Path(torch.optim.__file__).parent
EXEMPT = ("splatting/cpu", "splatting/mesh", "splatting/rasterize.py", "splatting/threads.py", "training/transfers.py")
HOST = ("training/step_draws.py",)
"""Computes on the CPU alone, and hands its results to `transfers`."""

READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.equal.default,
    torch.ops.aten._unique2.default,
}
COPIES = {torch.tensor, torch.from_numpy, torch.Tensor.new_tensor, torch.Tensor.numpy, torch.Tensor.cpu}
COPIES |= {torch.Tensor.tolist, torch.Tensor.__array__}


def caller() -> str | None:
    """File and line of the innermost call from Effigy's code, or None if an exempt file called it."""
    frame = sys._getframe(2)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if file.parent == OPTIMIZERS:
            return None
        if file.is_relative_to(BACKEND):
            name = file.relative_to(BACKEND).as_posix()
            return None if name.startswith(EXEMPT + HOST) else f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


class Recorded(TorchDispatchMode):
    """Operations that read values from the device."""

    def __init__(self, waits: set[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        boolean = operation in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if (operation in READS or boolean) and (place := caller()):
            self.waits.add(f"{place} {operation}")
        return operation(*args, **(kwargs or {}))


class RecordedCalls(TorchFunctionMode):
    """Functions that copy between Python or NumPy and the device."""

    def __init__(self, waits: set[str]) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        copies = function in COPIES or (function is torch.as_tensor and not isinstance(args[0], torch.Tensor))
        if copies and (place := caller()):
            self.waits.add(f"{place} {function.__name__}")
        return function(*args, **(kwargs or {}))


def waits_of(work) -> set[str]:
    waits: set[str] = set()
    with Recorded(waits), RecordedCalls(waits):
        work()
    return waits


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A training with all parts: refinement, enhancer, perceptual loss, neural Gaussians, unobserved regions."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    capture, track, model = make_small_capture(tmp_path_factory.mktemp("waiting"), frames=10)
    frames = TrainingFrames(capture, track, model, SIZE)
    networks = build_networks(AvatarSettings(size=SIZE, enhancer_width=8), model, track.identity)
    refiner = PoseRefiner(networks, frames)
    prior = UnobservedPrior(torch.rand(len(model.template)), networks.anchors(frames.batch_poses(torch.tensor([0]))))
    yield Optimisation(
        networks,
        [*parameter_groups(networks), ParameterGroup(refiner.refinement.parameters(), 1e-3)],
        frames,
        # The ball has no mouth.
        replace(
            losses.anchor_limits(model, networks.base_scale),
            rings=torch.tensor([[0, 1], [1, 2]]),
            ring_edges=torch.rand(2, 3),
        ),
        stage="",
        steps=99,
        batch=2,
        size=SIZE,
        final_rate=0.1,
        condition_noise=0.01,
        perceptual_crop=32,
        pose_refiner=refiner,
        enhancer=networks.enhancer,
        unobserved_prior=UnobservedPrior(
            prior.weight,
            type(prior.extrapolated)(**{name: value.detach() for name, value in vars(prior.extrapolated).items()}),
        ),
    )
    patch.undo()


@pytest.mark.usefixtures("one_thread")
def test_no_step_of_training_reads_from_the_device_or_copies_to_it_unqueued(training, monkeypatch):
    # As on a GPU, where SSIM is a convolution.
    monkeypatch.setattr(losses, "ssim", ssim_reference)
    training._step()  # What is computed once may wait.
    # The steps with and without a measurement of the PSNR.
    assert training.step % 10 != 0
    assert waits_of(training._step) == set()
    training.step = 10
    assert waits_of(training._step) == set()
    assert np.isfinite(training.recent_psnr)


@pytest.mark.usefixtures("one_thread")
def test_irises_are_drawn_without_waiting_for_where_the_eyes_are():
    """The small head of the test above has no eyes."""
    model = load_head()
    camera = camera_before(model)
    eyes = VisibleEyes(model, 1, Frames(model, camera))
    splats, posed = splats_at(model, LIDS), torch.as_tensor(model.template).float()[None]
    found = []

    def cost_and_gradient() -> None:
        cost = eyes.covered(splats, posed, camera)
        found.extend((cost, torch.autograd.grad(cost, splats.means)[0]))

    assert waits_of(cost_and_gradient) == set()
    assert found[0] > 1e-4 and found[1].abs().max() > 0


def test_reads_and_copies_are_recorded(training):
    """The recorder itself: what the test above would report."""
    from backend.training.metrics import psnr
    from backend.training.ssim import ssim

    assert any("metrics.py" in wait for wait in waits_of(lambda: psnr(torch.tensor(0.1))))
    images = torch.rand(2, 1, 32, 32, 3)
    assert any("ssim.py" in wait and "numpy" in wait for wait in waits_of(lambda: ssim(images[0], images[1])))
    frames = training.frames
    assert any("frames.py" in wait for wait in waits_of(lambda: frames.poses.pose(np.array([0]))))


def test_mixed_precision_changes_the_loss_s_gradients_a_little_only(training):
    gradients = []
    for mixed in (False, True):
        training.mixed_precision = mixed
        draws = training_draws(training)
        found = training._gradients(draws, training.size, training.perceptual_crop, False)[0]
        gradients.append(torch.cat([g.flatten() for g in found if g is not None]))
    training.mixed_precision = False
    full, half = gradients
    assert not torch.equal(full, half)
    assert (full - half).norm() < 0.05 * full.norm()


def training_draws(training: Optimisation):
    from backend.training.step_draws import draw_step

    return draw_step(training.frames, training.rows, 2, seed=1, step=0, condition_noise=0.0, crop_range=SIZE - 32)


def test_training_runs_to_its_end_with_the_psnr_measured_in_its_last_interval(training):
    training.steps = training.step + 3
    training.run(SILENT)
    assert np.isfinite(training.recent_psnr)
