"""A face that was never filmed is drawn near those that were, and one that was filmed is not changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.avatar.avatar import Avatar, build_networks
from backend.avatar.filmed import (
    EXPRESSION_MARGIN,
    FAR,
    PULL,
    beyond_limits,
    distance,
    expression_limits,
    filmed_faces,
    nearest_filmed,
    unlimited_faces,
)
from backend.avatar.filmed_regions import FilmedRegions
from backend.avatar.settings import AvatarSettings
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.jaw import lips_over_open_jaw
from backend.head.model import JAW
from backend.head.mouth import mouth_parts
from backend.splatting.spherical_harmonics import C0
from backend.training.filmed_limits import hold_mouth, store_materials, tongue_materials
from backend.training.filmed_regions import LEFT_EYE, LOWER, REST, RIGHT_EYE, region_labels, store_regions
from backend.training.slider_poses import SliderPose, pose_arrays


@pytest.fixture(scope="module")
def faces() -> torch.Tensor:
    """(300, 61): faces that vary much in some numbers, two of which move together, and hardly in the others."""
    random = torch.Generator().manual_seed(0)
    made = 0.01 * torch.randn(300, 61, generator=random)
    made[:, :5] += 0.4 * torch.rand(300, 5, generator=random)
    made[:, 1] = made[:, 0] + 0.02 * torch.randn(300, generator=random)
    return made


def test_filmed_faces_are_not_changed(faces):
    filmed = filmed_faces(faces)
    assert distance(faces, filmed).max() == pytest.approx(1, abs=1e-4) and distance(faces.mean(0)[None], filmed) < 1e-5
    inside = faces[distance(faces, filmed) < 1]
    assert len(inside) > 290 and torch.equal(nearest_filmed(inside, filmed), inside)
    assert torch.equal(nearest_filmed(9 * faces, unlimited_faces(61)), 9 * faces)
    assert not distance(9 * faces, unlimited_faces(61)).any()


def test_the_nearest_filmed_face_is_the_nearest(faces):
    """Of a face just outside, where nothing draws it to the mean, by a search over the ellipsoid's surface."""
    filmed = filmed_faces(faces)
    random = torch.Generator().manual_seed(1)
    asked = faces.mean(0) + filmed[1] * torch.nn.functional.normalize(torch.randn(8, 61, generator=random)) @ filmed[2:]
    asked = faces.mean(0) + 1.2 * (asked - faces.mean(0)) / distance(asked, filmed)[:, None]
    found = nearest_filmed(asked, filmed)
    torch.testing.assert_close(distance(found, filmed), torch.ones(8), atol=1e-4, rtol=0)
    others = filmed[1] * torch.nn.functional.normalize(torch.randn(20000, 61, generator=random))
    others = faces.mean(0) + torch.nn.functional.normalize(others / filmed[1]) * filmed[1] @ filmed[2:]
    assert (found - asked).norm(dim=1).max() < torch.cdist(asked, others).min()
    # The way there is along the surface's normal.
    normal = ((found - filmed[0]) @ filmed[2:].T / filmed[1].square()) @ filmed[2:]
    assert torch.nn.functional.cosine_similarity(asked - found, normal).min() > 0.999


def test_what_was_never_filmed_goes_and_what_was_stays(faces):
    filmed, mean = filmed_faces(faces), faces.mean(0)
    apart, open_ = mean.clone(), mean.clone()
    # Each within its range, but one without the other was never filmed.
    apart[0], apart[1] = faces[:, 0].max(), faces[:, 1].min()
    open_[2] = faces[:, 2].max()
    near = nearest_filmed(torch.stack((apart, open_)), filmed)
    assert (near[0, 0] - near[0, 1]) < 0.6 * (apart[0] - apart[1])
    torch.testing.assert_close(near[1], open_)


def test_however_far_a_face_is_its_input_stays_bounded(faces):
    filmed = filmed_faces(faces)
    one = faces.mean(0) + torch.eye(61)[40]
    last = None
    for strength in (0.1, 0.3, 1.0, 3.0, 10.0, 100.0):
        near = nearest_filmed((faces.mean(0) + strength * (one - faces.mean(0)))[None], filmed)
        away = float(distance(near, filmed))
        far = float(distance((faces.mean(0) + strength * torch.eye(61)[40])[None], filmed))
        assert away <= 1 + 1e-3
        if far > FAR[1]:
            assert away == pytest.approx(1 - PULL, abs=1e-3)
        assert last is None or (near - last).abs().max() < 0.3
        last = near


