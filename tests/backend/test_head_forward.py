"""Posing a head: against a slow reference, gradients, and the two-step way over the canonical head."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from head_models import ball_head
from scipy.spatial.transform import Rotation

from backend.head.forward import Head, landmark_valid, landmarks, vertex_normals
from backend.head.model import JAW, NECK, PARENTS, ROOT, HeadModel
from backend.head.rotations import (
    axis_angle_to_matrix,
    axis_angle_to_quaternion,
    matrix_to_axis_angle,
    matrix_to_quaternion,
    quaternion_multiply,
    quaternion_to_matrix,
)


def full_head(seed: int = 1, mixed: bool = True) -> HeadModel:
    """A ball head with pose correctives and random weights; unmixed, no vertex is shared by root and jaw or eyes."""
    random = np.random.default_rng(seed)
    model = ball_head(rings=6, sectors=7)
    weights = random.dirichlet(np.full(5, 0.5), len(model.template)).astype(np.float32)
    if not mixed:
        weights[::2, 2:] = 0
        weights[1::2, ROOT] = 0
        weights /= weights.sum(1, keepdims=True)
    correctives = random.normal(0, 0.002, model.pose_basis.shape).astype(np.float32)
    return replace(model, skinning=weights, pose_basis=correctives)


def parameters(model: HeadModel, batch: int, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = (model.shape_basis.shape[2], model.expression_basis.shape[2], 15)
    identity, expression, rotations = (
        torch.randn(batch, size, generator=random, dtype=torch.float64) for size in sizes
    )
    return identity, expression, 0.5 * rotations.view(batch, 5, 3)


def slow_pose(
    model: HeadModel, identity: np.ndarray, expression: np.ndarray, rotations: np.ndarray
) -> tuple[np.ndarray, ...]:
    """One frame by FLAME's equations, vertex by vertex, with 4 x 4 matrices and inverse bind matrices."""
    turns = [Rotation.from_rotvec(rotation).as_matrix() for rotation in rotations]
    shaped = model.template.astype(np.float64) + model.shape_basis.astype(np.float64) @ identity
    joints = model.joint_regressor.astype(np.float64) @ shaped
    feature = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    rest = shaped + model.expression_basis @ expression + model.pose_basis @ feature
    world, bind = [], []
    for joint, parent in enumerate(PARENTS):
        local, inverse = np.eye(4), np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0)
        inverse[:3, 3] = -joints[joint]
        world.append(world[parent] @ local if parent >= 0 else local)
        bind.append(inverse)
    relative = np.stack([matrix @ inverse for matrix, inverse in zip(world, bind, strict=True)])
    posed = np.empty_like(rest)
    for vertex, point in enumerate(rest):
        posed[vertex] = sum(model.skinning[vertex, j] * (relative[j] @ (*point, 1))[:3] for j in range(5))
    return posed, np.stack([matrix[:3, 3] for matrix in world]), relative


def test_posing_equals_flames_equations_written_slowly() -> None:
    model = full_head()
    identity, expression, rotations = parameters(model, 3)
    posed = Head(model)(identity.float(), expression.float(), rotations.float())
    for frame in range(3):
        one = (part[frame].numpy() for part in (identity, expression, rotations))
        vertices, joints, transforms = slow_pose(model, *one)
        np.testing.assert_allclose(posed.vertices[frame], vertices, atol=2e-6)
        np.testing.assert_allclose(posed.joints[frame], joints, atol=2e-6)
        np.testing.assert_allclose(posed.joint_transforms[frame], transforms, atol=2e-6)


def test_one_identity_serves_all_frames() -> None:
    model = full_head()
    head = Head(model, dtype=torch.float64)
    identity, expression, rotations = parameters(model, 4)
    alone = head(identity[:1], expression, rotations)
    together = head(identity[:1].expand(4, -1), expression, rotations)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(head(head.shaped(identity[:1]), expression, rotations).vertices, together.vertices)


def test_gradients_of_posing_reach_identity_expression_and_rotations() -> None:
    model = full_head()
    head = Head(model, dtype=torch.float64)
    inputs = [part.requires_grad_() for part in parameters(model, 2)]
    assert torch.autograd.gradcheck(lambda *x: head(*x).vertices, inputs, fast_mode=True)
    # The rest pose is where all fitting starts, and where an angle has no direction.
    at_rest = (inputs[0], inputs[1], torch.zeros(2, 5, 3, dtype=torch.float64, requires_grad=True))
    assert torch.autograd.gradcheck(lambda *x: head(*x).vertices, at_rest, fast_mode=True)


