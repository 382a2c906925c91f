"""Unobserved regions continue their surroundings; the networks get views and expressions within the clip's range."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from resting_head import SIZE as HEAD_SIZE
from resting_head import Frames, camera_before
from small_capture import SIZE, limits_of_a_ball, make_small_capture

from backend.avatar.avatar import Avatar, build_networks, load_avatar, save_avatar
from backend.avatar.filmed import expression_limits, unlimited_faces
from backend.avatar.posing import Pose, pose_rig
from backend.avatar.settings import AvatarSettings
from backend.avatar.views import clamp_view, view_angles, view_directions, view_range
from backend.head.eye_size import eye_whites
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.model import JAW, ROOT
from backend.head.mouth import mouth_parts, mouth_rows
from backend.splatting.mesh_batch import rasterize_meshes
from backend.splatting.spherical_harmonics import C0, C1
from backend.splatting.types import Cameras
from backend.training.filmed_limits import store_training_ranges
from backend.training.frames import TrainingFrames
from backend.training.losses import anchor_limits
from backend.training.unobserved_regions import (
    EYE_WHITE,
    INNER_LIP,
    INNER_LIP_ROWS,
    MOUTH_COLORS,
    UnobservedPrior,
    UnobservedVertices,
    unobserved_vertices,
)
from backend.training.vertex_visibility import _in_footage, _opens_mouth, find_unobserved
from backend.training.warmup import VertexBoundGaussians


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("EFFIGY_USER", str(tmp_path_factory.mktemp("user")))
    yield make_small_capture(tmp_path_factory.mktemp("unseen"))
    patch.undo()


@pytest.fixture(scope="module")
def frames(small) -> TrainingFrames:
    capture, track, model = small
    return TrainingFrames(capture, track, model, SIZE)


def test_back_of_the_head_is_unobserved_and_front_is_observed(small, frames):
    model = small[2]
    unobserved = find_unobserved(frames, model, anchor_limits(model, torch.full((len(model.template),), 0.01)))
    front, back = model.template[:, 2] > 0.06, model.template[:, 2] < -0.06
    assert front.sum() > 5 and back.sum() > 5
    assert unobserved.unobserved[torch.as_tensor(front)].max() == 0
    assert unobserved.unobserved[torch.as_tensor(back)].min() > 0.5
    assert unobserved.unobserved[model.template[:, 2].argmin()] == 1


def test_what_lies_below_the_edge_of_every_picture_is_unobserved_however_far_gaussians_may_lie(small):
    """Otherwise a neck that the edge cuts keeps what the warm-up happened to leave below it."""
    capture, track, model = small
    intrinsics = track.intrinsics.copy()
    intrinsics[1, 2] += 0.4 * track.size
    frames = TrainingFrames(capture, replace(track, intrinsics=intrinsics), model, SIZE)
    limits = limits_of_a_ball(torch.full((len(model.template),), 0.5), torch.full((len(model.template),), 0.01))
    unobserved = find_unobserved(frames, model, limits).unobserved
    cameras, pose = frames.poses.cameras(frames.indices, SIZE), frames.poses.pose(frames.indices)
    y = cameras.pixels(cameras.seen(pose.posed))[..., 1] / SIZE
    below, within = y.amin(0) > 1.15, (y < 0.9).all(0)
    assert below.sum() > 5 and within.sum() > 5
    assert unobserved[below].min() == 1 and unobserved[within].max() == 0


def test_colours_are_reliable_in_the_picture_and_in_the_matte(frames):
    """Not near the edge, where little of a Gaussian is in the picture."""
    places = torch.tensor([(0.5, 0.5), (0.5, 0.99), (0.5, 1.4), (0.04, 0.04), (0.5, -0.2)])
    in_picture, of_head = _in_footage(frames, np.arange(3), places.expand(3, 5, 2))
    assert in_picture.tolist() == [[True, False, False, True, False]] * 3
    assert of_head.tolist() == [[True, False, False, False, False]] * 3


def test_each_place_is_looked_up_in_its_own_frame(small):
    frames = TrainingFrames(small[0], small[1], small[2], SIZE)
    frames._images[..., 3] = 0
    row, x, y = 1, SIZE // 4, SIZE // 2
    frames._images[row, y, x, 3] = 255
    place = torch.tensor([[(x + 0.5) / SIZE, (y + 0.5) / SIZE]])
    assert _in_footage(frames, np.arange(3), place.expand(3, 1, 2))[1].tolist() == [[False], [True], [False]]


def test_a_vertex_that_no_matte_shows_is_as_unreliable_as_one_at_grazing_angles(small, frames):
    """A track may lay the mesh over what is not the head."""
    model = small[2]
    limits = anchor_limits(model, torch.full((len(model.template),), 0.01))
    grazing = find_unobserved(frames, model, limits).grazing
    bare = TrainingFrames(small[0], small[1], model, SIZE)
    bare._images[..., 3] = 0
    assert grazing.min() == 0 and find_unobserved(bare, model, limits).grazing.min() == 1
    # And is transparent with good reason, except where no frame could tell.
    shown = find_unobserved(frames, model, limits).hidden == 0
    assert shown.any() and not find_unobserved(bare, model, limits).aslant[shown].any()


def test_what_no_frame_looks_straight_at_stays_a_closed_surface(small, frames):
    """Gaps between Gaussians at the sides are foreshortened in the clip, and a net of holes from the side."""
    model = small[2]
    base = torch.full((len(model.template),), 0.01)
    limits = anchor_limits(model, base)
    unobserved = find_unobserved(frames, model, limits)
    pose = frames.poses.pose(frames.indices)
    facing = torch.as_tensor(-(pose.normals * pose.directions).sum(-1)).sort(0, descending=True).values[2]
    straight, side = facing > 0.75, facing < 0.6
    assert straight.sum() > 10 and side.sum() > 10
    assert unobserved.aslant[side].all() and not unobserved.aslant[straight].any()
    least = unobserved.closing(limits, base).least_breadth
    torch.testing.assert_close(least, torch.where(unobserved.aslant, 0.012, 0.0))


def test_eyes_lids_and_the_mouth_are_not_closed():
    model = load_head()
    seen = torch.zeros(len(model.template))
    aslant = unobserved_vertices(model, seen, seen, seen, None, torch.ones(len(seen), dtype=torch.bool)).aslant
    open_ones = np.unique(np.concatenate([model.regions[name] for name in ("eyes", "lids", "lips", "mouth_inside")]))
    assert sorted(np.flatnonzero(~aslant)) == sorted(open_ones)
    assert not unobserved_vertices(model, seen, seen, seen).aslant.any()


def make_unobserved(
    share: torch.Tensor, edges: torch.Tensor, grazing: torch.Tensor | None = None
) -> UnobservedVertices:
    inside, whites = torch.full((len(share), 3), torch.nan), torch.zeros(len(share), dtype=torch.bool)
    return UnobservedVertices(share, share, share if grazing is None else grazing, edges, inside, whites, whites)


def fill_with_default_7(unobserved: UnobservedVertices, values: torch.Tensor) -> torch.Tensor:
    return unobserved.fill(values, torch.full_like(values, 7.0))


def test_fill_continues_a_chain_with_the_value_of_its_observed_end():
    share = torch.tensor([0.0, 1, 1, 1])
    filled = fill_with_default_7(
        make_unobserved(share, torch.tensor([[0, 1], [1, 2], [2, 3]])), torch.tensor([[2.0], [9], [-9], [0]])
    )
    assert torch.allclose(filled, torch.full((4, 1), 2.0), atol=0.02)


def test_fill_interpolates_linearly_between_two_observed_ends():
    share = torch.tensor([0.0, 1, 1, 1, 0])
    chain = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4]])
    filled = fill_with_default_7(make_unobserved(share, chain), torch.tensor([[0.0], [7], [7], [7], [4]]))
    assert torch.allclose(filled[:, 0], torch.arange(5.0), atol=0.1)


def test_fill_approaches_the_median_far_from_observed_vertices():
    count = 60
    share = torch.ones(count)
    share[:3] = 0
    edges = torch.stack((torch.arange(count - 1), torch.arange(1, count)), 1)
    values = torch.zeros(count, 1)
    values[:3, 0] = torch.tensor([1.0, 1, 5])
    filled = fill_with_default_7(make_unobserved(share, edges), values)[:, 0]
    assert filled[3] > 4 and filled[-1] == pytest.approx(1, abs=0.05)


def test_fill_gives_the_default_to_a_part_without_observed_vertices():
    share = torch.tensor([0.0, 1, 1, 1])
    filled = fill_with_default_7(
        make_unobserved(share, torch.tensor([[0, 1], [2, 3]])), torch.tensor([[2.0], [9], [4], [4]])
    )
    assert torch.allclose(filled[:, 0], torch.tensor([2.0, 2, 7, 7]), atol=0.05)


def test_irises_that_no_frame_shows_are_smooth():
    """Nothing is known of them but the noise of the warm-up."""
    model = load_head()
    unseen = torch.ones(len(model.template))
    unseen[torch.as_tensor(model.regions["face"])] = 0
    unseen[torch.as_tensor(model.regions["eyes"])] = 1
    irises = torch.as_tensor(np.setdiff1d(model.regions["eyes"], eye_whites(model)))
    noise = torch.randn(len(unseen), 3, generator=torch.Generator().manual_seed(0))
    filled = unobserved_vertices(model, unseen, unseen, unseen).fill(noise, noise)
    left = irises[torch.as_tensor(model.template)[irises, 0] > 0]
    assert len(left) > 10 and filled[left].std(0).max() < 0.2 * noise[left].std(0).min()


def test_in_an_unobserved_mouth_teeth_are_light_and_the_wall_is_dark():
    model = load_head()
    count = len(model.template)
    share = torch.ones(count)
    share[torch.as_tensor(model.regions["face"])] = 0
    for vertices in mouth_parts(model).values():
        assert len(vertices) > 50
        share[torch.as_tensor(vertices)] = 1
    free = VertexBoundGaussians(torch.full((count,), 0.012), 1)
    pose = Pose(
        *(torch.zeros(1, count, size) for size in (3, 3, 16, 3, 4)),
        directions=torch.tensor([0.0, 0, -1]).expand(1, count, 3),
    )
    with torch.no_grad():
        free.appearance[:, 1:4] = torch.randn(count, 3)
        free.geometry[:, :3] = 1.0
    limits = anchor_limits(model, free.base_scale)
    unobserved_vertices(model, share, share, share).extrapolate_into(free, pose, limits)
    colors = free.colors(pose)
    teeth, wall = (colors[torch.as_tensor(mouth_parts(model)[name])].mean() for name in ("teeth", "wall"))
    assert teeth > 2 * wall
    # The wall begins as the inner side of the lips, and has its own colour after some rows.
    rows = torch.as_tensor(mouth_rows(model))
    first, deep = colors[rows == -1], colors[rows < -INNER_LIP_ROWS]
    expected = torch.tensor(INNER_LIP) / torch.tensor(MOUTH_COLORS["wall"])
    torch.testing.assert_close(first / deep.mean(0), expected.expand(len(first), 3), rtol=0.02, atol=0)
    assert (deep - deep[0]).abs().max() < 0.01
    geometry = free.geometry[torch.as_tensor(mouth_parts(model)["teeth"])]
    assert geometry[:, :3].abs().max() < 0.05
    torch.testing.assert_close(0.006 * geometry[:, 3:6].exp(), torch.full((len(geometry), 3), 0.0025))


def test_a_mouth_of_which_no_pixel_shows_starts_in_its_own_colours_also_where_frames_count_it_as_seen():
    model = load_head()
    count, tongue = len(model.template), torch.as_tensor(mouth_parts(model)["tongue"])
    seen = torch.zeros(count)
    free = VertexBoundGaussians(torch.full((count,), 0.005), 1)
    known = torch.zeros(count, dtype=torch.bool)
    known[torch.as_tensor(model.regions["face"], dtype=torch.long)] = True
    known[torch.as_tensor(model.regions["mouth_inside"], dtype=torch.long)] = False
    known[tongue[0]] = True
    with torch.no_grad():
        free.appearance[known, 1:4] = (0.55 - 0.5) / C0
        before = free.appearance.clone()
    unobserved_vertices(model, seen, seen, seen).paint_inside(free, known)
    colors = 0.5 + C0 * free.appearance[:, 1:4]
    torch.testing.assert_close(colors[tongue[1:]], torch.tensor(MOUTH_COLORS["tongue"]).expand(len(tongue) - 1, 3))
    rest = known.clone()
    rest[torch.as_tensor(model.regions["scalp"], dtype=torch.long)] = True
    assert torch.equal(free.appearance[rest], before[rest]) and torch.equal(free.appearance[:, 4:], before[:, 4:])


@pytest.mark.parametrize("white", [None, (0.7, 0.68, 0.66)])
def test_whites_of_eyes_are_white_although_frames_show_skin_there(white):
    model = load_head()
    count, whites = len(model.template), torch.as_tensor(eye_whites(model))
    assert 50 < len(whites) < len(model.regions["eyes"])
    free = VertexBoundGaussians(torch.full((count,), 0.005), 1)
    pose = Pose(
        *(torch.zeros(1, count, size) for size in (3, 3, 16, 3, 4)),
        directions=torch.tensor([0.0, 0, -1]).expand(1, count, 3),
    )
    skin, seen = torch.tensor((0.6, 0.55, 0.5)), torch.zeros(count)
    with torch.no_grad():
        free.appearance[:, 1:4] = (skin - 0.5) / C0
    unobserved = unobserved_vertices(model, seen, seen, seen, None if white is None else torch.tensor(white))
    unobserved.extrapolate_into(free, pose, anchor_limits(model, free.base_scale))
    expected = torch.tensor(white or EYE_WHITE)
    assert (free.colors(pose)[whites] - expected).abs().max() < 0.01
    assert unobserved.weight[whites].min() == 1
    others = torch.ones(count, dtype=torch.bool)
    others[whites] = False
    assert (free.colors(pose)[others] - skin).abs().max() < 0.01 and unobserved.weight[others].max() == 0


def test_colour_seen_at_grazing_angles_is_neither_kept_nor_extrapolated():
    grazing = torch.tensor([0.0, 1, 1])
    unobserved = make_unobserved(torch.tensor([0.0, 0, 1]), torch.tensor([[0, 1], [1, 2]]), grazing)
    free = VertexBoundGaussians(torch.full((3,), 0.01), 1)
    pose = Pose(
        *(torch.zeros(1, 3, size) for size in (3, 3, 16, 3, 4)), directions=torch.tensor([0.0, 0, -1]).expand(1, 3, 3)
    )
    with torch.no_grad():
        # Half of the first vertex's darkness lies in what is seen of it from the front alone.
        free.appearance[:, 1:4] = torch.tensor([-0.5, 1, 0])[:, None]
        free.appearance[0, 7:10] = 0.5 * C0 / C1
        free.geometry[:, 3:6] = 0.7
    wide = limits_of_a_ball(*(torch.full((3,), 0.02),) * 3)
    unobserved.extrapolate_into(free, pose, wide)
    assert torch.allclose(free.appearance[:, 1], torch.tensor([-0.5, -1, -1]), atol=0.02)
    # The unobserved Gaussian is opaque and has the initial scale.
    assert torch.sigmoid(free.appearance[2, 0]) > 0.9
    assert torch.allclose(free.geometry[:, 3], torch.tensor([0.7, 0.7, 0]))


def test_prior_has_gradients_at_unobserved_vertices_only(small, frames):
    capture, track, model = small
    torch.manual_seed(0)
    networks = build_networks(AvatarSettings(size=SIZE), model, track.identity)
    unobserved = find_unobserved(frames, model, anchor_limits(model, torch.full((len(model.template),), 0.01)))
    pose = frames.batch_poses(torch.arange(2))
    with torch.no_grad():
        free = VertexBoundGaussians(torch.full((len(model.template),), 0.02), 1)(pose)[1]
    splats, anchors = networks(pose)
    UnobservedPrior(unobserved.unobserved, free).loss(anchors, splats.opacities[:, len(model.template) :]).backward()
    gradient, faded = networks.geometry.bias_output.grad.abs().sum(1), networks.neural.opacity.bias.grad
    assert gradient[unobserved.unobserved == 1].min() > 0 and gradient[unobserved.unobserved == 0].max() == 0
    assert (faded[unobserved.unobserved == 1] > 0).all() and faded[unobserved.unobserved == 0].abs().max() == 0


def test_prior_is_weaker_at_grazing_vertices_than_at_unobserved_ones():
    unobserved = make_unobserved(torch.tensor([0.0, 0, 1]), torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.0, 1, 1]))
    observed, grazing, never = unobserved.weight.tolist()
    assert observed == 0 and 0 < grazing < never <= 1


def test_resumed_training_restores_the_extrapolated_gaussians():
    share = torch.tensor([0.0, 1])
    with torch.no_grad():
        anchors = VertexBoundGaussians(torch.full((2,), 0.01), 1)(
            Pose(*(torch.zeros(1, 2, size) for size in (3, 3, 16, 3, 4, 3)))
        )[1]
    kept = UnobservedPrior(share, anchors)
    again = UnobservedPrior(share).restored({name: value.clone() for name, value in kept.tensors().items()})
    assert all(torch.equal(getattr(again.extrapolated, name), value) for name, value in vars(anchors).items())
    assert UnobservedPrior(share).restored({}).extrapolated is None
    # What a checkpoint holds is asked about before.
    assert kept.fits(kept.tensors()) and kept.fits({})
    assert not kept.fits({name: value for name, value in kept.tensors().items() if name != "scales"})
    assert not UnobservedPrior(torch.zeros(3)).fits(kept.tensors())


def pose_from(networks_model, yaw_degrees: float):
    """The head at rest, seen from `yaw_degrees` to its left."""
    from backend.head.forward import Head

    head = Head(networks_model)
    shaped = head.shaped(torch.zeros(1, head.identity_size))
    yaw = math.radians(yaw_degrees)
    turn = torch.tensor([[math.cos(yaw), 0, -math.sin(yaw)], [0, 1, 0], [math.sin(yaw), 0, math.cos(yaw)]])
    camera = torch.eye(4)
    camera[:3, :3] = torch.diag(torch.tensor([1.0, -1, -1])) @ turn
    camera[2, 3] = 0.6
    return pose_rig(head, shaped, torch.zeros(1, head.expression_size), torch.zeros(1, 5, 3), camera[None])


def test_networks_get_the_nearest_view_of_the_clip_when_seen_from_far_aside(small):
    model = small[2]
    near, far = pose_from(model, 20), pose_from(model, 70)
    views = view_range(torch.cat([pose_from(model, -20).conditions, near.conditions]))
    unchanged = clamp_view(near, views)
    assert torch.equal(unchanged.conditions, near.conditions) and torch.equal(unchanged.directions, near.directions)
    clamped = clamp_view(far, views)
    angles = view_angles(view_directions(clamped.conditions))
    assert torch.allclose(angles[0, 0].abs(), views[0].abs().max(), atol=1e-4)
    # The view directions of the vertices are almost those of the camera at the edge of the range, not 50 degrees aside.
    cosine = (clamped.directions * near.directions).sum(-1).clamp(-1, 1)
    assert math.degrees(cosine.acos().max()) < 12
    assert clamped.posed is far.posed


@pytest.mark.parametrize("yaw", [180.0, 179.0])
def test_clamped_view_from_behind_is_finite(small, yaw):
    model = small[2]
    pose = pose_from(model, yaw)
    clamped = clamp_view(pose, view_range(pose_from(model, 0).conditions))
    assert torch.isfinite(clamped.directions).all()
    assert torch.allclose(clamped.directions.norm(dim=-1), torch.ones(1), atol=1e-4)


def test_expressions_beyond_the_clip_move_the_mesh_but_are_clamped_for_the_networks(small):
    from backend.head.forward import Head

    head = Head(small[2])
    shaped, camera = head.shaped(torch.zeros(1, head.identity_size)), torch.eye(4)[None]
    expression, rotations = torch.full((1, head.expression_size), 1.0), torch.zeros(1, 5, 3)
    rotations[0, 1], rotations[0, 2, 0] = 0.2, 0.3
    size = head.expression_size + 9
    limits = (performed := expression_limits(torch.zeros(2, size))), unlimited_faces(size)
    unclamped = pose_rig(head, shaped, expression, rotations, camera)
    clamped = pose_rig(head, shaped, expression, rotations, camera, limits)
    assert torch.equal(clamped.posed, unclamped.posed) and torch.equal(clamped.rotations, unclamped.rotations)
    assert clamped.conditions[:, :-3].max() <= performed.max() < 0.3
    # The networks get an almost neutral face.
    rest = head.canonical(shaped, 0 * expression, 0 * rotations)
    assert (clamped.canonical - rest).norm() < 0.4 * (unclamped.canonical - rest).norm()
    within = pose_rig(head, shaped, 0.05 * expression, 0.1 * rotations, camera, limits)
    assert torch.equal(within.conditions, pose_rig(head, shaped, 0.05 * expression, 0.1 * rotations, camera).conditions)


def test_avatar_file_stores_the_ranges_of_the_training_frames(small, frames, tmp_path):
    _, track, model = small
    networks = build_networks(AvatarSettings(size=SIZE), model, track.identity)
    store_training_ranges(networks, frames)
    save_avatar(Avatar(networks, model, track.identity, networks.settings, {}), tmp_path / "a.effigy")
    loaded = load_avatar(tmp_path / "a.effigy", model)
    assert np.allclose(loaded.networks.views.detach(), networks.views.detach())
    assert np.allclose(loaded.networks.performed.detach(), networks.performed.detach())
    assert loaded.networks.performed.isfinite().all()
    assert np.allclose(loaded.networks.filmed, networks.filmed, atol=1e-3) and loaded.networks.filmed.isfinite().all()
    yaw = np.abs(track.rotations[: frames.frame_count, 1, 1]).max()
    assert float(loaded.networks.views[0, 1]) == pytest.approx(yaw, abs=0.2)


def posed_head(model, jaw: float, yaw: float, lips: float = 0.0) -> torch.Tensor:
    """(1, N, 3) metres, with the jaw open by radians, the head turned by degrees, and the lips drawn from each other by
    so much of the largest.
    """
    rotations, expression = torch.zeros(1, 5, 3), torch.zeros(1, 52)
    rotations[0, ROOT, 1], rotations[0, JAW, 0] = math.radians(yaw), jaw
    for name in ("mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight"):
        expression[0, model.expression_names.index(name)] = lips
    head = Head(model)
    return head(head.shaped(torch.zeros(1, model.shape_basis.shape[2])), expression, rotations).vertices


@pytest.mark.parametrize(
    ("jaw", "yaw", "opens"),
    [(0.0, 0, False), (0.04, 0, False), (0.35, 0, True), (0.04, 75, False), (0.02, 85, False), (0.35, 40, True)],
)
def test_a_mouth_that_hardly_opens_shows_nothing_of_its_inside(jaw, yaw, opens):
    model, size = load_head(), 192
    vertices = posed_head(model, jaw, yaw) * torch.tensor([1.0, -1, -1]) + torch.tensor([0, 0, 0.6])
    cameras = Cameras(torch.tensor([[[400.0, 0, 96], [0, 400, 96], [0, 0, 1]]]), torch.eye(4)[None], size, size)
    faces = torch.as_tensor(model.faces.astype(np.int64))
    raster = rasterize_meshes(vertices, faces, cameras.intrinsics, size, size)
    assert _opens_mouth(model, raster, vertices, cameras).tolist() == [opens]


def test_what_frames_show_of_the_open_head_and_what_they_do_not():
    """Its mouth is shut, its eyes are open: the inside and the whites are unseen, and the white is the footage's."""
    model = load_head()
    frames = Frames(model, camera_before(model), torch.full((1, HEAD_SIZE, HEAD_SIZE, 3), 0.7))
    found = find_unobserved(frames, model, anchor_limits(model, torch.full((len(model.template),), 0.004)))
    mouth, whites = (torch.as_tensor(part) for part in (model.regions["mouth_inside"], eye_whites(model)))
    assert found.grazing[mouth].min() == 1 and found.weight[whites].min() == 1
    assert found.grazing.min() == 0 and found.white.tolist() == pytest.approx([0.7] * 3)


