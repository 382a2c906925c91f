"""The silhouette term: hair is found, and a wrong pose is corrected by the silhouette alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import FrameState
from backend.tracking.model.hair_shell import HairShell, make_hair_shell
from backend.tracking.model.landmark_surface import landmark_surface
from backend.tracking.observe.silhouette_detection import RAYS, Silhouette, detect_silhouette
from backend.tracking.solve.fit_hair_shell import fit_hair_shell
from backend.tracking.terms.silhouette import SILHOUETTE_SIGMA, SilhouetteTerm
from backend.tracking.terms.term import ROBUST_SCALE
from bench.known_clip import HAIR, SyntheticClip, make_clip

FRAMES = 24


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def clip(model: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> SyntheticClip:
    return make_clip(model, tmp_path_factory.mktemp("outline") / "known.capture", frames=FRAMES)


@pytest.fixture(scope="module")
def camera(clip: SyntheticClip, model: HeadModel) -> Camera:
    surface = landmark_surface(model)
    pivot = surface.position.rest[surface.valid].mean(0)
    return Camera.from_intrinsics(clip.capture.intrinsics, clip.capture.size, pivot)


def matched(silhouette: Silhouette, shell: HairShell, camera: Camera, state: FrameState) -> SilhouetteTerm:
    return SilhouetteTerm.unmatched(silhouette, shell).reweighted(state, camera, ROBUST_SCALE)


@pytest.fixture(scope="module")
def truth(clip: SyntheticClip, camera: Camera) -> FrameState:
    face = np.concatenate(
        (clip.expression, clip.rotations[:, 2], clip.rotations[:, 3, :2], clip.rotations[:, 4, :2]), 1
    )
    rotation = torch.as_tensor(clip.head_to_camera[:, :3, :3])
    return FrameState(
        torch.as_tensor(face), rotation, torch.as_tensor(clip.head_to_camera[:, :3, 3]) + rotation @ camera.pivot
    )


@pytest.fixture(scope="module")
def silhouette(clip: SyntheticClip, truth: FrameState, camera: Camera) -> Silhouette:
    return detect_silhouette(clip.capture, truth, camera, torch.ones(FRAMES, dtype=torch.bool))


@pytest.fixture(scope="module")
def shell(
    clip: SyntheticClip, model: HeadModel, silhouette: Silhouette, truth: FrameState, camera: Camera
) -> HairShell:
    return fit_hair_shell(make_hair_shell(model, clip.identity, camera.pivot), silhouette, truth, camera)


def test_the_shell_takes_on_the_hair_and_leaves_the_face(
    shell: HairShell, silhouette: Silhouette, truth: FrameState, camera: Camera
) -> None:
    seen = silhouette.weights > 0
    assert seen.sum(1).min() > 40
    residual = matched(silhouette, shell, camera, truth).residual(truth, camera)[0]
    error = residual[seen].abs() * SILHOUETTE_SIGMA
    assert float(error.median()) < 1.5
    own = shell.interpolation @ shell.offsets
    crown = shell.skin[:, 1] > shell.skin[:, 1].max() - 0.03
    assert abs(float(own[crown].median()) - HAIR) < 0.004
    front = shell.skin[:, 2] > 0
    assert float(own[front & (shell.skin[:, 1] < 0.02)].abs().median()) < 0.002


def test_a_head_that_nods_wrongly_is_brought_back_by_its_outline(
    shell: HairShell, silhouette: Silhouette, truth: FrameState, camera: Camera
) -> None:
    nod = axis_angle_to_matrix(torch.tensor((np.deg2rad(2.0), 0.0, 0.0), dtype=torch.float32))
    state = replace(truth, rotation=nod @ truth.rotation)
    for _ in range(6):
        equations = matched(silhouette, shell, camera, state).normal_equations(state, camera)
        pose = state.layout.pose
        gradient, hessian = equations.gradient[:, pose], equations.hessian[:, pose, pose]
        # A round head's outline hardly tells how far it is turned to the side, nor where it is; landmarks do.
        turn = torch.zeros(FRAMES, 3)
        turn[:, 0] = -gradient[:, 0] / hessian[:, 0, 0]
        state = replace(state, rotation=axis_angle_to_matrix(turn) @ state.rotation)
    angle = torch.arccos(
        ((state.rotation @ truth.rotation.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(1) - 1).clamp(-2, 2) / 2
    )
    assert float(torch.rad2deg(angle).median()) < 0.7


def test_the_gradient_is_that_of_the_energy(
    shell: HairShell, silhouette: Silhouette, truth: FrameState, camera: Camera
) -> None:
    state = replace(truth, rotation=axis_angle_to_matrix(torch.tensor((0.01, -0.02, 0.01))) @ truth.rotation)
    term = matched(silhouette, shell, camera, state)
    gradient = term.normal_equations(state, camera).gradient[:, state.layout.pose]
    for axis in range(6):
        step = torch.zeros(6)
        step[axis] = 1e-3

        def moved(sign: int, step: torch.Tensor = step) -> torch.Tensor:
            rotation = axis_angle_to_matrix(sign * step[:3]) @ state.rotation
            return term.energy(FrameState(state.face, rotation, state.translation + sign * step[3:]), camera)

        slope = (moved(1) - moved(-1)) / 2e-3
        assert torch.allclose(slope, gradient[:, axis], rtol=0.03, atol=0.02 * float(gradient[:, axis].abs().max()))


def test_frames_without_a_face_have_no_outline(clip: SyntheticClip, truth: FrameState, camera: Camera) -> None:
    face_found = torch.ones(FRAMES, dtype=torch.bool)
    face_found[3] = False
    found = detect_silhouette(clip.capture, truth, camera, face_found)
    assert not found.weights[3].any()
    assert found.weights[4].any()


def test_every_ray_meets_the_place_that_reaches_farthest_near_it(
    shell: HairShell, silhouette: Silhouette, truth: FrameState, camera: Camera
) -> None:
    found = matched(silhouette, shell, camera, truth)
    for frame in (0, FRAMES // 2):
        in_camera = shell.points @ truth.rotation[frame].T + truth.translation[frame]
        arms = camera.project(in_camera) - silhouette.centres[frame]
        for ray in torch.nonzero(silhouette.weights[frame] > 0).flatten()[::9]:
            angle = 2 * np.pi / RAYS * ray
            along = torch.stack((angle.cos(), angle.sin()))
            near = torch.nn.functional.normalize(arms, dim=1) @ along > np.cos(0.09)
            reach = arms @ silhouette.normals[frame, ray]
            assert abs(float(reach[found.rim_index[frame, ray]] - reach[near].max())) < 1e-3