def test_canonical_head_does_not_know_neck_and_root() -> None:
    model = full_head()
    head = Head(model, dtype=torch.float64)
    identity, expression, rotations = parameters(model, 2)
    turned = rotations.clone()
    turned[:, :JAW] = torch.randn(2, 2, 3, dtype=torch.float64)
    assert torch.equal(head.canonical(identity, expression, rotations), head.canonical(identity, expression, turned))
    still = rotations.clone()
    still[:, :JAW] = 0
    canonical = head.canonical(identity, expression, rotations)
    torch.testing.assert_close(canonical, head(identity, expression, still).vertices)


def test_neck_transforms_carry_the_canonical_head_to_the_posed_one() -> None:
    model = full_head(mixed=False)
    head = Head(model, dtype=torch.float64)
    identity, expression, rotations = parameters(model, 3)
    shaped = head.shaped(identity[:1])
    # Weights are float32 and sum to one within 1e-7.
    carried = carried_over(head, shaped, expression, rotations)
    torch.testing.assert_close(carried, head(shaped, expression, rotations).vertices, atol=1e-7, rtol=0)


def carried_over(head: Head, identity: torch.Tensor, expression: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    motion = head.neck_transforms(identity, rotations)
    canonical = head.canonical(identity, expression, rotations)
    return (motion.linear @ canonical.unsqueeze(-1)).squeeze(-1) + motion.translation


def test_neck_transforms_where_root_and_jaw_share_a_vertex_depart_by_no_more_than_stated() -> None:
    model = full_head()
    identity, expression, rotations = parameters(model, 3)
    no_correctives = Head(replace(model, pose_basis=np.zeros_like(model.pose_basis)), dtype=torch.float64)
    neutral = torch.zeros_like(expression)
    torch.testing.assert_close(
        carried_over(no_correctives, identity, neutral, rotations),
        no_correctives(identity, neutral, rotations).vertices,
        atol=1e-7,
        rtol=0,
    )

    skinned = no_correctives(identity, expression, rotations).vertices
    departure = carried_over(no_correctives, identity, expression, rotations) - skinned
    matrices = axis_angle_to_matrix(rotations)
    still = matrices.clone()
    still[:, :JAW] = torch.eye(3)
    offsets = torch.einsum("nce,be->bnc", torch.from_numpy(model.expression_basis).double(), expression)
    blend = torch.einsum("nj,bjxy->bnxy", no_correctives.skinning, torch.eye(3) - still)
    size = torch.linalg.matrix_norm(torch.eye(3) - matrices[:, NECK], ord=2)[:, None]
    bound = no_correctives.skinning[:, ROOT] * size * (blend @ offsets.unsqueeze(-1)).squeeze(-1).norm(dim=-1)
    assert (departure.norm(dim=-1) <= bound + 1e-7).all() and departure.abs().max() > 1e-6


def test_neck_quaternion_is_the_rotation_nearest_to_the_blend() -> None:
    model = full_head()
    head = Head(model, dtype=torch.float64)
    identity, _, rotations = parameters(model, 4)
    motion = head.neck_transforms(identity, 2 * rotations)
    u, _, vt = torch.linalg.svd(motion.linear)
    torch.testing.assert_close(quaternion_to_matrix(motion.quaternion), u @ vt, atol=1e-9, rtol=0)
    at_rest = torch.zeros(1, 5, 3, dtype=torch.float64, requires_grad=True)
    head.neck_transforms(identity[:1], at_rest).quaternion.square().sum().backward()
    assert at_rest.grad.isfinite().all()


def test_gradients_of_the_neck_motion() -> None:
    model = full_head()
    head = Head(model, dtype=torch.float64)
    identity, _, rotations = parameters(model, 1)
    rotations.requires_grad_()
    for part in ("linear", "translation", "quaternion"):
        assert torch.autograd.gradcheck(
            lambda r, part=part: getattr(head.neck_transforms(identity, r), part)[:, ::9], rotations, fast_mode=True
        )


def test_buffers_of_the_head_stay_out_of_checkpoints() -> None:
    assert not Head(ball_head()).state_dict()


def test_normals_are_weighted_by_area_and_point_outside() -> None:
    model = ball_head()
    vertices = torch.from_numpy(model.template).double()[None]
    faces = torch.from_numpy(model.faces)
    normals = vertex_normals(vertices, faces)
    expected = np.zeros_like(model.template, np.float64)
    points = model.template.astype(np.float64)
    for a, b, c in model.faces:
        cross = np.cross(points[b] - points[a], points[c] - points[a])
        area, direction = np.linalg.norm(cross) / 2, cross / np.linalg.norm(cross)
        for corner in (a, b, c):
            expected[corner] += area * direction
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(normals[0], expected, atol=1e-9)
    # Polar caps are open, so their outermost rings lean; all others of a sphere point along the radius.
    assert (normals[0, 18:-18] * torch.nn.functional.normalize(vertices[0, 18:-18], dim=-1)).sum(-1).min() > 0.97
    small = full_head()
    patch = torch.from_numpy(small.template).double()[None].requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: vertex_normals(v, torch.from_numpy(small.faces))[:, 10:20], patch, eps=1e-7, fast_mode=True
    )


