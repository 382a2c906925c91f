"""How much a landmark counts for the rotation of the head: little where the detector cannot see it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from backend.correspondence.landmark_sets import JAW_LINE
from backend.head.formats import load_head
from backend.tracking.model.camera import Camera
from backend.tracking.model.landmark_surface import landmark_surface
from backend.tracking.terms.landmarks import JAW_LINE_FADE, JAW_LINE_WEIGHT, LandmarkTerm, view_weights

NOSE, LEFT_EAR, JAW = range(3)
DIRECTIONS = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, -0.8, 0.6]])
"""Of a point at the nose's tip, one at the person's left ear, one on the outline of the jaw."""


def weights_at(yaw: float) -> dict[int, float]:
    """Of a head straight ahead of the camera, turned about its vertical axis by radians."""
    rotation = np.diag((1.0, -1, -1)) @ Rotation.from_euler("Y", yaw).as_matrix()
    state = SimpleNamespace(
        rotation=torch.as_tensor(rotation, dtype=torch.float32)[None], translation=torch.tensor([[0.0, 0, 0.8]])
    )
    return dict(enumerate(view_weights(DIRECTIONS, torch.tensor([JAW]), state)[0].tolist()))


def test_the_jaw_line_counts_half_from_the_front_and_fades_as_the_head_turns() -> None:
    assert weights_at(0.0)[JAW] == pytest.approx(JAW_LINE_WEIGHT)
    for sign in (-1, 1):
        assert weights_at(sign * JAW_LINE_FADE)[JAW] == pytest.approx(JAW_LINE_WEIGHT / np.e, rel=1e-3)
        assert weights_at(sign * 0.8)[JAW] < 1e-3


def test_points_on_the_side_that_is_turned_away_hardly_count() -> None:
    assert weights_at(0.0)[NOSE] == 1 and weights_at(0.7)[NOSE] == 1
    towards, away = sorted((weights_at(0.9)[LEFT_EAR], weights_at(-0.9)[LEFT_EAR]), reverse=True)
    assert towards == 1 and away == pytest.approx(0.03)
    # At a grazing angle the weight lies between: the cosine of the angle to the camera, 0.02 to 0.32 mapped to 0 to 1.
    assert sorted((weights_at(0.1)[LEFT_EAR], weights_at(-0.1)[LEFT_EAR])) == pytest.approx(
        [0.03, (np.sin(0.1) - 0.02) / 0.3]
    )


def test_every_point_of_the_jaw_line_that_is_used_is_known_as_one() -> None:
    """Also the one in the first row."""
    surface = landmark_surface(load_head())
    chosen = surface.of_points(np.flatnonzero(np.isin(surface.points, (*JAW_LINE[3:7], 473))))
    landmarks = np.random.default_rng(0).uniform(0, 256, (2, 478, 3)).astype(np.float32)
    landmarks[1] = np.nan
    term = LandmarkTerm.from_detections(
        landmarks, chosen, Camera(torch.tensor(400.0), torch.zeros(2), torch.zeros(3), 1.0)
    )
    assert sorted(chosen.points[term.jaw_line.numpy()]) == sorted(JAW_LINE[3:7])
    assert 0 in term.jaw_line and len(term.across[0]) == 4
    assert term.face_found.tolist() == [True, False] and term.weights.dtype == torch.float32
