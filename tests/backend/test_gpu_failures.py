"""A GPU that fails while it works ends neither a training nor a command, and never empties the viewport.

The imitation of a GPU is PyTorch's device `cpu:0`: the same memory under another name, so that the product's own code
chooses it, fails on it and goes on on `cpu`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_capture import make_small_capture
from worker_sessions import ROOT, untrained_avatar

from backend import devices
from backend.avatar import render
from backend.avatar.settings import AvatarSettings
from backend.devices import DeviceReport
from backend.progress import Progress
from backend.service import device_check, doctor, worker
from backend.service.commands import run
from backend.service.requests import RenderRequest
from backend.splatting.rasterize import rasterize
from backend.training import optimisation, session
from backend.training.optimisation import Optimisation
from backend.training.presets import Preset
from backend.training.trainer import train
from blender_addon.worker.client import WorkerClient

SETTINGS = AvatarSettings(filters=2, latent_size=4, chebyshev_order=3, neural_per_anchor=1, feature_size=2)
PLAN = Preset(size=64, warmup_steps=3, steps=5, batch=2)
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
NOT_BUILT = RuntimeError("Error building extension 'gsplat_cuda': [1/9] nvcc …\nninja: build stopped")


class Said(Progress):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    before = os.environ.get("EFFIGY_USER")
    os.environ["EFFIGY_USER"] = str(folder / "user")
    yield make_small_capture(folder, frames=16)
    os.environ.pop("EFFIGY_USER") if before is None else os.environ.__setitem__("EFFIGY_USER", before)


@pytest.fixture(scope="module", autouse=True)
def one_thread_each(one_thread) -> None:
    """Batches are then not divided, so that a run has as many calls of the rasteriser as steps."""


@pytest.fixture
def imitation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "CUDA", "cpu:0")
    monkeypatch.setattr(devices, "_report", DeviceReport(True, "Imitation 5000", "The Imitation 5000 is used.", "Warp"))


def failing_at(call: int, error: Exception) -> Callable:
    """`rasterize`, which raises `error` at its call number `call`, the first being 1."""
    calls = []

    def draw(splats, cameras):
        calls.append(splats)
        if len(calls) == call:
            raise error
        return rasterize(splats, cameras)

    draw.calls = calls
    return draw


def trained(small, path, **options):
    return train(small[0].folder, path, size=64, plan=PLAN, settings=SETTINGS, **options)


@pytest.fixture(scope="module")
def uninterrupted(small, tmp_path_factory):
    return trained(small, tmp_path_factory.mktemp("whole") / "ball.effigy", device="cpu")


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (1, NOT_BUILT, "The Imitation 5000 failed (Error building extension 'gsplat_cuda': [1/9] nvcc …)."),
        (3, OUT_OF_MEMORY, "The memory of the Imitation 5000 is not enough for this."),
        (6, OUT_OF_MEMORY, "The memory of the Imitation 5000 is not enough for this."),
    ],
    ids=["kernels not built", "memory in the warm-up", "memory in the training"],
)
def test_a_training_goes_on_on_the_cpu_from_the_step_that_failed(
    small, uninterrupted, imitation, tmp_path, monkeypatch, call, error, sentence
):
    draw = failing_at(call, error)
    monkeypatch.setattr(optimisation, "rasterize", draw)
    progress = Said()
    avatar = trained(small, tmp_path / "ball.effigy", progress=progress)
    assert progress.messages == [f"{sentence} Training continues on the CPU."]
    assert avatar.metrics["device"] == "cpu" and avatar.metrics["steps"] == PLAN.steps
    previews, failures = 1, 1
    expected = PLAN.warmup_steps + PLAN.steps + previews + failures
    assert len(draw.calls) == expected, "no step but the failed one is done twice"
    for (name, value), truth in zip(avatar.networks.named_parameters(), uninterrupted.networks.parameters()):
        torch.testing.assert_close(value, truth, atol=1e-5, rtol=1e-4, msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ball.effigy"], "no checkpoint is left behind"


def test_a_gpu_that_no_longer_gives_its_data_back_costs_the_steps_since_the_last_checkpoint(
    small, uninterrupted, imitation, tmp_path, monkeypatch
):
    lost = RuntimeError("CUDA error: an illegal memory access was encountered")
    draw = failing_at(7, lost)
    monkeypatch.setattr(optimisation, "rasterize", draw)
    monkeypatch.setattr(session, "EVERY_SECONDS", -1.0)
    tensors = Optimisation.tensors

    def tensors_of_a_lost_context(self):
        # Steps 1 to 3 are the warm-up's. The GPU is lost in the training's fourth step.
        if len(draw.calls) == 7:
            raise lost
        return tensors(self)

    monkeypatch.setattr(Optimisation, "tensors", tensors_of_a_lost_context)
    progress = Said()
    avatar = trained(small, tmp_path / "ball.effigy", progress=progress)
    assert len(progress.messages) == 1 and "illegal memory access" in progress.messages[0]
    assert avatar.metrics["steps"] == PLAN.steps
    for value, truth in zip(avatar.networks.parameters(), uninterrupted.networks.parameters()):
        torch.testing.assert_close(value, truth, atol=1e-5, rtol=1e-4)


def test_a_defect_in_a_training_on_the_cpu_is_not_blamed_on_a_gpu(small, imitation, tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation, "rasterize", failing_at(2, RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trained(small, tmp_path / "ball.effigy", device="cpu")
    assert devices.usable_cuda().usable


def test_a_defect_that_the_cpu_has_as_well_is_raised(small, imitation, tmp_path, monkeypatch):
    def defective(splats, cameras):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(optimisation, "rasterize", defective)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trained(small, tmp_path / "ball.effigy")


def test_a_command_starts_again_on_the_cpu(small, imitation, uninterrupted, tmp_path, monkeypatch):
    path = tmp_path / "ball.effigy"
    trained(small, path, device="cpu")
    monkeypatch.setattr(render, "rasterize", failing_at(1, OUT_OF_MEMORY))
    progress = Said()
    request = RenderRequest(avatar=path, track=small[0].folder / "track.npz", out=tmp_path / "frames", size=64)
    assert run(request, progress).frames == 16
    assert progress.messages == ["The memory of the Imitation 5000 is not enough for this. Starting again on the CPU."]
    assert len(list((tmp_path / "frames").glob("*.png"))) == 16


def test_an_installation_on_a_gpu_that_fails_at_the_checks_picture_is_good_on_the_cpu(imitation, monkeypatch):
    monkeypatch.setattr(device_check, "rasterize", failing_at(1, OUT_OF_MEMORY))
    finding = doctor._training("auto")
    assert finding.state == doctor.OK and "on the device cpu. The memory of the Imitation 5000" in finding.explanation


WORKER = """
import torch
from backend import devices
from backend.service import posing, worker
devices.CUDA, devices._report = "cpu:0", devices.DeviceReport(True, "Imitation 5000", "It is used.", "Warp")
draw, calls = posing.rasterize, []
def rasterize(splats, cameras):
    calls.append(1)
    if len(calls) == 2:
        raise {error}
    return draw(splats, cameras)