def test_landmarks_ride_on_their_triangles_and_missing_ones_are_masked() -> None:
    model = ball_head()
    faces, barycentric = model.landmark_faces.copy(), model.landmark_barycentric.copy()
    faces[[0, 17, 477]], barycentric[[0, 17, 477]] = (3, 40, 99), ((0.2, 0.3, 0.5), (1, 0, 0), (0, 0.5, 0.5))
    model = replace(model, landmark_faces=faces, landmark_barycentric=barycentric)
    vertices = torch.stack((torch.from_numpy(model.template), 2 * torch.from_numpy(model.template))).requires_grad_()
    points = landmarks(vertices, model)
    assert points.shape == (2, 478, 3) and landmark_valid(model).sum() == 3
    corners = model.template[model.faces[3]]
    expected = 2 * (0.2 * corners[0] + 0.3 * corners[1] + 0.5 * corners[2])
    np.testing.assert_allclose(points[1, 0].detach(), expected, rtol=1e-5)
    points.sum().backward()
    touched = np.unique(model.faces[[3, 40, 99]])
    assert set(vertices.grad[0].abs().sum(1).nonzero().ravel().tolist()) <= set(touched.tolist())


def angles() -> torch.Tensor:
    random = np.random.default_rng(5)
    axes = random.normal(size=(8, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    sizes = (0, 1e-9, 1e-4, 0.0099, 0.0101, 1.0, np.pi - 1e-6, 3.0)
    return torch.from_numpy(axes * np.array(sizes)[:, None])


def test_rotations_agree_with_scipy_from_no_turn_to_half_a_turn() -> None:
    vectors = angles()
    reference = Rotation.from_rotvec(vectors.numpy())
    matrices = axis_angle_to_matrix(vectors)
    np.testing.assert_allclose(matrices, reference.as_matrix(), atol=1e-13)
    quaternions = matrix_to_quaternion(matrices)
    np.testing.assert_allclose(quaternions, np.roll(reference.as_quat(canonical=True), 1, axis=1), atol=1e-12)
    np.testing.assert_allclose(axis_angle_to_quaternion(vectors), quaternions, atol=1e-12)
    np.testing.assert_allclose(matrix_to_axis_angle(matrices), vectors, atol=1e-9)
    np.testing.assert_allclose(quaternion_to_matrix(3 * quaternions), matrices, atol=1e-12)
    product = quaternion_multiply(quaternions[:4], quaternions[4:])
    np.testing.assert_allclose(quaternion_to_matrix(product), matrices[:4] @ matrices[4:], atol=1e-12)
    # Half turns about the axes, where the real part is exactly zero.
    half = torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]]))
    np.testing.assert_allclose(quaternion_to_matrix(matrix_to_quaternion(half)), half, atol=1e-6)


@pytest.mark.parametrize(
    "convert", [axis_angle_to_matrix, axis_angle_to_quaternion, lambda v: matrix_to_axis_angle(axis_angle_to_matrix(v))]
)
def test_rotation_gradients_are_right_at_zero_and_on_both_sides_of_the_series(convert) -> None:
    vectors = angles()[[0, 2, 3, 4, 5, 7]].requires_grad_()
    assert torch.autograd.gradcheck(convert, vectors)
