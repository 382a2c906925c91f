"""A frame's parameters, the landmarks they predict, and how these move with them (analytic Jacobians)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ...head.rotations import axis_angle_to_matrix
from .camera import project, project_derivative
from .landmark_surface import LandmarkSurface, pose_points

_HIDDEN = 0.45, 0.65
"""Sines of the head's turn from which on the farther eye begins to be hidden, and is."""


@dataclass(frozen=True)
class FrameState:
    """F frames. The head pose is camera = rotation @ (x - pivot) + translation, with the clip's pivot amid the landmarks,
    so that turning does not displace the face."""

    face: Tensor
    """(F, E + 7): expression, jaw axis-angle, eyes (left x, left y, right x, right y)."""
    rotation: Tensor
    """(F, 3, 3)"""
    translation: Tensor
    """(F, 3) metres: where the pivot is in the camera."""

    def __len__(self) -> int:
        return len(self.face)

    def __getitem__(self, index: slice | Tensor) -> FrameState:
        return FrameState(*(getattr(self, field.name)[index] for field in fields(self)))

    def moved(self, step: Tensor, lower: Tensor, upper: Tensor) -> FrameState:
        """The state after a step (F, P), kept within the bounds."""
        turn = axis_angle_to_matrix(step[:, -6:-3])
        return FrameState(
            (self.face + step[:, :-6]).clamp(lower, upper), turn @ self.rotation, self.translation + step[:, -3:]
        )

    def zoomed(self, ratio: Tensor) -> FrameState:
        """So much farther away as keeps heads as large when the focal length grows `ratio` (F,) or () times: a dolly zoom.

        Lenses are solved for in these terms, so that a step of theirs changes the perspective alone. Otherwise lens and distance
        lie in a narrow curved valley, damping holds them there, and the lens stays where it began.
        """
        aside, away = self.translation.split((2, 1), -1)
        return replace(self, translation=torch.cat((aside, away * ratio.unsqueeze(-1)), -1))


def concatenate(parts: list[FrameState]) -> FrameState:
    return FrameState(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(FrameState)))


def hidden_eyes(state: FrameState) -> Tensor:
    """(F, 2) in [0, 1] of the left and the right eye: how far it is turned away, where the detector only imagines it."""
    towards = -torch.nn.functional.normalize(state.translation, dim=-1)
    sine = (state.rotation[:, :, 0] * towards).sum(-1)
    return ((torch.stack((-sine, sine), -1) - _HIDDEN[0]) / (_HIDDEN[1] - _HIDDEN[0])).clamp(0, 1)


def joint_vectors(face: Tensor) -> Tensor:
    """(F, E + 7) -> axis-angle (F, 3, 3) of jaw, left eye and right eye."""
    jaw, eyes = face[:, -7:-4], face[:, -4:].unflatten(1, (2, 2))
    return torch.cat((jaw[:, None], torch.cat((eyes, torch.zeros_like(eyes[..., :1])), -1)), 1)


def rotation_derivatives(vectors: Tensor, matrices: Tensor) -> Tensor:
    """d R / d v_k for R = exp(v): (..., 3), (..., 3, 3) -> (..., 3 (k), 3, 3). Gallego and Yezzi 2015, eq. 9."""
    squared = (vectors**2).sum(-1, keepdim=True)[..., None]
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    # Columns of (I - R), one for each k; v x (I - R) e_k.
    slide = torch.linalg.cross(vectors.unsqueeze(-2).expand(matrices.shape), (identity - matrices).transpose(-1, -2))
    general = (vectors.unsqueeze(-1) * vectors.unsqueeze(-2) + slide) / squared.clamp_min(1e-12)
    # At rest the quotient is 0/0 and its limit e_k; float32 loses it below about a tenth of a degree.
    axes = torch.where(squared < 1e-6, identity.expand(matrices.shape), general)
    return cross_matrix(axes) @ matrices.unsqueeze(-3)


def cross_matrix(vectors: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) with cross_matrix(a) @ b = a x b."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))


