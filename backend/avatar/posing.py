"""From the head rig's pose to what the networks see, and from what they say to splats in world space.

The networks see the canonical mesh (expression, jaw and eyes; no root, no neck) and speak about each Gaussian in the
frame of its anchor at rest. Posing carries the Gaussian to the posed mesh by the anchor's vertex and by the
anchor's rotation, blended from the joints as skinning blends. Hence a turned neck changes nothing but place and
orientation, an eye's Gaussians turn with the eye, and the lower teeth with the jaw.
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


@dataclass(frozen=True)
class Pose:
    """B frames of one identity, ready for an avatar."""

    canonical: Tensor
    """(B, N, 3) metres: the mesh without root and neck rotation."""
    normals: Tensor
    """(B, N, 3) of `canonical`."""
    conditions: Tensor
    """(B, E + 12): expression, jaw, both eyes (axis-angle, radians), and the view: where the head is seen from, as the
    unit vector from the camera to the eyes in the frame of the un-turned head, plus (0, 0, 1). A rig never fits from all
    sides alike (depth is what landmarks say least about), and the view tells the networks which misfit to mend. It knows
    nothing of the neck: a camera that turns with the head leaves it as it is."""
    posed: Tensor
    """(B, N, 3) metres: the mesh as skinned, world space (the root's)."""
    rotations: Tensor
    """(B, N, 4) w, x, y, z: each anchor's rotation from rest to posed."""
    directions: Tensor
    """(B, N, 3) unit, from the camera to each vertex, in the frame of the un-turned head."""


def condition_size(expression_size: int) -> int:
    return expression_size + 12


def pose_rig(
    head: Head,
    shaped: Shaped,
    expression: Tensor,
    rotations: Tensor,
    world_to_camera: Tensor,
    performed: Tensor | None = None,
) -> Pose:
    """Expression (B, E), rotations (B, 5, 3) and cameras (B, 4, 4) -> `Pose`. `performed` (2, E + 9): the least and the most of
    expression, jaw and eyes that the networks are told of; see `backend.avatar.views`.
    """
    face = torch.cat((expression, rotations[:, JAW : EYE_R + 1].flatten(1)), 1)
    if performed is not None:
        face = face.clamp(performed[0], performed[1])
    told, joints = face.split((expression.shape[1], 9), 1)
    canonical = head.canonical(shaped, told, torch.cat((rotations[:, :JAW], joints.unflatten(1, (3, 3))), 1))
    full = head(shaped, expression, rotations)
    joint_turns = full.joint_transforms[:, :, :3, :3]
    head_turn = joint_turns[:, NECK]
    camera_centre = -(world_to_camera[:, :3, :3].transpose(1, 2) @ world_to_camera[:, :3, 3:])
    towards = full.vertices - camera_centre.transpose(1, 2)
    eyes = full.joints[:, EYE_L : EYE_R + 1].mean(1) - camera_centre[..., 0]
    view = functional.normalize((eyes[:, None] @ head_turn)[:, 0], dim=-1) + torch.tensor((0.0, 0.0, 1.0)).to(eyes)
    return Pose(
        canonical=canonical,
        normals=vertex_normals(canonical, head.faces),
        conditions=torch.cat((face, view), 1),
        posed=full.vertices,
        rotations=blend_rotations(head.skinning, joint_turns),
        directions=functional.normalize(towards @ head_turn, dim=-1),
    )


def blend_rotations(skinning: Tensor, joint_turns: Tensor) -> Tensor:
    """Weights (N, J) and joint rotations (B, J, 3, 3) -> unit quaternions (B, N, 4), blended by sign-aligned average."""
    quaternions = matrix_to_quaternion(joint_turns)
    # q and -q are the same turn: align all joints with the neck, or an average across the sign would vanish.
    sign = torch.where((quaternions * quaternions[:, NECK : NECK + 1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return functional.normalize(skinning @ (quaternions * sign), dim=-1)


def rotate(quaternions: Tensor, points: Tensor) -> Tensor:
    """(..., 4) unit and (..., 3) -> (..., 3)."""
    return (quaternion_to_matrix(quaternions) * points.unsqueeze(-2)).sum(-1)


def head_rotation(rotations: np.ndarray) -> np.ndarray:
    """(F, 5, 3) -> (F, 3, 3): how root and neck turn the head together."""
    matrices = axis_angle_to_matrix(torch.as_tensor(rotations, dtype=torch.float32)).numpy()
    return matrices[:, 0] @ matrices[:, 1]
