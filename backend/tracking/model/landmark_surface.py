"""The head model seen at the detector's points only: what a tracker poses instead of 4,500 vertices.

A landmark lies at barycentric coordinates b of a triangle. With the head pose taken out, linear blend skinning of that
triangle's corners (FLAME eq. 2-3) is, for a point moved by at most one of jaw, left and right eye,

    x = a + (R_m - I) d,      a = sum_i b_i v_i,      d = sum_i b_i w_im (v_i - J_m)

where m is the joint that moves it, w_im the corners' skinning weights and J_m the joint. Both a and d are linear in
identity, expression and correctives, so their bases at L points are all that is ever needed, and this is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...head.model import EYE_L, EYE_R, JAW, HeadModel

MOVERS = (JAW, EYE_L, EYE_R)
_STILL = len(MOVERS)


@dataclass(frozen=True)
class Linear:
    """Points that are linear in identity, expression and correctives; L points."""

    rest: Tensor
    """(L, 3) metres."""
    shape: Tensor
    """(L, 3, S)"""
    expression: Tensor
    """(L, 3, E)"""
    corrective: Tensor
    """(L, 3, 27): on the flattened R - I of jaw, left eye, right eye."""

    def at_identity(self, identity: Tensor) -> Linear:
        """The same points of one person; the identity basis stays for whoever still wants derivatives."""
        return replace(self, rest=self.rest + self.shape @ identity)

    def at_rows(self, index: Tensor) -> Linear:
        return Linear(self.rest[index], self.shape[index], self.expression[index], self.corrective[index])


@dataclass(frozen=True)
class LandmarkSurface:
    """L points: all 478, or those that were chosen."""

    points: np.ndarray
    """(L,) which of the detector's points these are."""
    valid: np.ndarray
    """(L,) bool: has a place on this head. Rows without one are zero."""
    anchor: Linear
    """a of the module's formula."""
    arm: Linear
    """d of the module's formula, zero where nothing but the head moves the point."""
    mover: Tensor
    """(L,) int64 into MOVERS; 3 where nothing moves it."""
    share: Tensor
    """(L,) in [0, 1]: how far it goes along with its mover."""

    def of_person(self, identity: Tensor) -> LandmarkSurface:
        return replace(self, anchor=self.anchor.at_identity(identity), arm=self.arm.at_identity(identity))

    def of_points(self, rows: np.ndarray) -> LandmarkSurface:
        """Only some of the points."""
        index = torch.as_tensor(rows, device=self.mover.device)
        return LandmarkSurface(
            self.points[rows],
            self.valid[rows],
            self.anchor.at_rows(index),
            self.arm.at_rows(index),
            self.mover[index],
            self.share[index],
        )


def landmark_surface(model: HeadModel, device: torch.device | str = "cpu") -> LandmarkSurface:
    """The detector's 478 points."""
    return surface_at(model, model.landmark_faces, model.landmark_barycentric, device)


def surface_at(
    model: HeadModel, faces: np.ndarray, barycentric: np.ndarray, device: torch.device | str = "cpu"
) -> LandmarkSurface:
    """Points on chosen triangles (L,), -1 for one without a place, at barycentric coordinates (L, 3)."""
    valid = faces >= 0
    corners = model.faces[np.where(valid, faces, 0)]
    weights = np.where(valid[:, None], barycentric, 0).astype(np.float64)

    share = np.einsum("li,lij->lj", weights, model.skinning[corners][..., list(MOVERS)].astype(np.float64))
    mover = np.where(share.max(1) > 1e-4, share.argmax(1), _STILL)
    joint = np.array((*MOVERS, 0))[mover]
    corner_share = model.skinning[corners, joint[:, None]] * (mover != _STILL)[:, None] * weights
    total_share = corner_share.sum(1)

    regressor = model.joint_regressor.astype(np.float64)[joint]

    def linear(corner_weights: np.ndarray, pull: np.ndarray | None) -> Linear:
        def at_points(basis: np.ndarray, joints: bool) -> Tensor:
            flat = basis.reshape(len(basis), -1).astype(np.float64)
            values = np.einsum("li,lik->lk", corner_weights, flat[corners])
            if pull is not None and joints:
                values = values - pull[:, None] * (regressor @ flat)
            return torch.as_tensor(values.reshape(len(faces), *basis.shape[1:]), dtype=torch.float32, device=device)

        # Joints depend on identity alone (backend.head.forward), so expression and correctives pull no joint along.
        return Linear(
            at_points(model.template, True),
            at_points(model.shape_basis, True),
            at_points(model.expression_basis, False),
            at_points(model.pose_basis[:, :, 9:], False),
        )

    return LandmarkSurface(
        np.arange(len(faces)),
        valid,
        linear(weights, None),
        linear(corner_share, total_share),
        torch.as_tensor(mover, device=device),
        torch.as_tensor(total_share, dtype=torch.float32, device=device),
    )


def turns_of(surface: LandmarkSurface, matrices: Tensor) -> Tensor:
    """Rotations (F, 3, 3, 3) of jaw and eyes -> R - I at every point (F, L, 3, 3), zero where nothing moves it."""
    turns = matrices - torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    still = torch.zeros_like(turns[:, :1])
    return torch.cat((turns, still), 1)[:, surface.mover]


def pose_points(surface: LandmarkSurface, expression: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Expression (F, E) and rotations (F, 3, 3, 3) of jaw and eyes -> points, arms d (F, L, 3) and turns (F, L, 3, 3).

    The surface must be `of_person`. Points are in head space without the head pose.
    """
    frames = len(expression)
    features = (matrices - torch.eye(3, dtype=matrices.dtype, device=matrices.device)).reshape(frames, 27)

    def points(part: Linear) -> Tensor:
        offsets = expression @ part.expression.flatten(0, 1).T + features @ part.corrective.flatten(0, 1).T
        return part.rest + offsets.unflatten(1, (-1, 3))

    arms = points(surface.arm)
    turns = turns_of(surface, matrices)
    return points(surface.anchor) + (turns * arms.unsqueeze(-2)).sum(-1), arms, turns