posing.rasterize = rasterize
worker.serve()
"""
NO_MEMORY = 'torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")'
LOST = 'RuntimeError("CUDA error: an illegal memory access was encountered")'


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (NO_MEMORY, "The memory of the Imitation 5000 is not enough for this. This was done on the CPU."),
        (
            LOST,
            "The Imitation 5000 failed (CUDA error: an illegal memory access was encountered). Avatars are now posed "
            "and drawn on the CPU.",
        ),
    ],
    ids=["memory", "lost"],
)
def test_the_worker_answers_the_request_at_which_the_gpu_failed_and_all_later_ones(tmp_path, error, sentence):
    """A real worker, whose second picture fails: the viewport gets the same picture from the CPU."""
    log: list[str] = []
    environment = os.environ | {"EFFIGY_USER": str(tmp_path / "user")}
    client = WorkerClient([sys.executable, "-c", WORKER.replace("{error}", error)], str(ROOT), environment, log.append)
    try:
        key = client.call("avatar.open", {"path": str(untrained_avatar(tmp_path / "person.effigy"))})["avatar"]
        world_to_camera = np.diag([1.0, -1, -1, 1])
        world_to_camera[2, 3] = 1.0
        camera = {
            "world_to_camera": world_to_camera, "intrinsics": np.array([[150.0, 0, 24], [0, 150, 24], [0, 0, 1]]),
            "orthographic": False, "width": 48, "height": 48,
        }  # fmt: skip
        request = {"subjects": [{"avatar": key, "pose": {}}], "camera": camera}
        images = [client.call("avatar.render", request)["alpha"].copy() for _ in range(3)]
        client.pump()
    finally:
        client.close()
    assert images[0].max() > 0.1
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[0], images[2])
    client.pump()
    said = [line for line in log if "Imitation" in line]
    assert said == [sentence]


class FailingAvatars:
    """Draws what is asked: a number of pixels, of which the imitated GPU's memory holds 100 and the CPU's 1000."""

    def __init__(self) -> None:
        self.devices: list[str] = []

    def render(self, pixels: int) -> str:
        device = str(devices.choose_device("auto"))
        self.devices.append(device)
        if pixels > (100 if device == "cpu:0" else 1000):
            raise OUT_OF_MEMORY
        return device

    def close_avatars(self) -> None: ...


def answering(avatars: object) -> Callable[[object], object]:
    answering_worker = worker._Worker(None)
    answering_worker._posing = avatars
    return lambda parameters: answering_worker._pose(parameters, lambda posing: posing.render)


def test_a_picture_that_is_too_large_for_the_gpu_costs_the_later_ones_nothing(imitation, capsys):
    pose = answering(FailingAvatars())
    assert [pose(pixels) for pixels in (50, 200, 50, 200, 50)] == ["cpu:0", "cpu", "cpu:0", "cpu", "cpu:0"]
    assert capsys.readouterr().err.count("This was done on the CPU.") == 2


def test_a_gpu_whose_memory_is_never_enough_is_no_longer_tried(imitation, capsys):
    avatars = FailingAvatars()
    pose = answering(avatars)
    assert {pose(200) for _ in range(5)} == {"cpu"}
    assert avatars.devices == [*["cpu:0", "cpu"] * worker.MAX_TOO_LARGE, "cpu", "cpu"]
    assert capsys.readouterr().err.count("Avatars are now posed and drawn on the CPU.") == 1


def test_a_picture_that_is_too_large_for_the_cpu_as_well_does_not_cost_the_gpu(imitation):
    pose = answering(FailingAvatars())
    with pytest.raises(RuntimeError, match="out of memory"):
        pose(2000)
    assert pose(50) == "cpu:0"


def test_a_request_that_fails_on_the_cpu_as_well_does_not_cost_the_gpu(imitation, capsys):
    class Defective:
        def render(self, parameters):
            raise RuntimeError("shapes do not match")

        def close_avatars(self):
            pass

    with pytest.raises(RuntimeError, match="shapes do not match"):
        answering(Defective())(None)
    assert devices.usable_cuda().usable and capsys.readouterr().err == ""
