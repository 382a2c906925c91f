"""Where surface points of the posed head fall in the image, and the analytic Jacobians of that."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...head.rotations import axis_angle_to_matrix
from .camera import Camera
from .frame_state import FrameState, joint_rotation_vectors
from .landmark_surface import LandmarkSurface, pose_points


@dataclass(frozen=True)
class SharedJacobians:
    """Derivatives of projected points by what all frames share."""

    jacobian: Tensor
    """(F, L, 2, S + 1) by identity and log focal length, the latter along a dolly zoom (`FrameState.dolly_zoomed`)."""
    by_position: Tensor
    """(F, L, 2, 3) by the point's position on the head at rest."""


@dataclass(frozen=True)
class Linearisation:
    """Projected points of F frames and their derivatives."""

    pixels: Tensor
    """(F, L, 2)"""
    jacobian: Tensor
    """(F, L, 2, P) by the frame's own parameters."""
    shared: SharedJacobians | None
    """Where it was asked for."""


def predict(surface: LandmarkSurface, state: FrameState, camera: Camera) -> Tensor:
    """(F, L, 2) pixels: the points of a person's surface (`LandmarkSurface.of_person`), posed and projected."""
    matrices = axis_angle_to_matrix(joint_rotation_vectors(state.face))
    points = pose_points(surface, state.expression, matrices)[0]
    rotated = (points - camera.pivot) @ state.rotation.transpose(1, 2)
    return camera.project(rotated + state.translation[:, None])


def linearise(surface: LandmarkSurface, state: FrameState, camera: Camera, *, shared: bool = False) -> Linearisation:
    """The prediction and its derivatives by the frames' parameters, with `shared` also by what all frames share."""
    vectors = joint_rotation_vectors(state.face)
    matrices = axis_angle_to_matrix(vectors)
    points, levers, rotations = pose_points(surface, state.expression, matrices)
    rotated = (points - camera.pivot) @ state.rotation.transpose(1, 2)
    in_camera = rotated + state.translation[:, None]
    pixels = camera.project(in_camera)

    projection = camera.projection_jacobian(in_camera)
    by_point = projection @ state.rotation[:, None]
    by_lever = by_point @ rotations
    expression = _through_bases(by_point, by_lever, surface.position.expression, surface.lever.expression)
    layout = state.layout
    jacobian = torch.empty((*expression.shape[:-1], layout.size), dtype=expression.dtype, device=expression.device)
    jacobian[..., layout.expression] = expression
    joints = slice(layout.jaw.start, layout.eyes.stop)
    jacobian[..., joints] = by_point @ joint_derivatives(surface, vectors, matrices, levers, rotations)
    jacobian[..., layout.rotation] = projection @ -cross_matrix(rotated)
    jacobian[..., layout.translation] = projection
    if not shared:
        return Linearisation(pixels, jacobian, None)
    identity = _through_bases(by_point, by_lever, surface.position.shape, surface.lever.shape)
    zoom = pixels - camera.centre + projection[..., 2] * state.translation[:, None, 2:]
    by_position = by_point + by_lever * surface.skin_weight[:, None, None]
    return Linearisation(pixels, jacobian, SharedJacobians(torch.cat((identity, zoom.unsqueeze(-1)), -1), by_position))


def _through_bases(by_point: Tensor, by_lever: Tensor, position: Tensor, lever: Tensor) -> Tensor:
    """by_point @ position + by_lever @ lever for (F, L, 2, 3) and bases (L, 3, K) -> (F, L, 2, K).

    One batched product over points with all frames as rows, so that a basis is read once instead of once per frame.
    """
    frames = len(by_point)
    rows = torch.cat((by_point, by_lever), -1).permute(1, 0, 2, 3).flatten(1, 2)
    product = rows @ torch.cat((position, lever), 1)
    return product.unflatten(1, (frames, 2)).permute(1, 0, 2, 3)


def joint_derivatives(
    surface: LandmarkSurface, vectors: Tensor, matrices: Tensor, levers: Tensor, rotations: Tensor
) -> Tensor:
    """(F, L, 3, 7): derivatives of head-space points by jaw (3) and eyes (2 + 2), pose correctives included.

    `vectors` (F, 3, 3) and `matrices` (F, 3, 3, 3) are the joints' rotations; `levers` and `rotations` come from
    `pose_points`.
    """
    frames = len(vectors)
    slopes = rotation_derivatives(vectors, matrices)  # (F, joint, k, 3, 3)
    columns: list[Tensor] = []
    for joint, axes in enumerate((3, 2, 2)):
        moved = (surface.joint_index == joint).to(levers.dtype)[None, :, None]
        for axis in range(axes):
            slope = slopes[:, joint, axis]
            part = slice(9 * joint, 9 * joint + 9)
            swing = (levers * moved) @ slope.transpose(1, 2)
            feature = slope.reshape(frames, 9)
            position = (feature @ surface.position.corrective[..., part].flatten(0, 1).T).unflatten(1, (-1, 3))
            lever = (feature @ surface.lever.corrective[..., part].flatten(0, 1).T).unflatten(1, (-1, 3))
            columns.append(swing + position + (rotations * lever.unsqueeze(-2)).sum(-1))
    return torch.stack(columns, -1)


def rotation_derivatives(vectors: Tensor, matrices: Tensor) -> Tensor:
    """D R / d v_k for R = exp(v): (..., 3), (..., 3, 3) -> (..., 3 (k), 3, 3). Gallego and Yezzi 2015, eq. 9."""
    squared = (vectors**2).sum(-1, keepdim=True)[..., None]
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    # Columns of (I - R), one for each k; v x (I - R) e_k.
    crossed = torch.linalg.cross(vectors.unsqueeze(-2).expand(matrices.shape), (identity - matrices).transpose(-1, -2))
    general = (vectors.unsqueeze(-1) * vectors.unsqueeze(-2) + crossed) / squared.clamp_min(1e-12)
    # At zero rotation the quotient is 0/0 and its limit e_k; float32 loses it below about a tenth of a degree.
    axes = torch.where(squared < 1e-6, identity.expand(matrices.shape), general)
    return cross_matrix(axes) @ matrices.unsqueeze(-3)


def cross_matrix(vectors: Tensor) -> Tensor:
    """The matrices [a] (..., 3, 3) of vectors a (..., 3), with [a] b = a x b."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
