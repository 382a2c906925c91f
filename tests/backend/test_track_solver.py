"""The tracker's parts against slow, plain versions of themselves."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from backend.head.formats import load_head
from backend.head.forward import Head, landmarks
from backend.head.jaw import jaw_rotations_of_shapes
from backend.head.model import HeadModel
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.after.neck import NECK_LIMIT, split_neck
from backend.tracking.model.camera import Camera, estimate_head_pose
from backend.tracking.model.frame_state import Bounds, FrameState, joint_rotation_vectors
from backend.tracking.model.landmark_surface import LandmarkSurface, LinearBasis, landmark_surface, pose_points
from backend.tracking.model.prediction import linearise, predict
from backend.tracking.solve.block_systems import solve_in_time, solve_shared, variances_in_time
from backend.tracking.terms.temporal_coupling import TemporalCoupling

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> HeadModel:
    """The open head with correctives on every joint, so that their part in a derivative is seen."""
    head = load_head()
    random = np.random.default_rng(0)
    return replace(head, pose_basis=random.normal(0, 0.002, head.pose_basis.shape).astype(np.float32))


def _double(surface: LandmarkSurface) -> LandmarkSurface:
    def linear(part: LinearBasis) -> LinearBasis:
        return LinearBasis(*(getattr(part, field.name).double() for field in fields(LinearBasis)))

    return LandmarkSurface(
        surface.points,
        surface.valid,
        linear(surface.position),
        linear(surface.lever),
        surface.joint_index,
        surface.skin_weight.double(),
    )


def _state(model: HeadModel, frames: int) -> FrameState:
    generator = torch.Generator().manual_seed(1)
    size = model.expression_basis.shape[2]
    face = torch.cat(
        (torch.rand(frames, size, generator=generator) * 0.5, torch.randn(frames, 7, generator=generator) * 0.2), 1
    ).double()
    rotation = axis_angle_to_matrix(torch.randn(frames, 3, generator=generator).double())
    return FrameState(face, rotation, torch.tensor((0.01, -0.02, 0.6)).double().expand(frames, 3))


def _camera() -> Camera:
    focal, centre, pivot = (torch.tensor(value).double() for value in (1000.0, (256.0, 250.0), (0.0, 0.01, 0.05)))
    return Camera(focal, centre, pivot, 1.0)


def _wide_bounds(state: FrameState) -> Bounds:
    bound = torch.full((state.face.shape[1],), 9.0).double()
    return Bounds(-bound, bound, torch.zeros(state.layout.size, dtype=torch.bool))


def test_points_posed_alone_lie_where_the_whole_mesh_has_them(model: HeadModel) -> None:
    surface, state = _double(landmark_surface(model)), _state(model, 3)
    identity = torch.randn(surface.position.shape.shape[2], generator=torch.Generator().manual_seed(2)).double()
    vectors = joint_rotation_vectors(state.face)
    points = pose_points(surface.of_person(identity), state.face[:, :-7], axis_angle_to_matrix(vectors))[0]
    rotations = torch.cat((torch.zeros(3, 2, 3).double(), vectors), 1)
    whole = landmarks(Head(model, dtype=torch.float64)(identity[None], state.face[:, :-7], rotations).vertices, model)
    distance = (points - whole).norm(dim=-1)[:, torch.as_tensor(surface.valid)]
    # A point that two joints move at once is given to the stronger one, which may cost a tenth of a millimetre.
    assert distance.quantile(0.95) < 1e-5
    assert distance.max() < 3e-4


def test_jacobians_agree_with_finite_differences(model: HeadModel) -> None:
    surface, state = _double(landmark_surface(model)), _state(model, 2)
    identity = torch.randn(surface.position.shape.shape[2], generator=torch.Generator().manual_seed(3)).double() * 0.5
    camera = _camera()
    bounds = _wide_bounds(state)

    def pixels(at: FrameState, who: torch.Tensor = identity, through: Camera = camera) -> torch.Tensor:
        return predict(surface.of_person(who), at, through)

    found = linearise(surface.of_person(identity), state, camera, shared=True)
    for index in range(found.jacobian.shape[-1]):
        step = torch.zeros(2, found.jacobian.shape[-1]).double()
        step[:, index] = 1e-5
        slope = (pixels(state.updated(step, bounds)) - pixels(state.updated(-step, bounds))) / 2e-5
        assert torch.allclose(found.jacobian[..., index], slope, atol=1e-4 * float(slope.abs().max()) + 1e-6), index
    for index in (0, 7, len(identity) - 1):
        step = torch.zeros_like(identity)
        step[index] = 1e-5
        slope = (pixels(state, identity + step) - pixels(state, identity - step)) / 2e-5
        assert torch.allclose(found.shared.jacobian[..., index], slope, atol=1e-4 * float(slope.abs().max()))
    longer, shorter = (torch.tensor(np.exp(step)) for step in (1e-5, -1e-5))
    slope = (
        pixels(state.dolly_zoomed(longer), through=camera.with_focal(camera.focal * longer))
        - pixels(state.dolly_zoomed(shorter), through=camera.with_focal(camera.focal * shorter))
    ) / 2e-5
    assert torch.allclose(found.shared.jacobian[..., -1], slope, atol=1e-3)


def test_a_dolly_zoom_keeps_the_heads_middle_where_it_is_and_as_large(model: HeadModel) -> None:
    surface, state = _double(landmark_surface(model)), _state(model, 2)
    person = surface.of_person(torch.zeros(surface.position.shape.shape[2]).double())
    camera, ratio = _camera(), torch.tensor(1.5).double()
    before, after = (
        predict(person, at, through)
        for at, through in (
            (state, camera),
            (state.dolly_zoomed(ratio), camera.with_focal(camera.focal * ratio)),
        )
    )
    assert torch.equal(state.dolly_zoomed(ratio).translation, state.translation * torch.tensor((1, 1, 1.5)).double())
    spread = [part - part.mean(1, keepdim=True) for part in (before, after)]
    assert abs(float(spread[1].norm() / spread[0].norm()) - 1) < 0.03 and float((after - before).abs().max()) > 1


def test_a_point_that_lies_elsewhere_on_the_head_moves_as_the_skin_there_does(model: HeadModel) -> None:
    rows = np.array((1, 17, 151, 199, 205, 61, 473))
    corners = model.faces[model.landmark_faces[rows]]
    regressor = model.joint_regressor.copy()
    regressor[:, corners] = 0  # so that a piece of skin moves and no joint with it
    still, state = replace(model, joint_regressor=regressor), _state(model, 2)
    camera = _camera()
    identity = torch.zeros(model.shape_basis.shape[2]).double()

    def made(template: np.ndarray) -> LandmarkSurface:
        surface = landmark_surface(replace(still, template=template)).of_points(rows)
        return _double(surface).of_person(identity)

    surface = made(model.template)
    jaw = surface.joint_index == 0
    assert 0 < int(jaw.sum()) < len(rows) and (surface.joint_index == 1).any()
    assert float(surface.skin_weight[jaw].min()) < 0.95
    found = linearise(surface, state, camera, shared=True).shared.by_position
    for point, axis in ((point, axis) for point in range(len(rows)) for axis in range(3)):
        ends = []
        for sign in (1, -1):
            template = model.template.copy()
            template[corners[point], axis] += sign * 5e-4
            ends.append(predict(made(template), state, camera)[:, point])
        slope = (ends[0] - ends[1]) / 1e-3
        assert torch.allclose(found[:, point, :, axis], slope, atol=0.005 * float(found[:, point].abs().max())), (
            point,
            axis,
        )


def _blocks(frames: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    root = torch.randn(frames, size, size + 3, generator=generator).double()
    return root @ root.transpose(1, 2), torch.randn(frames, size, generator=generator).double()


def test_shared_parameters_are_solved_as_by_one_dense_matrix() -> None:
    generator = torch.Generator().manual_seed(5)
    frames, size, common = 4, 3, 2
    rows = torch.randn(frames, 9, size, generator=generator).double()
    shared_rows = torch.randn(frames, 9, common, generator=generator).double()
    errors = torch.randn(frames, 9, generator=generator).double()
    dense = torch.zeros(frames * 9, frames * size + common).double()
    for frame in range(frames):
        dense[frame * 9 : frame * 9 + 9, frame * size : frame * size + size] = rows[frame]
        dense[frame * 9 : frame * 9 + 9, frames * size :] = shared_rows[frame]
    expected = -torch.linalg.lstsq(dense, errors.flatten()[:, None]).solution.squeeze(1)
    step, shared_step, _ = solve_shared(
        rows.transpose(1, 2) @ rows,
        rows.transpose(1, 2) @ shared_rows,
        torch.einsum("frk,frl->kl", shared_rows, shared_rows),
        torch.einsum("frp,fr->fp", rows, errors),
        torch.einsum("frk,fr->k", shared_rows, errors),
    )
    assert torch.allclose(torch.cat((step.flatten(), shared_step)), expected, atol=1e-9)


def test_frames_coupled_in_time_are_solved_as_by_one_dense_matrix() -> None:
    frames, size = 9, 3
    hessian, gradient = _blocks(frames, size)
    linked = torch.ones(frames - 1, dtype=torch.bool)
    linked[4] = False
    coupling = TemporalCoupling(torch.tensor((1.0, 30.0, 0.2)).double(), linked)
    free = torch.ones(frames, size, dtype=torch.bool)
    free[0], free[5, 1] = False, False

    bend = torch.zeros((frames - 2), frames).double()
    for middle in range(1, frames - 1):
        if linked[middle - 1] and linked[middle]:
            bend[middle - 1, middle - 1 : middle + 2] = torch.tensor((1.0, -2.0, 1.0)).double()
    dense = torch.block_diag(*hessian) + torch.kron(bend.T @ bend, torch.diag(coupling.precision))
    keep = free.flatten()
    expected = torch.zeros(frames * size).double()
    expected[keep] = torch.linalg.solve(dense[keep][:, keep], -gradient.flatten()[keep])
    step = solve_in_time(hessian, gradient, coupling, free, tolerance=1e-10, max_iterations=200)
    assert torch.allclose(step.flatten(), expected, atol=1e-7)
    assert torch.all(step[~free] == 0)


def test_the_initial_head_pose_comes_from_the_detectors_depth_alone(model: HeadModel) -> None:
    points = landmark_surface(model).position.rest[None].expand(5, -1, -1)
    random = np.random.default_rng(6)
    turn = np.diag((1.0, -1.0, -1.0)) @ Rotation.from_rotvec(random.normal(0, 0.4, (5, 3))).as_matrix()
    rotation = torch.as_tensor(turn, dtype=torch.float32)
    translation = torch.tensor((0.02, -0.01, 0.7)).expand(5, 3)
    in_camera = points @ rotation.transpose(1, 2) + translation[:, None]
    camera = Camera(torch.tensor(1200.0), torch.tensor((250.0, 260.0)), torch.zeros(3), 1.0)
    depth = (in_camera[..., 2:] - 0.7) * camera.focal / 0.7
    detected = torch.cat((camera.project(in_camera), depth), -1)
    found, position = estimate_head_pose(points, detected, torch.ones(detected.shape[:2]), camera)
    angle = Rotation.from_matrix((found @ rotation.transpose(1, 2)).numpy()).magnitude()
    assert np.rad2deg(angle).max() < 5
    assert (position - translation).norm(dim=1).max() < 0.05


def test_the_skull_stays_where_it_was_when_the_neck_takes_its_share(model: HeadModel) -> None:
    random = np.random.default_rng(7)
    frames = 40
    turns = np.deg2rad(
        np.stack((10 * np.sin(np.arange(frames) / 4), 70 * np.sin(np.arange(frames) / 7), np.zeros(frames)), 1)
    )
    rotation = np.diag((1.0, -1.0, -1.0)) @ Rotation.from_rotvec(turns).as_matrix()
    translation = random.normal(0, 0.02, (frames, 3)) + (0, 0, 0.7)
    still = _plain(model)
    joint = still.joint_regressor[1].astype(np.float64) @ still.template
    neck, head_to_camera = split_neck(rotation, translation, joint, np.ones(frames, bool), 32, 30.0)

    rotations = torch.zeros(frames, 5, 3)
    rotations[:, 1] = torch.as_tensor(neck, dtype=torch.float32)
    rotations[:, 2, 0] = 0.2
    nobody = torch.zeros(1, still.shape_basis.shape[2])
    head = Head(still)
    expression = torch.zeros(frames, still.expression_basis.shape[2])
    posed = head(nobody, expression, rotations).vertices.numpy()
    straight = head.canonical(nobody, expression, rotations).numpy()
    skull = still.skinning[:, 0] == 0
    before = straight[:, skull] @ rotation.transpose(0, 2, 1) + translation[:, None]
    after = posed[:, skull] @ head_to_camera[:, :3, :3].transpose(0, 2, 1) + head_to_camera[:, None, :3, 3]
    assert np.abs(before - after).max() < 2e-6
    assert np.linalg.norm(neck, axis=1).max() <= NECK_LIMIT + 1e-6
    assert np.linalg.norm(neck, axis=1).max() > np.deg2rad(20)
    body = Rotation.from_matrix(head_to_camera[:, :3, :3])
    head_turns = Rotation.from_matrix(rotation[1:] @ rotation[:-1].transpose(0, 2, 1)).magnitude()
    assert np.median((body[1:] * body[:-1].inv()).magnitude()) < 0.7 * np.median(head_turns)


def _plain(model: HeadModel) -> HeadModel:
    return replace(model, pose_basis=np.zeros_like(model.pose_basis))


def test_a_fully_open_jaw_is_an_opening_rotation(model: HeadModel) -> None:
    opening = jaw_rotations_of_shapes(model)["jawOpen"]
    assert np.deg2rad(12) < opening[0] < np.deg2rad(40)
    assert np.abs(opening[1:]).max() < np.deg2rad(3)
    assert jaw_rotations_of_shapes(model)["jawLeft"][1] > 0 > jaw_rotations_of_shapes(model)["jawRight"][1]


@pytest.mark.parametrize("frames", (1, 2, 5, 8))
def test_variances_agree_with_one_dense_inverse(frames: int) -> None:
    hessian, _ = _blocks(frames, 3)
    linked = torch.ones(frames - 1, dtype=torch.bool)
    linked[3:4] = False
    coupling = TemporalCoupling(torch.tensor((0.5, 40.0, 3.0)).double(), linked)
    dense = torch.block_diag(*hessian)
    for column in range(len(dense) if frames > 1 else 0):
        unit = torch.zeros(frames, 3).double()
        unit.view(-1)[column] = 1
        dense[:, column] += coupling.times(unit).flatten()
    expected = torch.linalg.inv(dense).diagonal().reshape(frames, 3)
    assert torch.allclose(variances_in_time(hessian, coupling).double(), expected, rtol=1e-5)


def test_a_body_does_not_turn_towards_what_comes_after_a_cut() -> None:
    turns = Rotation.from_rotvec(np.deg2rad([[0, 10, 0]] * 30 + [[0, -30, 0]] * 30)).as_matrix()
    still = np.zeros((60, 3))
    neck, placed = split_neck(turns, still, np.zeros(3), np.ones(60, bool), 60, 30.0, shot_starts=(30,))
    assert np.allclose(np.diff(neck[:30], axis=0), 0, atol=1e-6)
    assert np.allclose(np.diff(placed[30:], axis=0), 0, atol=1e-6)
    glued, _ = split_neck(turns, still, np.zeros(3), np.ones(60, bool), 60, 30.0)
    assert np.abs(np.diff(glued[:30], axis=0)).max() > 1e-4