def test_the_margin_is_taken_between_the_clips_largest_value_and_its_limit(faces):
    limits = expression_limits(faces)
    largest = faces.amax(0)
    asked = torch.stack((largest, largest + EXPRESSION_MARGIN / 2, largest + 1, faces.amin(0) - 1))
    torch.testing.assert_close(beyond_limits(asked, limits).mean(1), torch.tensor((0, 0.5, 1, 0)), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    """The open head with random networks that depend strongly on the face, of a clip with a shut mouth."""
    model, random = load_head(), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    settings = AvatarSettings(blendshapes=4, neural_per_anchor=1)
    networks = build_networks(settings, model, np.zeros(model.shape_basis.shape[2], np.float32))
    shapes = networks.blendshapes
    with torch.no_grad():
        shapes.shapes.mul_(20)
        hold_mouth(networks, model)
        filmed = 0.05 * torch.rand(200, 61, generator=random)
        networks.performed.copy_(expression_limits(filmed))
        networks.filmed.copy_(filmed_faces(filmed))
        head = Head(model)
        shaped = head.shaped(torch.zeros(1, model.shape_basis.shape[2]))
        store_regions(shapes.regions, model, head, shaped, filmed)
        shapes.limit_weights(torch.cat((filmed, torch.zeros(200, 3)), 1))
    made = Avatar(networks.eval(), model, np.zeros(model.shape_basis.shape[2], np.float32), settings)
    store_materials(networks, model, made.pose(torch.zeros(1, 52), torch.zeros(1, 5, 3), torch.eye(4)[None]))
    return made


def anchors_of(avatar: Avatar, **values: float):
    expression, rotations = pose_arrays(avatar.head_model, [SliderPose("face", values)])
    camera = torch.diag(torch.tensor((1.0, -1, -1, 1)))
    camera[2, 3] = 0.6
    with torch.no_grad():
        return avatar.networks(avatar.pose(torch.as_tensor(expression), torch.as_tensor(rotations), camera[None]))


def test_a_far_face_keeps_an_appearance_that_was_filmed(avatar):
    """Once the input has reached its limit, a stronger face changes the mesh, and not what the networks add to it."""
    half, whole = (
        anchors_of(avatar, browDownLeft=v, browDownRight=v, noseSneerLeft=v, eyeSquintRight=v)[1] for v in (1, 3)
    )
    rest = anchors_of(avatar)[1]
    assert (half.harmonics - rest.harmonics).abs().max() > 0.01
    torch.testing.assert_close(half.harmonics, whole.harmonics, atol=2e-3, rtol=0)
    torch.testing.assert_close(half.offsets, whole.offsets, atol=2e-5, rtol=0)
    weights = avatar.networks.blendshapes.weights(9 * torch.randn(50, 64, generator=torch.Generator().manual_seed(2)))
    low, high = avatar.networks.blendshapes.weight_limits
    assert (weights >= low).all() and (weights <= high).all() and (low < high).all()


def test_no_face_changes_what_is_inside_the_mouth(avatar):
    """In training, where no face is limited, and in an animation."""
    inside = torch.zeros(len(avatar.head_model.template), dtype=torch.bool)
    inside[torch.as_tensor(avatar.head_model.regions["mouth_inside"])] = True
    conditions = torch.cat((torch.zeros(1, 64), torch.full((1, 64), 0.04)))
    for beyond in (None, torch.zeros(2, 61)):
        for part in avatar.networks.blendshapes(conditions, beyond)[:2]:
            change = (part[0] - part[1]).abs().amax(-1)
            assert not change[inside].any() and change[~inside].min() > 0


def test_lips_spawn_nothing_in_any_face(avatar):
    lips = torch.zeros(len(avatar.head_model.template), dtype=torch.bool)
    lips[torch.as_tensor(avatar.head_model.regions["lips"])] = True
    conditions = torch.randn(8, 64, generator=torch.Generator().manual_seed(4))
    _, _, spawned = avatar.networks.blendshapes(conditions)
    assert spawned.opacity[:, lips].max() < 0 < spawned.opacity[:, ~lips].median()


def test_a_tongue_that_was_never_filmed_has_the_rigs_material(avatar):
    tongue = np.flatnonzero(avatar.networks.blendshapes.materials[:, 3] == 1)
    splats, anchors = anchors_of(avatar, tongueOut=1.0)
    materials = avatar.networks.blendshapes.materials[tongue]
    torch.testing.assert_close(0.5 + C0 * anchors.harmonics[0, tongue, 0], materials[:, :3])
    assert not anchors.harmonics[0, tongue, 1:].any() and not anchors.offsets[0, tongue].any()
    assert not splats.opacities[0, len(avatar.head_model.template) :][tongue].any()
    shut = anchors_of(avatar)[1]
    assert (shut.harmonics[0, tongue] - anchors.harmonics[0, tongue]).abs().max() > 0.1


def test_a_wide_open_mouth_keeps_what_was_trained(avatar, monkeypatch):
    """In the rig's colours the mouth's wall was a dark patch on the cheeks."""
    opened = anchors_of(avatar, jawOpen=1.0)[1]
    shapes = avatar.networks.blendshapes
    monkeypatch.setattr(shapes, "materials", torch.zeros_like(shapes.materials))
    torch.testing.assert_close(anchors_of(avatar, jawOpen=1.0)[1].harmonics, opened.harmonics)


def test_the_tongue_is_pink_and_dark_at_its_root():
    model = load_head()
    materials, tongue = tongue_materials(model, 1.0), mouth_parts(model)["tongue"]
    depth = model.template[tongue, 2]
    tip = materials[tongue[np.argsort(-depth)[:20]], :3].mean(0)
    assert tip[0] > 1.5 * max(tip[1:]) and tip[0] > 0.8
    assert materials[tongue[np.argmin(depth)], :3].max() < 0.4 * tip.max()
    assert (materials[tongue, 3] == 1).all()
    assert not materials[np.setdiff1d(np.arange(len(model.template)), tongue)].any()


def test_lips_close_over_an_open_jaw_only():
    model = load_head()
    column = model.expression_names.index("mouthClose")
    poses = [SliderPose("", {"mouthClose": 1.0, "jawOpen": value}) for value in (0.0, 0.25, 1.0)]
    expression, rotations = pose_arrays(model, poses)
    assert expression[:, column] == pytest.approx((0, 0.25, 1), abs=1e-5)
    shut, _ = pose_arrays(model, [SliderPose("", {})])
    np.testing.assert_array_equal(expression[0], shut[0])
    rotations[:, JAW] = (0.0, 0, 0), (-0.1, 0, 0), (0.1, 0, 0)
    asked = np.zeros_like(expression)
    asked[:, column] = 1
    assert lips_over_open_jaw(model, asked, rotations)[:, column] == pytest.approx((0, 0, 0.299), abs=1e-3)


def test_each_region_has_its_part_of_faces_that_were_filmed_apart(avatar):
    """The clip opens the mouth with raised brows, and lowers the brows with a shut mouth; asked are both parts that it
    never had together.
    """
    model, shapes = avatar.head_model, avatar.networks.blendshapes
    names = model.expression_names
    jaw, brow, lid = 52, names.index("browDownLeft"), names.index("eyeBlinkLeft")
    faces = 0.01 * torch.rand(200, 61, generator=torch.Generator().manual_seed(3))
    faces[:100, jaw] = faces[100:, brow] = torch.linspace(0, 1, 100)
    faces[:100, jaw] *= 0.3
    regions = FilmedRegions(len(model.template), 61)
    assert not regions.is_stored and torch.equal(regions(9 * faces)[:, 2], 9 * faces)
    store_regions(regions, model, avatar.head, avatar.shaped, faces)
    assert regions.is_stored
    asked = torch.zeros(1, 61)
    asked[0, jaw], asked[0, brow] = 0.3, 1.0
    found = regions(asked)[0]
    assert found[LOWER, jaw] > 0.27 and found[LOWER, brow] < 0.1
    assert found[REST, brow] > 0.9 and found[REST, jaw] < 0.1
    # What was filmed stays, and what never was is left out: the clip has no blink.
    torch.testing.assert_close(regions(faces), faces[:, None].expand(-1, 4, -1))
    asked[0, lid] = 1.0
    assert regions(asked)[0, LEFT_EYE, lid] < 0.1
    # A vertex that no face changed in training keeps none.
    held = torch.as_tensor(model.regions["mouth_inside"])
    regions.shares[held] = 0
    store_regions(regions, model, avatar.head, avatar.shaped, faces)
    assert not regions.shares[held].any() and int(regions.changing.sum()) == len(model.template) - len(held)
    # In a clip with fewer frames than are kept, faces between its own are drawn as they are.
    few = faces[::5]
    store_regions(regions, model, avatar.head, avatar.shaped, few)
    between = (few[:19] + few[1:20]) / 2
    torch.testing.assert_close(regions(between), between[:, None].expand(-1, 4, -1))
    assert regions(asked)[0, LEFT_EYE, lid] < 0.1
    # Every other takes from the regions by its shares, which are local.
    regions = FilmedRegions(len(model.template), 61)
    store_regions(regions, model, avatar.head, avatar.shaped, faces)
    shares, labels = regions.shares, region_labels(model)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))
    for region, name in ((LOWER, "lips"), (LOWER, "mouth_inside"), (REST, "scalp")):
        assert shares[model.regions[name], region].median() > 0.9
    left = model.regions["eyes"][model.template[model.regions["eyes"], 0] > 0]
    assert (labels[left] == LEFT_EYE).all() and (labels == RIGHT_EYE).sum() > 100
    assert shapes.regions.is_stored
