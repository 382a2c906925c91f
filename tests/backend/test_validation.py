"""Some runs of training frames are kept from training, and the weights that do best on them are what it ends with."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from shoulders import make_shoulders
from small_capture import SIZE, make_small_capture

from backend.errors import Cancelled
from backend.formats.track import save_track
from backend.progress import Progress
from backend.tracking.after.torso import with_torso
from backend.training import session, validation
from backend.training.frames import TrainingFrames
from backend.training.losses import anchor_limits
from backend.training.optimisation import SEED, Optimisation, ParameterGroup
from backend.training.presets import Preset
from backend.training.step_draws import rows_of_step
from backend.training.trainer import train
from backend.training.validation import Validation, split_rows
from backend.training.warmup import VertexBoundGaussians


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    yield make_small_capture(tmp_path_factory.mktemp("validated"), frames=90)
    patch.undo()


def test_two_runs_are_kept_and_no_row_is_in_both_parts():
    rows, kept = split_rows(400, 0.05)
    assert len(rows) + len(kept) == 400 and not set(rows.tolist()) & set(kept.tolist())
    assert len(kept) == 20
    assert (np.diff(kept.numpy()) > 1).sum() == 1


@pytest.mark.parametrize(("count", "share"), [(400, 0.0), (30, 0.1)], ids=["not asked for", "a short clip"])
def test_nothing_is_kept_where_it_is_not_asked_for_or_cannot_be_spared(count, share):
    rows, kept = split_rows(count, share)
    assert len(rows) == count and not len(kept)


def test_training_never_draws_a_row_that_is_kept(small):
    capture, track, model = small
    frames = TrainingFrames(capture, track, model, SIZE)
    rows, kept = split_rows(len(frames), 0.2)
    free = VertexBoundGaussians(torch.full((len(model.template),), 0.02), 0)
    optimisation = Optimisation(
        free,
        [ParameterGroup([free.geometry], 1e-2)],
        frames,
        anchor_limits(model, free.base_scale),
        stage="",
        steps=9,
        batch=4,
        size=SIZE,
        final_rate=1.0,
        rows=rows,
    )
    drawn = set()
    for step in range(60):
        drawn |= set(rows_of_step(optimisation.rows, optimisation.batch, SEED, step).tolist())
    assert drawn == set(rows.tolist())


def test_the_weights_that_did_best_are_left_in_the_model(monkeypatch):
    weights = torch.nn.Parameter(torch.zeros(1))

    class Stub(SimpleNamespace):
        @contextmanager
        def averaged(self):
            yield

        def use_average(self):
            weights.data.copy_(self.average["w"])

    optimisation = Stub(average={"w": torch.zeros(1)})
    # What is scored is the distance of the weights from 2.
    monkeypatch.setattr(Validation, "_error", staticmethod(lambda f, row: float((f.average["w"] - 2).square()) + 0.1))
    looking = Validation(torch.arange(5))
    for value in (0.0, 1.5, 5.0):
        optimisation.average["w"].fill_(value)
        looking.score(optimisation)
    looking.restore_best(optimisation)
    assert weights.item() == 1.5


def test_without_frames_to_tell_by_the_last_average_is_taken():
    used = []
    Validation(torch.arange(0)).restore_best(SimpleNamespace(use_average=lambda: used.append(True)))
    assert used == [True]


def test_an_avatar_says_how_it_did_on_them(small, tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "EVERY_STEPS", 2)
    capture = small[0]
    plan = Preset(size=SIZE, warmup_steps=3, steps=4, batch=2, refinement=False, validation=0.2)
    avatar = train(capture.folder, tmp_path / "a.effigy", plan=plan)
    assert 5 < avatar.metrics["validation_psnr"] < 60
    assert avatar.metrics["training_frames"] == 72 - 14


@pytest.mark.parametrize("where", [("Training", 6), ("Bust", 1)])
def test_the_best_weights_are_kept_over_an_interruption(where, tmp_path, monkeypatch):
    """Those after two of eight steps are the best here."""
    monkeypatch.setattr(session, "EVERY_STEPS", 2)
    monkeypatch.setattr(Validation, "_error", staticmethod(lambda optimisation, row: 0.001 * optimisation.step))
    monkeypatch.setattr("backend.training.validation.MIN_TRAINING_FRAMES", 4)
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, track, model = make_shoulders(tmp_path)
    save_track(with_torso(capture, track, model), capture.folder / "track.npz")
    plan = Preset(size=SIZE, warmup_steps=1, steps=8, batch=2, refinement=False, fewest_frames=4, validation=0.5)
    plan = replace(plan, bust_steps=2)
    whole = train(capture.folder, tmp_path / "whole.effigy", plan=plan, device="cpu")

    class Stopped(Progress):
        stop = False

        def update(self, stage, done, total, **metrics):
            self.stop |= (stage, done) == where

        def cancelled(self):
            return self.stop

    with pytest.raises(Cancelled):
        train(capture.folder, tmp_path / "parts.effigy", plan=plan, device="cpu", progress=Stopped())
    parts = train(capture.folder, tmp_path / "parts.effigy", plan=plan, device="cpu", resume=True)
    assert parts.metrics["validation_psnr"] == whole.metrics["validation_psnr"] == pytest.approx(26.99)
    for name, value in whole.networks.state_dict().items():
        assert torch.equal(value, parts.networks.state_dict()[name]), name
    assert parts.metrics["training_psnr"] == whole.metrics["training_psnr"] > 0
    assert torch.equal(whole.bust.means, parts.bust.means)
