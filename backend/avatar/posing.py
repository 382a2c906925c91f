"""Poses of the head rig as input of the networks, with what is needed to transform their output to world space.

The input of the networks is the canonical mesh (expression, jaw and eyes; no root, no neck), and their output describes
each Gaussian relative to its anchor vertex in the rest pose. Posing moves the Gaussian with the vertex and rotates it
by the joints' rotations, blended with the skinning weights, or, of the lips, by the turn of the mesh around the vertex
(`surface_turns`). Therefore a rotated neck changes only positions and
orientations, the Gaussians of an eye rotate with the eye, and the lower teeth rotate with the jaw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..head.forward import Head, Shaped, vertex_normals
from ..head.model import EYE_L, EYE_R, JAW, NECK
from ..head.rotations import axis_angle_to_matrix, matrix_to_quaternion, quaternion_to_matrix
from .filmed import beyond_limits, nearest_filmed
from .surface_turns import SurfaceTurns


@dataclass(frozen=True)
class Pose:
    """B posed frames of one identity: the input of an avatar's networks."""

    canonical: Tensor
    """(B, N, 3) metres: the mesh without root and neck rotation."""
    normals: Tensor
    """(B, N, 3) of `canonical`."""
    conditions: Tensor
    """(B, E + 12): expression, jaw, both eyes (axis-angle, radians), and the view. The view is the unit vector from the
    camera to the eyes in the frame of the canonical head, plus (0, 0, 1). A tracked mesh fits some views better than
    others, because landmarks constrain depth least; the view lets the networks correct this misfit. It does not depend
    on the neck: a camera that rotates with the head has a constant view."""
    posed: Tensor
    """(B, N, 3) metres: the skinned mesh in head space."""
    rotations: Tensor
    """(B, N, 4) w, x, y, z: each anchor's rotation from the rest pose to the posed mesh."""
    directions: Tensor
    """(B, N, 3) unit vectors from the camera to each vertex, in the frame of the canonical head."""
    beyond: Tensor | None = None
    """(B, E + 9) in [0, 1]: how far each number exceeds the largest of the clip, 1 where it is clamped
    (`filmed.beyond_limits`). None where nothing is limited, as in training."""

    @property
    def jaw(self) -> Tensor:
        """(B, 3) of `conditions`."""
        return self.conditions[:, -12:-9]


def condition_size(expression_size: int) -> int:
    return expression_size + 12


def pose_rig(
    head: Head,
    shaped: Shaped,
    expression: Tensor,
    rotations: Tensor,
    world_to_camera: Tensor,
    limits: tuple[Tensor, Tensor | None] | None = None,
    turns: SurfaceTurns | None = None,
) -> Pose:
    """Expression (B, E), rotations (B, 5, 3) and cameras (B, 4, 4) -> `Pose`.

    `limits` (2, E + 9) and (E + 11, E + 9) are `expression_limits` and `filmed_faces` of a clip, near which expression,
    jaw and eyes are kept in the networks' input; see `backend.avatar.filmed`. Without the latter each number is clamped
    only. The posed mesh follows the request. The vertices of `turns` are rotated by the mesh around them, all others by
    joints.
    """
    face, beyond = limited_faces(expression, rotations, limits)
    clamped, joints = face.split((expression.shape[1], 9), 1)
    canonical = head.canonical(shaped, clamped, torch.cat((rotations[:, :JAW], joints.unflatten(1, (3, 3))), 1))
    full = head(shaped, expression, rotations)
    joint_turns = full.joint_transforms[:, :, :3, :3]
    head_turn = joint_turns[:, NECK]
    camera_centre = -(world_to_camera[:, :3, :3].transpose(1, 2) @ world_to_camera[:, :3, 3:])
    towards = full.vertices - camera_centre.transpose(1, 2)
    eyes = full.joints[:, EYE_L : EYE_R + 1].mean(1) - camera_centre[..., 0]
    by_joints = blend_rotations(head.skinning, joint_turns)
    view = functional.normalize((eyes[:, None] @ head_turn)[:, 0], dim=-1) + torch.eye(3, device=eyes.device)[2]
    return Pose(
        canonical=canonical,
        normals=vertex_normals(canonical, head.faces),
        conditions=torch.cat((face, view), 1),
        posed=full.vertices,
        rotations=turns.of_vertices(shaped.vertices, full.vertices, by_joints) if turns else by_joints,
        directions=functional.normalize(towards @ head_turn, dim=-1),
        beyond=beyond,
    )


def limited_faces(
    expression: Tensor, rotations: Tensor, limits: tuple[Tensor, Tensor | None] | None
) -> tuple[Tensor, Tensor | None]:
    """`faces_of` within the limits of `pose_rig`, and `Pose.beyond`."""
    face = faces_of(expression, rotations)
    if limits is None:
        return face, None
    performed, filmed = limits
    clamped = face.clamp(performed[0], performed[1])
    return clamped if filmed is None else nearest_filmed(clamped, filmed), beyond_limits(face, performed)


def faces_of(expression: Tensor, rotations: Tensor) -> Tensor:
    """Expression (B, E) and rotations (B, 5, 3) -> (B, E + 9): the faces of `backend.avatar.filmed`."""
    return torch.cat((expression, rotations[:, JAW : EYE_R + 1].flatten(1)), 1)


def blend_rotations(skinning: Tensor, joint_turns: Tensor) -> Tensor:
    """Weights (N, J) and joint rotations (B, J, 3, 3) -> unit quaternions (B, N, 4), the sign-aligned weighted
    average.
    """
    quaternions = matrix_to_quaternion(joint_turns)
    # q and -q are the same rotation; signs are aligned with the neck's, or the average of opposite signs could vanish.
    sign = torch.where((quaternions * quaternions[:, NECK : NECK + 1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return functional.normalize(skinning @ (quaternions * sign), dim=-1)


def rotate(quaternions: Tensor, points: Tensor) -> Tensor:
    """Rotate points (..., 3) by unit quaternions (..., 4) -> (..., 3)."""
    return (quaternion_to_matrix(quaternions) * points.unsqueeze(-2)).sum(-1)


def head_rotation(rotations: np.ndarray) -> np.ndarray:
    """Joint rotations (F, 5, 3) -> (F, 3, 3): the combined rotation of root and neck."""
    matrices = axis_angle_to_matrix(torch.as_tensor(rotations, dtype=torch.float32)).numpy()
    return matrices[:, 0] @ matrices[:, 1]
