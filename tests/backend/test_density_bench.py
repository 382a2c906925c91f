"""The benchmark of density: what it measures of Gaussians, and that a moved Gaussian takes its place beside another."""

from __future__ import annotations

import json

import pytest
import torch
from small_capture import make_small_capture
from torch import Tensor

from backend.avatar.graph_avatar import GraphAvatar
from backend.splatting.rasterize import rasterize
from backend.training.frames import Batch
from bench.density import SEED, Comparison, Variant, main, table_of
from bench.density_moves import Moves, use_of


@pytest.fixture
def comparison(tmp_path, monkeypatch, one_thread) -> Comparison:
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, _, _ = make_small_capture(tmp_path, frames=15)
    return Comparison(capture.folder, SEED, 4, 64)


def over_white(networks: GraphAvatar, batch: Batch) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        raster = rasterize(networks(batch.pose)[0], batch.cameras)
    return raster.color + 1 - raster.alpha[..., None], raster.alpha


def test_the_error_of_all_gaussians_is_that_of_the_pixels_they_cover(comparison):
    networks, frames = comparison.start_networks(Variant()), comparison.frames
    batch = frames.batch(torch.arange(len(frames)), 64)
    image, alpha = over_white(networks, batch)
    truth = batch.color * batch.matte[..., None] + 1 - batch.matte[..., None]
    expected = ((image - truth).abs().mean(-1) * alpha).sum((1, 2)).mean()
    assert float(use_of(networks, frames, 64).error.sum()) == pytest.approx(float(expected), rel=1e-3)


def test_gaussians_that_no_frame_needs_are_drawn_beside_those_that_they_help(comparison):
    networks, frames = comparison.start_networks(Variant()), comparison.frames
    shapes = networks.blendshapes
    assert shapes is not None
    count, unseen = len(shapes.mean), -1.0
    with torch.no_grad():
        shapes.mean[:, -22] = unseen
    optimisation, prior = comparison.optimisation(networks, Variant())
    batch = frames.batch(torch.arange(6), 64)
    before, _ = over_white(networks, batch)
    unused = use_of(networks, frames, 64).most[count:] == 0
    assert unused[::2].all()
    moves = Moves(networks, optimisation, prior, SEED)
    again, _ = over_white(networks, batch)
    assert (again - before).abs().max() < 1e-5, "a Gaussian that follows its own vertex is drawn as before"
    moves.move(frames, 64, 1.0)
    assert moves.moved[unused].all() and (prior.faded.view(-1)[unused] == 0).all()
    assert (use_of(networks, frames, 64).most[count:][unused] > 0).float().mean() > 0.9
    after, _ = over_white(networks, batch)
    assert 1e-3 < (after - before).abs().mean() < 0.05
    with torch.no_grad():
        splats = networks(batch.pose)[0]
    far = (splats.means[:, count:] - batch.pose.posed[:, moves.vertices]).norm(dim=-1)[:, unused]
    own = (splats.means[:, count:] - batch.pose.posed.repeat_interleave(shapes.k, 1)).norm(dim=-1)[:, unused]
    assert far.median() < 0.02 < own.median()


def test_variants_are_trained_once_and_compared_on_the_same_clip_and_seed(tmp_path, monkeypatch, capsys, one_thread):
    monkeypatch.setenv("EFFIGY_USER", str(tmp_path / "user"))
    capture, _, _ = make_small_capture(tmp_path, frames=15)
    names = ["as it is", "moved", "revived", "weights", "spread"]
    options = [str(capture.folder), "--out", str(tmp_path / "out"), "--steps", "4", "--size", "64", "--only", *names]
    monkeypatch.setattr("sys.argv", ["density", *options])
    main()
    rows = json.loads((tmp_path / "out" / "rows.json").read_text())
    assert [row["variant"] for row in rows] == names and all(row["steps"] == 4 for row in rows)
    assert (tmp_path / "out" / "ball-20251.png").is_file()
    table = capsys.readouterr().out
    main()
    assert json.loads((tmp_path / "out" / "rows.json").read_text()) == rows
    gain = rows[1]["psnr"] - rows[0]["psnr"]
    assert table_of(rows) in table and "| 1 pairs | moved − as it is |" in table
    assert f"{gain:+.2f} ({gain:+.2f} to {gain:+.2f})" in table
