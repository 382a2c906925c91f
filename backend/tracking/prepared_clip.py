"""A capture prepared for the solver: its camera and the terms that need no image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import EffigyError
from ..footage.detector import SCORE_NAMES
from ..formats.capture import Capture
from ..head.model import HeadModel
from .model.camera import Camera
from .model.frame_state import FrameState
from .model.landmark_surface import LandmarkSurface
from .observe.shot_cuts import find_cuts
from .solve.initial_state import initial_state
from .solve.person import ClipFrames
from .terms.landmarks import LandmarkTerm
from .terms.priors import priors_for
from .terms.smoothness import SmoothnessTerm


class PreparedClip:
    """A capture prepared for the solver: its camera, landmark term, prior term and smoothness term."""

    def __init__(
        self,
        capture: Capture,
        model: HeadModel,
        surface: LandmarkSurface,
        person_frames: int,
        focal_known: bool = False,
    ) -> None:
        """`surface` holds the solved landmarks where the detector reports them, of the mean person. `person_frames` is
        the number of frames that the person is fitted to; `focal_known`: the capture's intrinsics are no guess.
        """
        self.capture, self.focal_known = capture, focal_known
        self.camera = Camera.from_intrinsics(capture.intrinsics, capture.size, surface.face_centre())
        device = self.camera.pivot.device
        self.detected = capture.landmarks.astype(np.float32, copy=False)
        found = np.asarray(np.isfinite(self.detected).all((1, 2)))
        self.reliable = found & (capture.flags == 0)
        training = np.flatnonzero(self.reliable[: capture.training_count])
        if len(training) == 0:
            training = np.flatnonzero(found[: capture.training_count])
        if len(training) == 0:
            raise EffigyError(
                f"No training frame of {capture.folder} shows a face: there is nothing to track. Choose other footage."
            )
        self.training = training
        spread = np.linspace(0, len(training) - 1, min(person_frames, len(training))).round().astype(int)
        self.chosen = torch.as_tensor(training[spread])
        """Indices of the frames that the person is fitted to."""
        priors = priors_for(model, capture.scores, SCORE_NAMES, float(capture.fps))
        self.prior, self.bounds = priors.term(device), priors.bounds(device)
        self.landmarks = LandmarkTerm.from_detections(self.detected, surface, self.camera)
        self.cuts = find_cuts(capture)
        linked = np.diff(capture.frame_numbers) == 1
        linked[self.cuts - 1] = False
        self.shot_starts = np.flatnonzero(~linked) + 1
        """First frames of all shots but the first: after a cut, and after missing frames."""
        acceleration = torch.as_tensor(priors.acceleration_precision, device=device)
        self.smoothness = SmoothnessTerm(
            acceleration, torch.as_tensor(linked, device=device), self.landmarks.face_found
        )

    def initial_state(self, identity: Tensor, camera: Camera, frames: Tensor) -> FrameState:
        """The initial parameters of the frames with the indices `frames`, for the person with this identity (S,)."""
        landmarks = self.landmarks.of_person(identity)
        detected = torch.as_tensor(self.detected[:, landmarks.surface.points], device=camera.pivot.device)
        return initial_state(landmarks, self.prior, detected, camera, frames, self.capture.training_count)

    def person_frames(self) -> ClipFrames:
        """The frames that the person is fitted to, with initial parameters for the mean person."""
        mean_person = torch.zeros(
            self.landmarks.generic_surface.position.shape.shape[-1], device=self.camera.pivot.device
        )
        state = self.initial_state(mean_person, self.camera, self.chosen)
        return ClipFrames(
            self.landmarks[self.chosen],
            self.prior[self.chosen],
            self.bounds,
            self.camera,
            state,
            focal_known=self.focal_known,
        )
