"""Training learns, is deterministic and resumes after being killed; the avatar file is safe to load and small."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_capture import make_small_capture

from backend.avatar.avatar import build_networks, load_avatar, save_avatar
from backend.avatar.settings import AvatarSettings
from backend.errors import Cancelled, EffigyError
from backend.formats import safetensors_file
from backend.formats.track import save_track
from backend.progress import Progress
from backend.splatting.rasterize import rasterize
from backend.training import fitted_poses, presets, stages
from backend.training.baselines import train_vertex_bound
from backend.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from backend.training.frames import TrackPoses, TrainingFrames
from backend.training.losses import matte_loss
from backend.training.pose_refinement import REFINED_TRACK
from backend.training.presets import Preset
from backend.training.trainer import train


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    before = os.environ.get("EFFIGY_USER")
    os.environ["EFFIGY_USER"] = str(folder / "user")
    yield make_small_capture(folder)
    os.environ.pop("EFFIGY_USER") if before is None else os.environ.__setitem__("EFFIGY_USER", before)


@pytest.fixture(autouse=True)
def short_preset(monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "draft", Preset(size=64, warmup_steps=60, steps=80))


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "ball.effigy"
    patch = pytest.MonkeyPatch()
    patch.setitem(presets.PRESETS, "draft", Preset(size=64, warmup_steps=60, steps=80))
    avatar = train(small[0].folder, path)
    patch.undo()
    return path, avatar


def held_out_psnr(avatar, small) -> float:
    capture, track, model = small
    poses = TrackPoses(track, model)
    values = []
    for index in range(capture.training_count, capture.frame_count):
        raster = rasterize(avatar.splats(track, [index]), poses.cameras(np.array([index]), 64))
        color = cv2.cvtColor(cv2.imread(str(capture.frame_path(index))), cv2.COLOR_BGR2RGB) / 255
        alpha = cv2.imread(str(capture.head_matte_path(index)), 0)[..., None] / 255
        prediction = (raster.color[0] + 1 - raster.alpha[0, ..., None]).numpy()
        values.append(np.mean((prediction - (color * alpha + 1 - alpha)) ** 2))
    return float(-10 * np.log10(np.mean(values)))


def test_avatar_renders_held_out_frames_better_than_its_initialisation(trained, small):
    psnr = held_out_psnr(trained[1], small)
    assert psnr > 24, psnr


def test_saved_avatar_loads_unchanged_and_contains_no_pickle(trained, small):
    path, avatar = trained
    again = load_avatar(path)
    assert again.metrics["preset"] == "draft" and again.metrics["steps"] == 80
    assert abs(held_out_psnr(again, small) - held_out_psnr(avatar, small)) < 0.05
    assert again.megabytes == pytest.approx(path.stat().st_size / 1e6)
    # A safetensors file: 8 bytes of length, then JSON that names every tensor.
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} <= {"F16", "F32"}


def test_same_command_gives_the_same_avatar(trained, small, tmp_path):
    again = train(small[0].folder, tmp_path / "again.effigy")
    for (name, first), second in zip(trained[1].networks.named_parameters(), again.networks.parameters(), strict=True):
        torch.testing.assert_close(first, second, atol=2e-3, rtol=1e-2, msg=name)


class StopAfter(Progress):
    def __init__(self, stage: str, done: int) -> None:
        self.where, self.stop = (stage, done), False

    def update(self, stage: str, done: int, total: int, **metrics: float) -> None:
        self.stop |= stage == self.where[0] and done >= self.where[1]

    def cancelled(self) -> bool:
        return self.stop


@pytest.mark.parametrize("where", [("Warm-up", 30), ("Training", 40)])
def test_cancelled_training_resumes_to_the_result_of_an_uninterrupted_one(where, trained, small, tmp_path):
    path = tmp_path / "stopped.effigy"
    with pytest.raises(Cancelled):
        train(small[0].folder, path, progress=StopAfter(*where))
    assert not path.exists() and checkpoint_path(path).exists()
    avatar = train(small[0].folder, path, resume=True)
    assert abs(held_out_psnr(avatar, small) - held_out_psnr(trained[1], small)) < 0.3
    assert not checkpoint_path(path).exists()


def test_a_training_of_an_earlier_version_resumes_with_its_enhancer(small, tmp_path, monkeypatch):
    """Blendshapes of standard and full had one, with pose refinement and the perceptual loss."""
    plan, path = Preset(size=64, warmup_steps=2, steps=6, paper_parts=True), tmp_path / "earlier.effigy"
    monkeypatch.setitem(presets.PRESETS, "standard", plan)
    with pytest.raises(Cancelled):
        earlier = replace(plan, **presets.PAPER_PARTS)
        train(small[0].folder, path, preset="standard", plan=earlier, progress=StopAfter("Training", 3))
    avatar = train(small[0].folder, path, preset="standard", resume=True)
    assert avatar.settings.enhancer_width == 16 and avatar.settings.blendshapes and avatar.metrics["steps"] == 6


@pytest.mark.parametrize("earlier", [False, True])
def test_mouths_are_held_but_in_trainings_that_an_earlier_version_has_begun(small, tmp_path, monkeypatch, earlier):
    """Its checkpoints know nothing of it, and what they have learnt of the mouth depends on the face."""
    held, path = [], tmp_path / "mouth.effigy"
    monkeypatch.setattr(stages, "hold_mouth", lambda networks, model: held.append(model.name))
    monkeypatch.setitem(presets.PRESETS, "draft", Preset(size=64, warmup_steps=2, steps=6))
    with pytest.raises(Cancelled):
        train(small[0].folder, path, progress=StopAfter("Training", 3))
    assert held == [small[2].name]
    if earlier:
        saved = load_checkpoint(checkpoint_path(path))
        del saved.job["holds_mouth"]
        save_checkpoint(checkpoint_path(path), saved)
    assert train(small[0].folder, path, resume=True).metrics["steps"] == 6
    assert len(held) == (1 if earlier else 2)


_KILLED = """
import sys, pathlib
sys.path.insert(0, sys.argv[3])
from backend.training import checkpoint, presets, session, trainer
presets.PRESETS["draft"] = presets.Preset(size=64, warmup_steps=60, steps=100000)
session.EVERY_SECONDS = 0.2
trainer.train(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
"""


def test_killed_training_leaves_a_checkpoint_that_resumes(small, tmp_path, monkeypatch):
    path = tmp_path / "killed.effigy"
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(small[0].folder), str(path), str(root)])
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            time.sleep(0.1)
            if (
                checkpoint_path(path).exists()
                and b'\\"stage\\": \\"training\\"' in checkpoint_path(path).read_bytes()[:4000]
            ):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        monkeypatch.setitem(presets.PRESETS, "draft", Preset(size=64, warmup_steps=60, steps=200))
        avatar = train(small[0].folder, path, resume=True)
        assert held_out_psnr(avatar, small) > 24
    finally:
        process.kill()


def test_checkpoint_of_another_training_is_refused(small, tmp_path):
    path = tmp_path / "other.effigy"
    with pytest.raises(Cancelled):
        train(small[0].folder, path, progress=StopAfter("Warm-up", 5))
    with pytest.raises(EffigyError, match="another training.*minutes"):
        train(small[0].folder, path, minutes=1, resume=True)
    with pytest.raises(EffigyError, match="nothing to resume"):
        train(small[0].folder, tmp_path / "never.effigy", resume=True)


def test_training_in_refined_poses_needs_them_and_takes_them(small, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "draft", Preset(size=64, warmup_steps=2, steps=2, refinement=False))
    folder = tmp_path / "ball.capture"
    shutil.copytree(small[0].folder, folder)
    (folder / REFINED_TRACK).unlink(missing_ok=True)
    with pytest.raises(EffigyError, match="has no refined track: train an avatar on it and run `refine` with it first"):
        train(folder, tmp_path / "ball.effigy", refined=True)
    track = small[1]
    save_track(track.posed(expression=track.expression + 0.5), folder / REFINED_TRACK)
    tracked = train(folder, tmp_path / "tracked.effigy").networks.performed
    with pytest.raises(Cancelled):
        train(folder, tmp_path / "ball.effigy", refined=True, progress=StopAfter("Training", 1))
    with pytest.raises(EffigyError, match="another training.*track"):
        train(folder, tmp_path / "ball.effigy", resume=True)
    refined = train(folder, tmp_path / "ball.effigy", refined=True, resume=True).networks.performed
    # Both are trained in, so that the range of the faces is that of both.
    torch.testing.assert_close(refined[0, :4], tracked[0, :4])
    torch.testing.assert_close(refined[1, :4], tracked[1, :4] + 0.5)
    save_track(track.posed(identity=track.identity + 1, expression=track.expression + 0.5), folder / REFINED_TRACK)
    alone = train(folder, tmp_path / "ball.effigy", refined=True).networks.performed
    torch.testing.assert_close(alone[:, :4], tracked[:, :4] + 0.5)
    shorter = replace(
        track,
        **{
            name: getattr(track, name)[:-1]
            for name in ("expression", "rotations", "head_to_camera", "residual", "flags")
        },
    )
    save_track(shorter, folder / REFINED_TRACK)
    with pytest.raises(EffigyError, match="has 29 frames, the capture has 30: refine its track again"):
        train(folder, tmp_path / "ball.effigy", refined=True)


def test_what_was_refined_is_not_refined_again(small, tmp_path):
    folder = tmp_path / "ball.capture"
    shutil.copytree(small[0].folder, folder)
    save_track(small[1].posed(expression=small[1].expression + 0.5), folder / REFINED_TRACK)
    before = (folder / REFINED_TRACK).read_bytes()
    plan = Preset(size=64, warmup_steps=1, steps=1, refinement=True)
    train(folder, tmp_path / "ball.effigy", plan=plan, refined=True)
    assert (folder / REFINED_TRACK).read_bytes() == before


def test_poses_are_fitted_once_and_kept_over_an_interruption(small, tmp_path, monkeypatch):
    monkeypatch.setattr(fitted_poses, "STEPS_PER_FRAME", 0.05)
    plan = Preset(size=64, warmup_steps=2, steps=8, refinement=False)

    class Seen(StopAfter):
        fits = 0

        def update(self, stage, done, total, **metrics):
            self.fits += stage == "Fitting poses again" and done == total
            super().update(stage, done, total, **metrics)

    whole = Seen("Training", 99)
    at_once = train(small[0].folder, tmp_path / "whole.effigy", plan=plan, fit_poses=True, progress=whole)
    assert whole.fits == 1
    # The faces of both poses, of which the fitted ones differ a little.
    plain = train(small[0].folder, tmp_path / "plain.effigy", plan=plan)
    assert (at_once.networks.performed[1] >= plain.networks.performed[1]).all()
    assert not torch.equal(at_once.networks.performed, plain.networks.performed)
    with pytest.raises(Cancelled):
        train(
            small[0].folder, tmp_path / "parts.effigy", plan=plan, fit_poses=True, progress=StopAfter("Training on", 2)
        )
    with pytest.raises(EffigyError, match="another training.*fits_poses"):
        train(small[0].folder, tmp_path / "parts.effigy", plan=plan, resume=True)
    again = Seen("Training", 99)
    parts = train(small[0].folder, tmp_path / "parts.effigy", plan=plan, fit_poses=True, resume=True, progress=again)
    assert again.fits == 0
    for name, value in at_once.networks.state_dict().items():
        assert torch.equal(value, parts.networks.state_dict()[name]), name


def test_a_short_training_fits_no_poses(small, tmp_path):
    plan = Preset(size=64, warmup_steps=2, steps=8, refinement=False)
    plain = train(small[0].folder, tmp_path / "a.effigy", plan=plan)
    short = train(small[0].folder, tmp_path / "b.effigy", plan=plan, fit_poses=True)
    for name, value in plain.networks.state_dict().items():
        assert torch.equal(value, short.networks.state_dict()[name]), name


def test_newer_avatar_and_damaged_avatar_are_refused_with_a_sentence(trained, tmp_path):
    newer = tmp_path / "newer.effigy"
    save_file({"identity": torch.zeros(3)}, newer, metadata={"effigy": json.dumps({"schema": 99})})
    with pytest.raises(EffigyError, match="newer Effigy"):
        load_avatar(newer)
    damaged = tmp_path / "damaged.effigy"
    damaged.write_bytes(trained[0].read_bytes()[:2000])
    with pytest.raises(EffigyError, match="damaged"):
        load_avatar(damaged)
    with pytest.raises(EffigyError, match="no avatar"):
        load_avatar(tmp_path / "none.effigy")


def test_avatar_whose_head_model_is_missing_names_it(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path))
    with pytest.raises(EffigyError, match="needs the head model “ball”"):
        load_avatar(trained[0])


def test_saving_onto_a_full_disk_keeps_the_old_file(trained, tmp_path, monkeypatch):
    path = tmp_path / "kept.effigy"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors_file, "save_file", full)
    with pytest.raises(EffigyError, match="full"):
        save_avatar(trained[1], path)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["kept.effigy"]


def test_matte_loss_reaches_opacity(small):
    capture, track, model = small
    frames = TrainingFrames(capture, track, model, 64)
    free = train_vertex_bound(capture, track, model, size=64, minutes=0.02)
    batch = frames.batch(torch.tensor([0, 1]), 64)
    free.zero_grad()
    splats, _ = free(batch.pose)
    matte_loss(rasterize(splats, batch.cameras), batch).backward()
    assert free.appearance.grad[:, 0].abs().sum() > 0


def test_matte_loss_alone_makes_the_head_as_opaque_as_its_matte(small):
    """The paper's released code loses this gradient. Here the matte loss alone moves opacity in the right direction."""
    capture, track, model = small
    frames = TrainingFrames(capture, track, model, 64)
    networks = build_networks(AvatarSettings(size=64), model, track.identity)
    opacities = (networks.appearance.bias_output, networks.neural.opacity.bias)
    optimizer = torch.optim.Adam(opacities, 0.1)
    batch, losses = frames.batch(torch.tensor([0, 5]), 64), []
    for _ in range(12):
        splats, _ = networks(batch.pose)
        raster = rasterize(splats, batch.cameras)
        loss = matte_loss(raster, batch)
        optimizer.zero_grad()
        loss.backward()
        for parameter in opacities:
            assert parameter.grad[..., 0].abs().sum() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses


def test_training_never_reads_a_held_out_frame(small):
    capture, track, model = small
    frames = TrainingFrames(capture, track, model, 64)
    assert frames.indices.max() < capture.training_count
