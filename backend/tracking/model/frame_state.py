"""The parameters of some frames as the solver holds them, and how a step changes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ...head.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from .parameter_layout import ParameterLayout

_EYE_OCCLUSION = 0.45, 0.65
"""Sines of the head's yaw at which the farther eye begins to be hidden, and at which it is hidden."""


@dataclass(frozen=True)
class Bounds:
    """Which values the parameters may take (see `ParameterLayout`)."""

    lower: Tensor
    """(E + 7,)"""
    upper: Tensor
    """(E + 7,)"""
    fixed: Tensor
    """(P,) bool: parameters that stay at their initial value."""


@dataclass(frozen=True)
class FrameState:
    """The parameters of F frames. The head pose is camera = rotation @ (x - pivot) + translation. The pivot
    (`Camera.pivot`) is the centre of the landmarks, so that a rotation does not displace the face.
    """

    face: Tensor
    """(F, E + 7): expression, jaw axis-angle, eyes (left x, left y, right x, right y)."""
    rotation: Tensor
    """(F, 3, 3)"""
    translation: Tensor
    """(F, 3) metres: the pivot's position in the camera."""

    def __len__(self) -> int:
        return len(self.face)

    def __getitem__(self, index: slice | Tensor) -> FrameState:
        return FrameState(*(getattr(self, field.name)[index] for field in fields(self)))

    @property
    def layout(self) -> ParameterLayout:
        return ParameterLayout.of_face(self.face)

    @property
    def expression(self) -> Tensor:
        """The expression coefficients (F, E)."""
        return self.face[:, self.layout.expression]

    def updated(self, step: Tensor, bounds: Bounds) -> FrameState:
        """The state after a solver step (F, P), clamped to the bounds."""
        layout = self.layout
        rotation = axis_angle_to_matrix(step[:, layout.rotation])
        return FrameState(
            (self.face + step[:, layout.face]).clamp(bounds.lower, bounds.upper),
            rotation @ self.rotation,
            self.translation + step[:, layout.translation],
        )

    def dolly_zoomed(self, ratio: Tensor) -> FrameState:
        """Move the heads away by the factor `ratio` (F,) or (), which keeps their size in the image when the focal
        length grows by the same factor.

        The focal length is solved for along this motion, so that its step changes the perspective alone. Otherwise
        focal length and distance share a narrow curved valley, in which damping keeps the focal length at its initial
        value.
        """
        lateral, depth = self.translation.split((2, 1), -1)
        return replace(self, translation=torch.cat((lateral, depth * ratio.unsqueeze(-1)), -1))

    def velocity(self) -> Tensor:
        """(F - 1, P): first differences of the parameters between frames, rotations as left tangents."""
        rotation = matrix_to_axis_angle(self.rotation[1:] @ self.rotation[:-1].transpose(1, 2))
        return torch.cat((self.face[1:] - self.face[:-1], rotation, self.translation[1:] - self.translation[:-1]), 1)


def concatenate(parts: Sequence[FrameState]) -> FrameState:
    """The frames of all parts in one state."""
    return FrameState(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(FrameState)))


def eye_occlusion(state: FrameState) -> Tensor:
    """(F, 2) in [0, 1] for left and right eye: how far the head's yaw hides the eye, so that the detector only guesses
    it.
    """
    to_camera = -torch.nn.functional.normalize(state.translation, dim=-1)
    sine = (state.rotation[:, :, 0] * to_camera).sum(-1)
    begins, complete = _EYE_OCCLUSION
    return ((torch.stack((-sine, sine), -1) - begins) / (complete - begins)).clamp(0, 1)


def joint_rotation_vectors(face: Tensor) -> Tensor:
    """(F, E + 7) -> axis-angle (F, 3, 3) of jaw, left eye and right eye."""
    layout = ParameterLayout.of_face(face)
    jaw, eyes = face[:, layout.jaw], face[:, layout.eyes].unflatten(1, (2, 2))
    return torch.cat((jaw[:, None], torch.cat((eyes, torch.zeros_like(eyes[..., :1])), -1)), 1)