@dataclass(frozen=True)
class Prediction:
    pixels: Tensor
    """(F, L, 2)"""
    jacobian: Tensor | None
    """(F, L, 2, P) with respect to the frame's parameters."""
    shared: Tensor | None
    """(F, L, 2, S + 1) with respect to identity and log focal length, the head backing off meanwhile (`FrameState.zoomed`)."""
    place: Tensor | None = None
    """(F, L, 2, 3) with respect to where the point lies on the head at rest."""


def predict(
    surface: LandmarkSurface,
    state: FrameState,
    focal: Tensor,
    centre: Tensor,
    pivot: Tensor,
    *,
    jacobian: bool = False,
    shared: bool = False,
) -> Prediction:
    """Where the landmarks of the posed head fall in the picture. `surface` is `of_person`."""
    vectors = joint_vectors(state.face)
    matrices = axis_angle_to_matrix(vectors)
    points, arms, turns = pose_points(surface, state.face[:, :-7], matrices)
    turned = (points - pivot) @ state.rotation.transpose(1, 2)
    in_camera = turned + state.translation[:, None]
    pixels = project(in_camera, focal, centre)
    if not jacobian:
        return Prediction(pixels, None, None)

    slope = project_derivative(in_camera, focal)
    of_point = slope @ state.rotation[:, None]
    of_arm = of_point @ turns
    expression = _through(of_point, of_arm, surface.anchor.expression, surface.arm.expression)
    size = expression.shape[-1]
    result = torch.empty((*expression.shape[:-1], size + 13), dtype=expression.dtype, device=expression.device)
    result[..., :size] = expression
    result[..., size : size + 7] = of_point @ joint_derivatives(surface, vectors, matrices, arms, turns)
    result[..., -6:-3] = slope @ -cross_matrix(turned)
    result[..., -3:] = slope
    if not shared:
        return Prediction(pixels, result, None)
    identity = _through(of_point, of_arm, surface.anchor.shape, surface.arm.shape)
    place = of_point + of_arm * surface.share[:, None, None]
    zoom = pixels - centre + slope[..., 2] * state.translation[:, None, 2:]
    return Prediction(pixels, result, torch.cat((identity, zoom.unsqueeze(-1)), -1), place)


def _through(of_point: Tensor, of_arm: Tensor, anchor: Tensor, arm: Tensor) -> Tensor:
    """of_point @ anchor + of_arm @ arm for (F, L, 2, 3) and bases (L, 3, K) -> (F, L, 2, K).

    One batched product over landmarks, with all frames as rows: a basis is then read once and not once a frame.
    """
    frames = len(of_point)
    rows = torch.cat((of_point, of_arm), -1).permute(1, 0, 2, 3).flatten(1, 2)
    product = rows @ torch.cat((anchor, arm), 1)
    return product.unflatten(1, (frames, 2)).permute(1, 0, 2, 3)


def joint_derivatives(
    surface: LandmarkSurface, vectors: Tensor, matrices: Tensor, arms: Tensor, turns: Tensor
) -> Tensor:
    """(F, L, 3, 7): head-space points by jaw (3) and eyes (2 + 2), correctives included."""
    frames = len(vectors)
    slopes = rotation_derivatives(vectors, matrices)  # (F, joint, k, 3, 3)
    columns: list[Tensor] = []
    for joint, axes in enumerate((3, 2, 2)):
        moved = (surface.mover == joint).to(arms.dtype)[None, :, None]
        for axis in range(axes):
            slope = slopes[:, joint, axis]
            part = slice(9 * joint, 9 * joint + 9)
            swing = (arms * moved) @ slope.transpose(1, 2)
            feature = slope.reshape(frames, 9)
            anchor = (feature @ surface.anchor.corrective[..., part].flatten(0, 1).T).unflatten(1, (-1, 3))
            arm = (feature @ surface.arm.corrective[..., part].flatten(0, 1).T).unflatten(1, (-1, 3))
            columns.append(swing + anchor + (turns * arm.unsqueeze(-2)).sum(-1))
    return torch.stack(columns, -1)
