"""The head's outline as evidence: hair is found, and a pose that is wrong is brought back by it alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.head.formats import load_head
from backend.head.model import HeadModel
from backend.head.rotations import axis_angle_to_matrix
from backend.tracking.model.camera import project
from backend.tracking.model.frame_state import FrameState
from backend.tracking.model.landmark_surface import landmark_surface
from backend.tracking.terms.landmarks import Evidence, gather_evidence
from backend.tracking.terms.silhouette import (
    OUTLINE_SIGMA,
    RAYS,
    Outline,
    Shell,
    fit_shell,
    make_shell,
    match,
    see_outline,
)
from bench.known_clip import HAIR, SyntheticClip, make_clip

FRAMES = 24


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return load_head()


@pytest.fixture(scope="module")
def clip(model: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> SyntheticClip:
    return make_clip(model, tmp_path_factory.mktemp("outline") / "known.capture", frames=FRAMES)


@pytest.fixture(scope="module")
def evidence(clip: SyntheticClip, model: HeadModel) -> Evidence:
    surface = landmark_surface(model)
    pivot = surface.anchor.rest[surface.valid].mean(0)
    return gather_evidence(clip.capture.landmarks, clip.capture.intrinsics, clip.capture.size, surface, pivot)


@pytest.fixture(scope="module")
def truth(clip: SyntheticClip, evidence: Evidence) -> FrameState:
    face = np.concatenate(
        (clip.expression, clip.rotations[:, 2], clip.rotations[:, 3, :2], clip.rotations[:, 4, :2]), 1
    )
    rotation = torch.as_tensor(clip.head_to_camera[:, :3, :3])
    return FrameState(
        torch.as_tensor(face), rotation, torch.as_tensor(clip.head_to_camera[:, :3, 3]) + rotation @ evidence.pivot
    )


@pytest.fixture(scope="module")
def outline(clip: SyntheticClip, truth: FrameState, evidence: Evidence) -> Outline:
    return see_outline(clip.capture, truth, evidence)


@pytest.fixture(scope="module")
def shell(clip: SyntheticClip, model: HeadModel, outline: Outline, truth: FrameState, evidence: Evidence) -> Shell:
    return fit_shell(make_shell(model, clip.identity, evidence.pivot), outline, evidence, truth)


def test_the_shell_takes_on_the_hair_and_leaves_the_face(
    shell: Shell, outline: Outline, truth: FrameState, evidence: Evidence
) -> None:
    seen = outline.trust > 0
    assert seen.sum(1).min() > 40
    error = match(outline, shell, evidence, truth).residual(truth)[0][seen].abs() * OUTLINE_SIGMA
    assert float(error.median()) < 1.5
    own = shell.spread @ shell.offsets
    crown = shell.places[:, 1] > shell.places[:, 1].max() - 0.03
    assert abs(float(own[crown].median()) - HAIR) < 0.004
    front = shell.places[:, 2] > 0
    assert float(own[front & (shell.places[:, 1] < 0.02)].abs().median()) < 0.002


def test_a_head_that_nods_wrongly_is_brought_back_by_its_outline(
    shell: Shell, outline: Outline, truth: FrameState, evidence: Evidence
) -> None:
    nod = axis_angle_to_matrix(torch.tensor((np.deg2rad(2.0), 0.0, 0.0), dtype=torch.float32))
    state = replace(truth, rotation=nod @ truth.rotation)
    for _ in range(6):
        _, gradient, hessian = match(outline, shell, evidence, state).normal(state)
        # A round head's outline hardly tells how far it is turned to the side, nor where it is; landmarks do.
        turn = torch.zeros(FRAMES, 3)
        turn[:, 0] = -gradient[:, 0] / hessian[:, 0, 0]
        state = replace(state, rotation=axis_angle_to_matrix(turn) @ state.rotation)
    angle = torch.arccos(
        ((state.rotation @ truth.rotation.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(1) - 1).clamp(-2, 2) / 2
    )
    assert float(torch.rad2deg(angle).median()) < 0.7


def test_the_gradient_is_that_of_the_energy(
    shell: Shell, outline: Outline, truth: FrameState, evidence: Evidence
) -> None:
    state = replace(truth, rotation=axis_angle_to_matrix(torch.tensor((0.01, -0.02, 0.01))) @ truth.rotation)
    matched = match(outline, shell, evidence, state)
    _, gradient, _ = matched.normal(state)
    for axis in range(6):
        step = torch.zeros(6)
        step[axis] = 1e-3

        def moved(sign: int, step: torch.Tensor = step) -> torch.Tensor:
            return matched.energy(
                FrameState(
                    state.face,
                    axis_angle_to_matrix(sign * step[:3]) @ state.rotation,
                    state.translation + sign * step[3:],
                )
            )

        slope = (moved(1) - moved(-1)) / 2e-3
        assert torch.allclose(slope, gradient[:, axis], rtol=0.03, atol=0.02 * float(gradient[:, axis].abs().max()))


def test_frames_without_a_face_have_no_outline(clip: SyntheticClip, truth: FrameState, evidence: Evidence) -> None:
    weights = evidence.weights.clone()
    weights[3] = 0
    found = see_outline(clip.capture, truth, replace(evidence, weights=weights))
    assert not found.trust[3].any()
    assert found.trust[4].any()


def test_every_ray_meets_the_place_that_reaches_farthest_near_it(
    shell: Shell, outline: Outline, truth: FrameState, evidence: Evidence
) -> None:
    found = match(outline, shell, evidence, truth)
    for frame in (0, FRAMES // 2):
        in_camera = shell.points @ truth.rotation[frame].T + truth.translation[frame]
        arms = project(in_camera, evidence.focal, evidence.centre) - outline.centres[frame]
        for ray in torch.nonzero(outline.trust[frame] > 0).flatten()[::9]:
            angle = 2 * np.pi / RAYS * ray
            along = torch.stack((angle.cos(), angle.sin()))
            near = torch.nn.functional.normalize(arms, dim=1) @ along > np.cos(0.09)
            reach = arms @ outline.normals[frame, ray]
            assert abs(float(reach[found.place[frame, ray]] - reach[near].max())) < 1e-3
