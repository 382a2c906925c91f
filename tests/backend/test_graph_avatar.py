"""The networks of an avatar: gradients everywhere, posing that changes only position and orientation, the warm-up's
hand-over.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from head_models import ball_head
from scipy.spatial.transform import Rotation

from backend.avatar.avatar import build_networks
from backend.avatar.encoding import EXTENT, encode_surface, encoded_size
from backend.avatar.neural_gaussians import lay_flat
from backend.avatar.posing import Pose, head_rotation, pose_rig
from backend.avatar.settings import AvatarSettings
from backend.head.forward import Head
from backend.training.losses import extent_along
from backend.training.warmup import VertexBoundGaussians, distil_into_networks


@pytest.fixture(scope="module")
def model():
    return ball_head()


def make_pose(
    model, rotations: torch.Tensor, camera: torch.Tensor | None = None, expression: torch.Tensor | None = None
) -> Pose:
    head = Head(model)
    count = len(rotations)
    if camera is None:
        camera = torch.diag(torch.tensor([1.0, -1, -1, 1])).repeat(count, 1, 1)
        camera[:, 2, 3] = 0.6
    if expression is None:
        expression = torch.linspace(-0.5, 0.5, model.expression_basis.shape[2]).repeat(count, 1)
    return pose_rig(head, head.shaped(torch.zeros(1, model.shape_basis.shape[2])), expression, rotations, camera)


def networks_of(model, **settings):
    torch.manual_seed(3)
    networks = build_networks(AvatarSettings(**settings), model, np.zeros(model.shape_basis.shape[2], np.float32))
    with torch.no_grad():
        for parameter in filter(lambda parameter: parameter.requires_grad, networks.parameters()):
            parameter.add_(0.02 * torch.randn_like(parameter))
    return networks


GENERATOR = pytest.mark.parametrize("shapes", [0, 5], ids=["unet", "blendshapes"])


@GENERATOR
def test_every_parameter_receives_a_gradient(model, shapes):
    networks = networks_of(model, blendshapes=shapes)
    splats, anchors = networks(make_pose(model, 0.1 * torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))))
    sum((part * torch.randn_like(part)).sum() for part in vars(splats).values()).backward()
    silent = [
        name
        for name, parameter in networks.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    assert not silent
    assert splats.means.shape == (2, 3 * len(model.template), 3)


@GENERATOR
def test_neck_rotation_changes_only_position_and_orientation(model, shapes):
    networks = networks_of(model, sh_degree=3, blendshapes=shapes)
    still = torch.zeros(1, 5, 3)
    still[0, 2] = torch.tensor([0.2, 0, 0])
    turned = still.clone()
    turned[0, 1] = torch.tensor([0.3, 0.8, -0.2])
    head = Head(model)
    identity = head.shaped(torch.zeros(1, 3))
    camera = torch.eye(4)[None]
    camera[0, 2, 3] = 0.6
    # The camera rotates with the head, so the view of the head does not change.
    expression = torch.zeros(1, 4)
    carried = head(identity, expression, turned).joint_transforms[:, 1]
    before = networks(make_pose(model, still, camera, expression))
    after = networks(make_pose(model, turned, camera @ torch.linalg.inv(carried), expression))
    for name in ("scales", "opacities", "harmonics", "offsets", "quaternions"):
        torch.testing.assert_close(getattr(before[1], name), getattr(after[1], name), atol=1e-6, rtol=1e-5)
    bound = torch.as_tensor(model.skinning[:, 0] == 0)
    bound = torch.cat((bound, bound.repeat_interleave(2)))
    # Gaussians that move with the neck alone keep their colour too; the view of those bound to the root changes.
    torch.testing.assert_close(before[0].colors[:, bound], after[0].colors[:, bound], atol=2e-5, rtol=1e-4)
    expected = before[0].means @ carried[:, :3, :3].transpose(1, 2) + carried[:, None, :3, 3]
    torch.testing.assert_close(after[0].means[:, bound], expected[:, bound], atol=2e-6, rtol=0)
    assert (after[0].means - before[0].means)[:, bound].norm(dim=-1).mean() > 0.01


def test_blendshapes_without_neural_gaussians_make_the_anchors_alone(model):
    networks = networks_of(model, blendshapes=5, neural_per_anchor=0)
    splats, anchors = networks(make_pose(model, torch.zeros(1, 5, 3)))
    assert splats.means.shape[1] == len(model.template) == anchors.opacities.shape[1]


def test_blendshapes_are_a_mean_and_shapes_that_the_pose_weights(model):
    networks = networks_of(model, blendshapes=5)
    pose = make_pose(model, torch.zeros(2, 5, 3), expression=torch.tensor([[0.0, 0, 0, 0], [0.3, -0.2, 0.1, 0.4]]))
    blendshapes = networks.blendshapes
    weights = blendshapes.weights(pose.conditions)
    shapes = torch.einsum("nf,kfo->kno", blendshapes.features(), blendshapes.shapes)
    expected = blendshapes.mean + torch.einsum("bk,kno->bno", weights, shapes)
    geometry, appearance, spawned = blendshapes(pose.conditions)
    made = torch.cat((geometry, appearance), 2)
    torch.testing.assert_close(made, expected[..., : made.shape[2]])
    second = expected[..., made.shape[2] + 11 : made.shape[2] + 22]
    parts = (spawned.opacity, spawned.color, spawned.scale, spawned.rotation)
    torch.testing.assert_close(torch.cat([part[:, :, 1] for part in parts], 2), second)
    assert (weights[0] - weights[1]).abs().max() > 1e-3 and (made[0] - made[1]).abs().max() > 1e-4


def test_blendshapes_start_from_the_gaussians_of_the_warm_up(model):
    networks = networks_of(model, blendshapes=5)
    free = VertexBoundGaussians(torch.full((len(model.template),), 0.01), 1)
    with torch.no_grad():
        free.geometry[:, :3] = torch.linspace(-0.3, 0.3, len(model.template))[:, None]
        free.appearance[:, 1:4] = 0.7
    pose = make_pose(model, torch.zeros(3, 5, 3), expression=0.3 * torch.randn(3, 4))
    distil_into_networks(free, networks, pose)
    geometry, appearance, spawned = networks.blendshapes(pose.conditions)
    torch.testing.assert_close(geometry.mean(0), free.geometry, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(appearance.mean(0), free.appearance, atol=1e-5, rtol=1e-5)
    shown = torch.sigmoid(networks.blendshapes.mean[:, -22:].unflatten(1, (2, 11))[..., 1:4])
    torch.testing.assert_close(shown, free.colors(pose)[:, None].expand_as(shown), atol=1e-4, rtol=1e-4)


@GENERATOR
def test_spawned_gaussians_start_flat_on_the_surface(model, shapes):
    networks = networks_of(model, blendshapes=shapes)
    started = networks.blendshapes.positions if shapes else networks.neural.offsets
    random = started.detach().clone()
    pose = make_pose(model, torch.zeros(1, 5, 3))
    distil_into_networks(VertexBoundGaussians(torch.full((len(model.template),), 0.01), 1), networks, pose, steps=1)
    normals = pose.normals[0, :, None]
    kept = 0.2 * (random * normals).sum(-1)
    torch.testing.assert_close((started * normals).sum(-1), kept, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        torch.linalg.cross(started, normals.expand_as(started)),
        torch.linalg.cross(random, normals.expand_as(random)),
        atol=1e-5,
        rtol=1e-4,
    )
    if shapes:
        scale, rotation = networks.blendshapes.mean[:, -22:].unflatten(1, (2, 11))[..., 4:].split((3, 4), -1)
    else:
        scale, rotation = (
            part.bias.unflatten(-1, part.shape) for part in (networks.neural.scale, networks.neural.rotation)
        )
    scale = 2 * torch.sigmoid(scale)
    across = extent_along(rotation, scale, normals.expand_as(started))
    torch.testing.assert_close(across, torch.full_like(across, 0.4), atol=1e-4, rtol=1e-4)
    # Also where the surface looks backward, away from the axis that is turned to its normal.
    assert pose.normals[0, :, 2].min() < -0.9
    assert (scale[..., :2] - 1).abs().max() < 0.1


def test_flat_gaussians_on_a_surface_that_looks_exactly_backward():
    positions, scale, rotation = torch.ones(1, 1, 3), torch.zeros(1, 1, 3), torch.zeros(1, 1, 4)
    back = torch.tensor([[0.0, 0, -1]])
    lay_flat(positions, scale, rotation, back)
    torch.testing.assert_close(positions, torch.tensor([[[1.0, 1, 0.2]]]))
    assert extent_along(rotation, 2 * torch.sigmoid(scale), back[:, None]) == pytest.approx(0.4)


def test_the_warm_up_starts_from_a_closed_surface_that_hides_what_is_behind(model):
    free = VertexBoundGaussians(torch.full((len(model.template),), 0.01), 1)
    splats, anchors = free(make_pose(model, torch.zeros(1, 5, 3)))
    assert (splats.opacities > 0.8).all() and (splats.opacities < 0.9).all()
    torch.testing.assert_close(anchors.scales, torch.full_like(anchors.scales, 0.005))


def test_gaussians_bound_to_the_jaw_move_with_it(model):
    networks = networks_of(model, neural_per_anchor=0)
    opened = torch.zeros(1, 5, 3)
    opened[0, 2, 0] = 0.4
    # The attributes are the same for both poses, so only the posing is compared.
    anchors = networks.anchors(make_pose(model, torch.zeros(1, 5, 3)))
    from backend.avatar.anchors import as_splats

    pose = make_pose(model, opened)
    splats = as_splats(pose, anchors, torch.zeros(1, len(model.template), 3))
    jaw = int(model.skinning[:, 2].argmax())
    assert model.skinning[jaw, 2] > 0.95
    jaw_rotation = Head(model)(torch.zeros(1, 3), torch.zeros(1, 4), opened).joint_transforms[0, 2, :3, :3]
    expected = pose.posed[0, jaw] + jaw_rotation @ anchors.offsets[0, jaw]
    torch.testing.assert_close(splats.means[0, jaw], expected, atol=5e-4, rtol=0)


def test_encoding_resolves_two_millimetres_and_is_smooth_at_float32():
    points = torch.tensor([[[0.05, 0.02, 0.08]]])
    normals = torch.tensor([[[0.0, 0, 1]]])
    code = encode_surface(points, normals, 6, 2)
    assert code.shape[-1] == encoded_size(6, 2)
    moved = encode_surface(points + torch.tensor([0.00235, 0, 0]), normals, 6, 2)
    assert (moved - code).abs().max() > 0.9
    rounding = encode_surface(points * (1 + 2e-7), normals, 6, 2)
    assert (rounding - code).abs().max() < 1e-3
    assert EXTENT == 0.15


def test_hand_over_makes_the_unets_reproduce_the_free_gaussians(model):
    networks = networks_of(model)
    free = VertexBoundGaussians(networks.base_scale * 2, networks.settings.sh_degree)
    with torch.no_grad():
        free.geometry.add_(0.5 * torch.randn_like(free.geometry))
        free.appearance.add_(0.5 * torch.randn_like(free.appearance))
    rotations = 0.1 * torch.randn(6, 5, 3, generator=torch.Generator().manual_seed(1))
    pose = make_pose(model, rotations)
    assert distil_into_networks(free, networks, pose) < 1e-3
    expected, got = free(pose), networks(pose)
    anchors = len(model.template)
    assert (got[0].colors[:, :anchors] - expected[0].colors).abs().mean() < 0.02
    assert (got[0].means[:, :anchors] - expected[0].means).norm(dim=-1).mean() < 5e-4


def test_settings_of_a_newer_program_are_refused_by_name():
    values = dataclasses.asdict(AvatarSettings()) | {"hologram": 1}
    with pytest.raises(Exception, match="hologram"):
        AvatarSettings.from_dict(values)


def test_networks_have_the_sizes_of_the_paper_unless_settings_say_otherwise() -> None:
    """Section 4.1 and the released code; the degree of the spherical harmonics is this project's own."""
    assert AvatarSettings().to_dict() == {
        "size": 256,
        "position_bands": 6,
        "normal_bands": 2,
        "filters": 16,
        "latent_size": 8,
        "chebyshev_order": 6,
        "sh_degree": 1,
        "neural_per_anchor": 2,
        "feature_size": 16,
        "neural_width": 32,
        "enhancer_width": 0,
        "blendshapes": 0,
        "lips_turn": 1,
    }


def test_lips_of_avatars_from_before_they_turned_do_not() -> None:
    values = AvatarSettings().to_dict()
    del values["lips_turn"]
    assert AvatarSettings.from_dict(values).lips_turn == 0
    assert AvatarSettings.from_dict(AvatarSettings().to_dict()).lips_turn == 1


def test_the_heads_rotation_is_root_times_neck_in_float32() -> None:
    random = np.random.default_rng(0)
    rotations = random.normal(0, 0.5, (4, 5, 3))
    expected = Rotation.from_rotvec(rotations[:, 0]) * Rotation.from_rotvec(rotations[:, 1])
    found = head_rotation(rotations)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.as_matrix(), atol=1e-6)
