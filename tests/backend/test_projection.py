"""The first Gaussians of a head from the pixels of its frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_capture import SIZE, limits_of_a_ball, make_small_capture, true_gaussians

from backend.avatar.anchors import mean_edge_lengths
from backend.avatar.graph_avatar import OFFSET_UNIT
from backend.errors import EffigyError
from backend.training.frames import TrainingFrames
from backend.training.losses import HAIR_OFFSET_LIMIT
from backend.training.presets import PRESETS
from backend.training.projection import project_into
from backend.training.trainer import train
from backend.training.warmup import VertexBoundGaussians


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    return make_small_capture(tmp_path_factory.mktemp("projection"))


def projected(small, hair: bool) -> tuple[VertexBoundGaussians, TrainingFrames]:
    capture, track, model = small
    frames = TrainingFrames(capture, track, model, SIZE)
    free = VertexBoundGaussians(torch.from_numpy(mean_edge_lengths(model.template, model.faces)), 1)
    limit = torch.full((len(model.template),), HAIR_OFFSET_LIMIT if hair else 0.003)
    project_into(free, frames, model, limits_of_a_ball(limit, limit))
    return free, frames


def test_vertices_that_face_the_camera_take_the_colours_that_frames_show(small) -> None:
    free, frames = projected(small, hair=False)
    model = small[2]
    pose = frames.batch(torch.arange(len(frames)), SIZE).pose
    facing = (-(pose.normals * pose.directions).sum(-1)).mean(0) > 0.8
    found, truth = free.colors(pose)[facing], true_gaussians(model).colors(pose)[facing]
    assert facing.sum() > 10
    assert (found - truth).abs().mean() < 0.08 and (found - truth.flip(0)).abs().mean() > 0.16


def test_a_vertex_that_no_frame_shows_keeps_its_colour(small) -> None:
    free, frames = projected(small, hair=False)
    pose = frames.batch(torch.arange(len(frames)), SIZE).pose
    behind = (-(pose.normals * pose.directions).sum(-1)).amax(0) < -0.3
    assert behind.any() and (free.appearance[behind, 1:] == 0).all()
    assert (free.appearance[behind, 0] == 1.5).all()


def test_hair_ends_where_silhouettes_end_and_skin_stays_on_the_mesh(small) -> None:
    free, _ = projected(small, hair=False)
    assert (free.geometry[:, :3] == 0).all()
    capture, track, model = small
    inflated = 1.0 + 0.015 / np.linalg.norm(model.template, axis=1).mean()
    smaller = replace(model, template=(model.template / inflated).astype(model.template.dtype))
    frames = TrainingFrames(capture, track, smaller, SIZE)
    free = VertexBoundGaussians(torch.from_numpy(mean_edge_lengths(smaller.template, smaller.faces)), 1)
    limit = torch.full((len(model.template),), HAIR_OFFSET_LIMIT)
    project_into(free, frames, smaller, limits_of_a_ball(limit, limit))
    side = np.abs(smaller.template[:, 2]) < 0.3 * np.abs(smaller.template).max()
    offset = OFFSET_UNIT * free.geometry[:, :3].norm(dim=-1).detach().numpy()
    assert 0.007 < np.median(offset[side]) < 0.015, "of 15 mm, drawn to the mesh where no silhouette ends"
    outward = (free.geometry[:, :3].detach().numpy() * smaller.template).sum(1)
    assert (outward[side] >= 0).all()


def test_an_instant_avatar_is_made_of_one_frame_of_which_no_draft_is(tmp_path: Path) -> None:
    capture, _, _ = make_small_capture(tmp_path, frames=1)
    plan = replace(PRESETS["instant"], warmup_steps=3, steps=3)
    avatar = train(capture.folder, tmp_path / "one.effigy", preset="instant", plan=plan, size=SIZE, device="cpu")
    assert avatar.metrics["training_frames"] == 1 and (tmp_path / "one.effigy").is_file()
    with pytest.raises(EffigyError, match=r"Only 1 frame of ball.mp4 can be trained on \(8 at least\)"):
        train(capture.folder, tmp_path / "two.effigy", size=SIZE, device="cpu")


def test_a_longer_clip_is_thinned_evenly(small) -> None:
    capture, track, model = small
    assert TrainingFrames(capture, track, model, SIZE, most=3).indices.tolist() == [0, 12, 23]
