"""The contact term: eyelids and lips that are closed in the image are closed on the mesh, and lips do not cross.

The landmarks alone are too coarse for this (`observe.gap_closure`). The mesh's gap, along the head's up axis and in
metres, is pulled to contact where it is closed in the image. An eyelid that is closed farther than contact is left
alone, since nobody can see that; lips that cross are pushed apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...head.rotations import axis_angle_to_matrix
from ..model.camera import Camera
from ..model.frame_state import FrameState, joint_rotation_vectors
from ..model.landmark_surface import LandmarkSurface, pose_points
from ..model.parameter_layout import POSE_COUNT
from ..model.prediction import joint_derivatives
from ..observe.gap_closure import GAP_PAIRS, LIPS
from .term import NormalEquations, Term

CONTACT_SIGMA = 0.0003
"""Metres: standard deviation of a gap that is closed in the image."""
_LID_OVERLAP = 0.001
"""Metres by which a closed upper eyelid's points lie below the lower eyelid's."""


@dataclass(frozen=True)
class ContactTerm(Term):
    """F frames of three gaps: left eyelids, right eyelids, lips."""

    per_frame: ClassVar = ("closed",)

    surface: LandmarkSurface
    """The person's surface at the L points of the gaps' landmark pairs."""
    gap_weights: Tensor
    """(3, L): a gap is the weighted sum of the points' heights."""
    contact_gap: Tensor
    """(3,) metres of gap on the mesh at contact. For lips it is the resting mouth's, because the points lie beside the
    edges."""
    closed: Tensor
    """(F, 3) in [0, 1]: how surely the gap is closed (`observe.gap_closure`)."""

    @classmethod
    def from_closure(cls, surface: LandmarkSurface, closed: np.ndarray) -> ContactTerm | None:
        """From the person's surface and closure confidences (F, 3). None for a head that lacks a landmark of the
        pairs.
        """
        points, index = np.unique(np.concatenate(GAP_PAIRS), return_inverse=True)
        row = {point: position for position, point in enumerate(surface.points) if surface.valid[position]}
        if not all(point in row for point in points):
            return None
        pairs = surface.of_points(np.array([row[point] for point in points]))
        device = pairs.joint_index.device
        gap_weights = torch.zeros(len(GAP_PAIRS), len(points), device=device)
        ends_of_parts = np.cumsum([len(part) for part in GAP_PAIRS])[:-1]
        for part, ends in enumerate(np.split(index.reshape(-1, 2), ends_of_parts)):
            gap_weights[part, ends[:, 0]] = 1 / len(ends)
            gap_weights[part, ends[:, 1]] = -1 / len(ends)
        contact_gap = gap_weights @ pairs.position.rest[:, 1]
        contact_gap[:LIPS] = -_LID_OVERLAP
        return cls(pairs, gap_weights, contact_gap, torch.as_tensor(closed, dtype=torch.float32, device=device))

    def openings(self, state: FrameState) -> Tensor:
        """(F, 3) metres: 0 at contact, negative beyond."""
        matrices = axis_angle_to_matrix(joint_rotation_vectors(state.face))
        points = pose_points(self.surface, state.expression, matrices)[0]
        return points[..., 1] @ self.gap_weights.T - self.contact_gap

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        opening = self.openings(state)
        return 0.5 * (self._weight(opening) * (opening / CONTACT_SIGMA) ** 2).sum(1)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        opening, slopes = self._opening_derivatives(state)
        weight = self._weight(opening)
        energy = 0.5 * (weight * (opening / CONTACT_SIGMA) ** 2).sum(1)
        gradient = torch.einsum("fk,fkp->fp", weight * opening / CONTACT_SIGMA**2, slopes)
        rows = slopes * (weight.sqrt() / CONTACT_SIGMA).unsqueeze(-1)
        hessian = rows.transpose(1, 2) @ rows
        # The head pose opens nothing.
        return NormalEquations(energy, pad(gradient, (0, POSE_COUNT)), pad(hessian, (0, POSE_COUNT, 0, POSE_COUNT)))

    def _weight(self, opening: Tensor) -> Tensor:
        """(F, 3): an opening counts where the gap is closed in the image; a crossing counts for lips, and always."""
        crossing = torch.zeros_like(opening)
        crossing[:, LIPS] = 1
        return torch.where(opening > 0, self.closed, crossing)

    def _opening_derivatives(self, state: FrameState) -> tuple[Tensor, Tensor]:
        """Openings (F, 3) and their derivatives (F, 3, E + 7)."""
        vectors = joint_rotation_vectors(state.face)
        matrices = axis_angle_to_matrix(vectors)
        points, levers, rotations = pose_points(self.surface, state.expression, matrices)
        expression = self.surface.position.expression[:, 1] + torch.einsum(
            "flc,lce->fle", rotations[:, :, 1], self.surface.lever.expression
        )
        joints = joint_derivatives(self.surface, vectors, matrices, levers, rotations)[:, :, 1]
        openings = points[..., 1] @ self.gap_weights.T - self.contact_gap
        return openings, self.gap_weights @ torch.cat((expression, joints), -1)
