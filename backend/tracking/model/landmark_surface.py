"""The head model restricted to a few surface points: what the tracker poses instead of 4,500 vertices.

A surface point lies at barycentric coordinates b of a triangle. Without the head pose, linear blend skinning of that
triangle's corners (FLAME eq. 2-3) is, for a point that at most one of jaw, left eye and right eye moves,

    x = p + (R_m - I) d,      p = sum_i b_i v_i,      d = sum_i b_i w_im (v_i - J_m)

where m is the joint that moves the point, w_im are the corners' skinning weights and J_m is the joint's position. The
position p and the lever d are both linear in identity, expression and pose correctives. So their bases at L points are
all that the tracker needs, and the result is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...correspondence.landmark_sets import FACE_OVAL
from ...head.model import EYE_L, EYE_R, JAW, HeadModel

MOVING_JOINTS = (JAW, EYE_L, EYE_R)
"""The joints of the head model that move single points against the rest of the head."""
NO_JOINT = len(MOVING_JOINTS)
_SKULL_DEPTH = 0.09
"""Metres from the centre of the face's landmarks back to the centre of the skull."""


@dataclass(frozen=True)
class LinearBasis:
    """L points (or vectors) that are linear in identity, expression and pose correctives."""

    rest: Tensor
    """(L, 3) metres."""
    shape: Tensor
    """(L, 3, S)"""
    expression: Tensor
    """(L, 3, E)"""
    corrective: Tensor
    """(L, 3, 27): by the flattened R - I of jaw, left eye and right eye."""

    def at_identity(self, identity: Tensor) -> LinearBasis:
        """The same points for one person (S,). The identity basis stays, since derivatives by identity need it."""
        return replace(self, rest=self.rest + self.shape @ identity)

    def at_rows(self, index: Tensor) -> LinearBasis:
        return LinearBasis(self.rest[index], self.shape[index], self.expression[index], self.corrective[index])


@dataclass(frozen=True)
class LandmarkSurface:
    """L surface points of a head model: all 478 landmarks, or a choice of points."""

    points: np.ndarray
    """(L,) index of each point among the detector's landmarks."""
    valid: np.ndarray
    """(L,) bool: the point has a position on this head model. Rows of other points are zero."""
    position: LinearBasis
    """p of the module's formula."""
    lever: LinearBasis
    """d of the module's formula; zero where no joint moves the point."""
    joint_index: Tensor
    """(L,) int64 into MOVING_JOINTS; NO_JOINT where none moves the point."""
    skin_weight: Tensor
    """(L,) in [0, 1]: the point's skinning weight for that joint."""

    def of_person(self, identity: Tensor) -> LandmarkSurface:
        """The surface of the person with this identity (S,)."""
        return replace(self, position=self.position.at_identity(identity), lever=self.lever.at_identity(identity))

    def of_points(self, rows: np.ndarray) -> LandmarkSurface:
        """The surface restricted to some rows."""
        index = torch.as_tensor(rows, device=self.joint_index.device)
        return LandmarkSurface(
            self.points[rows],
            self.valid[rows],
            self.position.at_rows(index),
            self.lever.at_rows(index),
            self.joint_index[index],
            self.skin_weight[index],
        )

    def face_centre(self) -> Tensor:
        """(3,) metres: the mean of the points inside the face oval, on the mean face."""
        inner = self.valid & ~np.isin(self.points, FACE_OVAL)
        return self.position.rest[torch.as_tensor(inner, device=self.joint_index.device)].mean(0)

    def view_directions(self) -> Tensor:
        """(L, 3) unit vectors from the centre of the skull to the points, a smooth stand-in for their normals."""
        depth = torch.tensor((0.0, 0.0, _SKULL_DEPTH), device=self.joint_index.device)
        return torch.nn.functional.normalize(self.position.rest - (self.face_centre() - depth), dim=-1)


def landmark_surface(model: HeadModel, device: torch.device | str = "cpu") -> LandmarkSurface:
    """The surface at the detector's 478 landmarks."""
    return surface_at(model, model.landmark_faces, model.landmark_barycentric, device)


def surface_at(
    model: HeadModel, faces: np.ndarray, barycentric: np.ndarray, device: torch.device | str = "cpu"
) -> LandmarkSurface:
    """The surface at points on triangles `faces` (L,), -1 for a point without a position, at `barycentric` (L, 3)."""
    valid = faces >= 0
    corners = model.faces[np.where(valid, faces, 0)]
    weights = np.where(valid[:, None], barycentric, 0).astype(np.float64)

    joint_weights = np.einsum(
        "li,lij->lj", weights, model.skinning[corners][..., list(MOVING_JOINTS)].astype(np.float64)
    )
    joint_index = np.where(joint_weights.max(1) > 1e-4, joint_weights.argmax(1), NO_JOINT)
    joint = np.array((*MOVING_JOINTS, 0))[joint_index]
    corner_weights = model.skinning[corners, joint[:, None]] * (joint_index != NO_JOINT)[:, None] * weights
    skin_weight = corner_weights.sum(1)

    regressor = model.joint_regressor.astype(np.float64)[joint]

    def linear(weights_of_corners: np.ndarray, weight_of_joint: np.ndarray | None) -> LinearBasis:
        def at_points(basis: np.ndarray, moves_joints: bool) -> Tensor:
            flat = basis.reshape(len(basis), -1).astype(np.float64)
            values = np.einsum("li,lik->lk", weights_of_corners, flat[corners])
            if weight_of_joint is not None and moves_joints:
                values = values - weight_of_joint[:, None] * (regressor @ flat)
            return torch.as_tensor(values.reshape(len(faces), *basis.shape[1:]), dtype=torch.float32, device=device)

        # Joints depend on identity alone (backend.head.forward), so expression and correctives move no joint.
        return LinearBasis(
            at_points(model.template, True),
            at_points(model.shape_basis, True),
            at_points(model.expression_basis, False),
            at_points(model.pose_basis[:, :, 9:], False),
        )

    return LandmarkSurface(
        np.arange(len(faces)),
        valid,
        linear(weights, None),
        linear(corner_weights, skin_weight),
        torch.as_tensor(joint_index, device=device),
        torch.as_tensor(skin_weight, dtype=torch.float32, device=device),
    )


def point_rotations(surface: LandmarkSurface, matrices: Tensor) -> Tensor:
    """Rotations (F, 3, 3, 3) of jaw and eyes -> R - I at every point (F, L, 3, 3), zero where no joint moves it."""
    differences = matrices - torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    zero = torch.zeros_like(differences[:, :1])
    return torch.cat((differences, zero), 1)[:, surface.joint_index]


def pose_points(surface: LandmarkSurface, expression: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pose the points of a person's surface (`of_person`), without the head pose.

    Args:
        surface: The person's surface, with L points.
        expression: (F, E).
        matrices: (F, 3, 3, 3) rotations of jaw, left eye and right eye.

    Returns:
        Points (F, L, 3) in head space, their levers d (F, L, 3) and their R - I (F, L, 3, 3).

    """
    frames = len(expression)
    features = (matrices - torch.eye(3, dtype=matrices.dtype, device=matrices.device)).reshape(frames, 27)

    def points(basis: LinearBasis) -> Tensor:
        offsets = expression @ basis.expression.flatten(0, 1).T + features @ basis.corrective.flatten(0, 1).T
        return basis.rest + offsets.unflatten(1, (-1, 3))

    levers = points(surface.lever)
    rotations = point_rotations(surface, matrices)
    return points(surface.position) + (rotations * levers.unsqueeze(-2)).sum(-1), levers, rotations