@pytest.mark.parametrize(("jaw", "aside", "seen"), [(0.06, 0.0, False), (0.06, 0.17, False), (0.3, 0.0, True)])
def test_only_an_open_jaw_shows_what_lies_behind_the_teeth(jaw, aside, seen):
    """With bared teeth the rig shows its tongue too, and the footage teeth; also where the jaw is moved aside."""
    model = load_head()
    camera = camera_before(model)
    camera.world_to_camera[0, 1, 3] -= 0.07
    frames = Frames(model, camera, torch.full((1, HEAD_SIZE, HEAD_SIZE, 3), 0.7))
    frames.vertices, frames.jaw = posed_head(model, jaw, 0.0, lips=0.8), torch.tensor([[jaw, aside, 0]])
    found = find_unobserved(frames, model, anchor_limits(model, torch.full((len(model.template),), 0.004)))
    parts = {name: found.hidden[torch.as_tensor(part)].min() for name, part in mouth_parts(model).items()}
    assert parts["teeth"] == 0 and (parts["tongue"] == 0) == (parts["wall"] == 0) == seen


@pytest.mark.parametrize("change", ["as it is", "joints in one place", "ten times as large", "no eyes"])
def test_whites_lie_around_irises_or_are_not_known(change):
    model = load_head()
    eyes = model.regions["eyes"]
    if change == "joints in one place":
        # As in a file of FLAME that has identities alone.
        model = replace(model, joint_regressor=np.repeat(model.joint_regressor[:1], 5, 0))
    elif change == "ten times as large":
        model = replace(model, template=10 * model.template)
    elif change == "no eyes":
        model = replace(model, regions=model.regions | {"eyes": eyes[:0]})
    whites = eye_whites(model)
    if change in ("ten times as large", "no eyes"):
        assert len(whites) == 0
    else:
        assert 0.5 < len(whites) / len(eyes) < 0.9 and set(whites) < set(eyes)
