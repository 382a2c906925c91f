"""The iris term: the eyes' rotation from the irises as measured in the images.

The detector's iris landmarks follow an iris sideways, but hardly up and down: they stay in the middle between the
eyelids. `observe.iris_detection` measures the irises in the images instead; this term compares the measured centres
with the centres of the rig's irises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ...correspondence.landmark_sets import LEFT_IRIS, RIGHT_IRIS
from ..model.camera import Camera
from ..model.frame_state import FrameState
from ..model.landmark_surface import LandmarkSurface
from ..model.prediction import linearise, predict
from ..observe.iris_detection import DetectedIrises
from .landmarks import LandmarkTerm
from .term import ROBUST_SCALE, NormalEquations, Term, robust

_CENTRES = np.array((0, 3))
"""The rows of `model.limbus_surface` that are the centres of the left and the right iris."""


@dataclass(frozen=True)
class IrisTerm(Term):
    """The left and the right iris in F frames."""

    per_frame: ClassVar = ("centres", "roots", "found")

    surface: LandmarkSurface
    """The person's surface at the centres of both irises."""
    centres: Tensor
    """(F, 2, 2) pixels, as measured."""
    roots: Tensor
    """(F, 2, 2, 2): U with U'U the precision of a centre; zero where none was measured."""
    found: Tensor
    """(F, 2) in [0, 1]: the weight by which the measurement replaces the detector's iris landmarks."""

    @classmethod
    def from_detection(cls, limbus: LandmarkSurface, irises: DetectedIrises, device: torch.device) -> IrisTerm:
        """From measured irises and the person's `limbus_surface`."""
        tensors = (torch.as_tensor(value, dtype=torch.float32, device=device) for value in vars(irises).values())
        return cls(limbus.of_points(_CENTRES), *tensors)

    def replace_landmarks(self, landmarks: LandmarkTerm) -> LandmarkTerm:
        """The landmark term without the detector's iris landmarks where the irises were measured."""
        weights = landmarks.weights.clone()
        for eye, iris in enumerate((LEFT_IRIS, RIGHT_IRIS)):
            rows = torch.as_tensor(np.isin(landmarks.surface.points, iris), device=weights.device)
            weights[:, rows] *= 1 - self.found[:, eye : eye + 1]
        return replace(landmarks, weights=weights)

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        error = self._whitened(predict(self.surface, state, camera))
        return robust(error, torch.ones_like(self.found), ROBUST_SCALE)[0]

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        found = linearise(self.surface, state, camera)
        error = self._whitened(found.pixels)
        energy, weight = robust(error, torch.ones_like(self.found), ROBUST_SCALE)
        weight = weight.sqrt()
        rows = ((self.roots @ found.jacobian) * weight[..., None, None]).flatten(1, 2)
        return NormalEquations.of_rows(rows, (error * weight.unsqueeze(-1)).flatten(1), energy, None)

    def _whitened(self, pixels: Tensor) -> Tensor:
        """Errors (F, 2, 2) in standard deviations of projected centres (F, 2, 2) in pixels."""
        return (self.roots @ (pixels - self.centres).unsqueeze(-1)).squeeze(-1)
