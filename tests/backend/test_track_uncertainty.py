"""How the uncertainty of identity and focal length adds to the uncertainty of each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from backend.footage.detector import SCORE_NAMES
from backend.head.formats import load_head
from backend.tracking.model.camera import Camera
from backend.tracking.model.frame_state import Bounds, FrameState
from backend.tracking.model.landmark_surface import landmark_surface
from backend.tracking.model.prediction import predict
from backend.tracking.solve.uncertainty import POSE_FACTOR, standard_deviations
from backend.tracking.terms.landmarks import LandmarkTerm
from backend.tracking.terms.priors import PriorTerm, priors_for

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, FOCAL = 3, 1000.0
POSITION = 0.02, -0.01, 0.8
"""Metres from the camera."""


@dataclass(frozen=True)
class Posed:
    landmarks: LandmarkTerm
    prior: PriorTerm
    bounds: Bounds
    state: FrameState
    camera: Camera

    def standard_deviations(self, own: torch.Tensor, shared: torch.Tensor) -> torch.Tensor:
        return standard_deviations(own, shared, self.landmarks, self.prior, self.bounds, self.state, self.camera)


@pytest.fixture(scope="module")
def posed() -> Posed:
    """A neutral face seen by a detector without errors."""
    model = load_head()
    surface = landmark_surface(model)
    person = surface.of_person(torch.zeros(surface.position.shape.shape[-1]))
    state = FrameState(
        torch.zeros(FRAMES, surface.position.expression.shape[-1] + 7),
        torch.diag(torch.tensor((1.0, -1, -1))).expand(FRAMES, 3, 3),
        torch.tensor(POSITION).expand(FRAMES, 3),
    )
    intrinsics = np.array(((FOCAL, 0, 256), (0, FOCAL, 256), (0, 0, 1)))
    camera = Camera.from_intrinsics(intrinsics, 512, surface.position.rest.mean(0))
    pixels = predict(person, state, camera).numpy()
    points = np.concatenate((pixels, np.zeros_like(pixels[..., :1])), -1)
    priors = priors_for(model, np.zeros((FRAMES, len(SCORE_NAMES))), SCORE_NAMES, 25.0)
    landmarks = LandmarkTerm.from_detections(points.astype(np.float32), surface, camera)
    landmarks = landmarks.of_person(torch.zeros(surface.position.shape.shape[-1]))
    return Posed(landmarks, priors.term(), priors.bounds(), state, camera)


def test_an_unknown_focal_length_leaves_the_distance_unknown(posed: Posed) -> None:
    size = posed.landmarks.surface.position.shape.shape[-1]
    covariance = torch.zeros(size + 1, size + 1).double()
    covariance[-1, -1] = 0.1**2
    own = torch.zeros(FRAMES, posed.state.layout.size)
    sigma = posed.standard_deviations(own, covariance)[:, posed.state.layout.pose] / POSE_FACTOR
    # The head is as large in the image and 10 % farther away, and its rotation hardly follows.
    torch.testing.assert_close(sigma[:, -1], torch.full((FRAMES,), 0.1 * POSITION[2]), rtol=0.15, atol=0.0)
    assert float(sigma[:, :3].max()) < np.radians(2)


def test_a_certain_person_and_focal_length_add_nothing(posed: Posed) -> None:
    size = posed.landmarks.surface.position.shape.shape[-1]
    own = torch.full((FRAMES, posed.state.layout.size), 0.2**2)
    sigma = posed.standard_deviations(own, torch.zeros(size + 1, size + 1))
    fixed = posed.bounds.fixed
    assert torch.equal(sigma[:, fixed], torch.zeros_like(sigma[:, fixed])) and bool(fixed.any())
    torch.testing.assert_close(sigma[:, posed.state.layout.pose], torch.full((FRAMES, 6), 0.2 * POSE_FACTOR))


def test_the_smoothness_prior_follows_the_frame_rate_within_the_rates_that_faces_are_filmed_at() -> None:
    """A second difference shrinks with the square of the rate, its precision grows with the fourth power."""
    model = load_head()
    scores = np.zeros((2, len(SCORE_NAMES)))
    at = {
        rate: priors_for(model, scores, SCORE_NAMES, rate).acceleration_precision for rate in (5, 12, 30, 60, 120, 480)
    }
    for rate, ratio in ((60, 2.0), (120, 4.0), (480, 4.0), (12, 0.4), (5, 0.4)):
        np.testing.assert_allclose(at[rate], at[30] * ratio**4, rtol=1e-5)
