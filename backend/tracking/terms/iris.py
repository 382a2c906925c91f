"""The irises as evidence for the gaze, which the detector's iris points hardly give.

The detector follows an iris sideways, but not up and down: it takes the middle of the lids. `limbus` measures the
irises in the pictures; here their place on the rig is known, and the difference is a term of the solver's energy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...correspondence.landmark_render import IRIS_RADIUS
from ...correspondence.landmark_sets import LEFT_IRIS, RIGHT_IRIS
from ...head.model import EYE_L, EYE_R, HeadModel
from ..model.frame_state import FrameState, predict
from ..model.landmark_surface import LandmarkSurface, Linear
from .landmarks import Evidence, robust

HALVING = 3.0
"""Standard deviations at which a measured iris is believed by half."""


@dataclass(frozen=True)
class Irises:
    """F frames, left eye and right eye."""

    surface: LandmarkSurface
    """Of the person: the middles of both limbuses."""
    centres: Tensor
    """(F, 2, 2) pixels"""
    roots: Tensor
    """(F, 2, 2, 2): U with U'U the precision of a centre, zero where none was found."""
    found: Tensor
    """(F, 2) in [0, 1]: by how much the measurement stands in for the detector's iris points."""

    def __getitem__(self, index: slice | Tensor) -> Irises:
        return replace(self, centres=self.centres[index], roots=self.roots[index], found=self.found[index])

    def instead_of_points(self, evidence: Evidence, points: np.ndarray) -> Evidence:
        """Evidence of these of the detector's points without its iris points where the irises were found."""
        weights = evidence.weights.clone()
        for eye, iris in enumerate((LEFT_IRIS, RIGHT_IRIS)):
            weights[:, torch.as_tensor(np.isin(points, iris), device=weights.device)] *= (
                1 - self.found[:, eye : eye + 1]
            )
        return replace(evidence, weights=weights)

    def energy(self, state: FrameState, evidence: Evidence) -> Tensor:
        """(F,), robust as the landmarks' is."""
        shown = predict(self.surface, state, evidence.focal, evidence.centre, evidence.pivot)
        return robust(self._error(shown.pixels), torch.ones_like(self.found), HALVING)[0]

    def normal(self, state: FrameState, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Gauss-Newton's gradient (F, P) and Hessian (F, P, P)."""
        shown = predict(self.surface, state, evidence.focal, evidence.centre, evidence.pivot, jacobian=True)
        error = self._error(shown.pixels)
        weight = robust(error, torch.ones_like(self.found), HALVING)[1].sqrt()
        rows = ((self.roots @ shown.jacobian) * weight[..., None, None]).flatten(1, 2)
        error = (error * weight.unsqueeze(-1)).flatten(1)
        return (rows.transpose(1, 2) @ error.unsqueeze(-1)).squeeze(-1), rows.transpose(1, 2) @ rows

    def _error(self, pixels: Tensor) -> Tensor:
        return (self.roots @ (pixels - self.centres).unsqueeze(-1)).squeeze(-1)


def limbus_surface(model: HeadModel, device: torch.device | str = "cpu") -> LandmarkSurface | None:
    """Of each eye the middle of the limbus and its rim to the left and above, six points in all; None without eyeballs.

    The rim lies where the eyeball, looking ahead along +Z, is as wide as an iris. It goes with the front of the
    eyeball.
    """
    joints = model.joint_regressor.astype(np.float64)
    rest, shape, arm, arm_shape = [], [], [], []
    for joint in (EYE_L, EYE_R):
        centre = joints[joint] @ model.template
        basis = np.tensordot(joints[joint], model.shape_basis.astype(np.float64), 1)
        ball = np.flatnonzero(model.skinning[:, joint] > 0.5)
        offset = model.template[ball] - centre
        rim = np.hypot(offset[:, 0], offset[:, 1]) / IRIS_RADIUS
        front = offset[:, 2] > 0
        around = front & (rim > 0.75) & (rim < 1.25)
        if around.sum() < 4:
            return None
        moved = model.shape_basis[ball[front & (rim < 1.25)]].mean(0)
        for x, y in ((0, 0), (1, 0), (0, 1)):
            place = np.array((x * IRIS_RADIUS, y * IRIS_RADIUS, offset[around, 2].mean()))
            rest.append(centre + place)
            arm.append(place)
            shape.append(moved)
            arm_shape.append(moved - basis)
    count = len(rest)
    expression, corrective = torch.zeros(count, 3, model.expression_basis.shape[2]), torch.zeros(count, 3, 27)

    def linear(places: list[np.ndarray], bases: list[np.ndarray]) -> Linear:
        parts = (torch.as_tensor(np.stack(values), dtype=torch.float32) for values in (places, bases))
        return Linear(*(part.to(device) for part in (*parts, expression, corrective)))

    return LandmarkSurface(
        np.arange(count),
        np.ones(count, bool),
        linear(rest, shape),
        linear(arm, arm_shape),
        torch.tensor((1, 1, 1, 2, 2, 2), device=device),
        torch.ones(count, device=device),
    )
