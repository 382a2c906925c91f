"""Lids are kept out of the irises in training, and the white of the eyes is found in the footage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from resting_head import EYES, LIDS, SIZE, Frames, camera_before, splats_at

from backend.head.eye_size import eye_whites
from backend.head.formats import load_head
from backend.splatting.mesh_batch import rasterize_meshes
from backend.splatting.types import Cameras
from backend.training.visible_eyes import VisibleEyes, white_of_eyes


@pytest.fixture(scope="module")
def model():
    return load_head()


@pytest.fixture(scope="module")
def camera(model) -> Cameras:
    return camera_before(model)


def test_lids_that_reach_over_the_eyes_cost_and_eyeballs_do_not(model, camera):
    eyes, posed = VisibleEyes(model, 1, Frames(model, camera)), torch.as_tensor(model.template).float()[None]
    lids = splats_at(model, LIDS)
    cost = eyes.covered(lids, posed, camera)
    assert cost > 1e-4
    (gradient,) = torch.autograd.grad(cost, lids.means)
    assert gradient.abs().sum(-1)[0, torch.as_tensor(model.regions["eyes"])].max() == 0 < gradient.abs().max()
    assert eyes.covered(splats_at(model, EYES), posed, camera) == 0


def test_spawned_gaussians_belong_to_their_vertex(model, camera):
    eyes, posed = VisibleEyes(model, 1, Frames(model, camera)), torch.as_tensor(model.template).float()[None]
    count = len(model.template)
    for part in (LIDS, EYES):
        splats = splats_at(model, part)
        spawned = replace(splats, opacities=splats.opacities.roll(count, 1))
        assert (eyes.covered(spawned, posed, camera) > 1e-4) == (part == LIDS)


def test_hair_may_hang_before_the_eyes(model, camera):
    eyes, posed = VisibleEyes(model, 1, Frames(model, camera)), torch.as_tensor(model.template).float()[None]
    crown = int(model.template[:, 1].argmax())
    splats = splats_at(model, EYES)
    means, opacities = splats.means.detach().clone(), splats.opacities.clone()
    means[0, crown] = torch.as_tensor(model.template[model.regions["eyes"]]).float().mean(0) + torch.tensor([0, 0, 0.1])
    opacities[0, crown] = 1.0
    strand = replace(splats, means=means, opacities=opacities, scales=torch.full_like(splats.scales, 0.02))
    assert eyes.covered(strand, posed, camera) == 0


def test_the_share_does_not_depend_on_the_cut_around_the_eyes(model, camera):
    """The pixels are those of the whole image."""
    eyes, posed = VisibleEyes(model, 1, Frames(model, camera)), torch.as_tensor(model.template).float()[None]
    view = camera.world_to_camera
    vertices = posed @ view[:, :3, :3].transpose(1, 2) + view[:, None, :3, 3]
    around = eyes._around_eyes(vertices, camera)
    assert around.height < SIZE / 2
    assert eyes.irises(vertices, around).sum() == eyes.irises(vertices, camera).sum() > 50


def test_eyes_that_the_camera_does_not_see_cost_nothing(model, camera):
    eyes, posed = VisibleEyes(model, 1, Frames(model, camera)), torch.as_tensor(model.template).float()[None]
    behind = camera.world_to_camera.clone()
    behind[:, :3] = torch.diag(torch.tensor([-1.0, 1, -1])) @ behind[:, :3]
    behind[:, 2, 3] = 0.5
    lids = splats_at(model, LIDS)
    assert eyes.covered(lids, posed, replace(camera, world_to_camera=behind)) == 0


@pytest.mark.parametrize("seen", [True, False])
def test_the_white_of_the_eyes_is_the_whitest_that_shows_between_the_lids(model, camera, seen):
    posed, faces = torch.as_tensor(model.template).float()[None], torch.as_tensor(model.faces.astype(np.int64))
    raster = rasterize_meshes(camera.seen(posed), faces, camera.intrinsics, SIZE, SIZE)
    whites = torch.from_numpy(np.isin(model.faces, model.regions["eyes"]).all(1))
    shown = raster.showing(whites & torch.from_numpy(np.isin(model.faces, eye_whites(model)).any(1)))
    assert shown.sum() > 40
    color = torch.tensor((0.8, 0.6, 0.5)).repeat(1, SIZE, SIZE, 1)
    # A third of what the mesh shows as white is white in the footage.
    places = shown.nonzero()[::3].T
    color[places[0], places[1], places[2]] = torch.tensor((0.75, 0.74, 0.72))
    white = white_of_eyes(model, Frames(model, camera, color, float(seen)))
    assert white is None if not seen else white.tolist() == pytest.approx((0.75, 0.74, 0.72))
