"""What the uncertainty of the person and of the lens does to each frame's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.footage.detector import SCORE_NAMES
from backend.head.formats import load_head
from backend.tracking.model.frame_state import FrameState, predict
from backend.tracking.model.landmark_surface import LandmarkSurface, landmark_surface
from backend.tracking.solve.fit_frames import Beliefs
from backend.tracking.solve.uncertainty import POSE_ERRS, standard_deviations
from backend.tracking.terms.landmarks import Evidence, gather_evidence
from backend.tracking.terms.priors import priors_for

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, FOCAL = 3, 1000.0
PLACE = 0.02, -0.01, 0.8
"""Metres from the camera."""


@pytest.fixture(scope="module")
def placed() -> tuple[LandmarkSurface, Evidence, Beliefs, FrameState]:
    """A neutral face seen by a detector that errs nowhere."""
    model = load_head()
    surface = landmark_surface(model)
    pivot = surface.anchor.rest.mean(0)
    person = surface.of_person(torch.zeros(surface.anchor.shape.shape[-1]))
    state = FrameState(
        torch.zeros(FRAMES, surface.anchor.expression.shape[-1] + 7),
        torch.diag(torch.tensor((1.0, -1, -1))).expand(FRAMES, 3, 3),
        torch.tensor(PLACE).expand(FRAMES, 3),
    )
    intrinsics = np.array(((FOCAL, 0, 256), (0, FOCAL, 256), (0, 0, 1)))
    shown = predict(person, state, torch.tensor(FOCAL), torch.tensor((256.0, 256.0)), pivot).pixels.numpy()
    points = np.concatenate((shown, np.zeros_like(shown[..., :1])), -1)
    beliefs = Beliefs.of(priors_for(model, np.zeros((FRAMES, len(SCORE_NAMES))), SCORE_NAMES, 25.0))
    return person, gather_evidence(points.astype(np.float32), intrinsics, 512, surface, pivot), beliefs, state


def test_a_lens_that_is_not_known_leaves_the_distance_unknown(
    placed: tuple[LandmarkSurface, Evidence, Beliefs, FrameState],
) -> None:
    person, evidence, beliefs, state = placed
    size = person.anchor.shape.shape[-1]
    covariance = torch.zeros(size + 1, size + 1).double()
    covariance[-1, -1] = 0.1**2
    own = torch.zeros(FRAMES, state.face.shape[1] + 6)
    sigma = standard_deviations(own, covariance, person, evidence, beliefs, state)[:, -6:] / POSE_ERRS
    # As large in the picture, 10 % farther; and the head's turn hardly follows.
    torch.testing.assert_close(sigma[:, -1], torch.full((FRAMES,), 0.1 * PLACE[2]), rtol=0.15, atol=0.0)
    assert float(sigma[:, :3].max()) < np.radians(2)


def test_a_person_and_lens_that_are_certain_add_nothing(
    placed: tuple[LandmarkSurface, Evidence, Beliefs, FrameState],
) -> None:
    person, evidence, beliefs, state = placed
    size = person.anchor.shape.shape[-1]
    own = torch.full((FRAMES, state.face.shape[1] + 6), 0.2**2)
    sigma = standard_deviations(own, torch.zeros(size + 1, size + 1), person, evidence, beliefs, state)
    assert torch.equal(sigma[:, beliefs.fixed], torch.zeros_like(sigma[:, beliefs.fixed])) and bool(beliefs.fixed.any())
    torch.testing.assert_close(sigma[:, -6:], torch.full((FRAMES, 6), 0.2 * POSE_ERRS))
