"""Ranges of views in a clip, to which the input of the networks is clamped; `filmed` does it for expressions.

The networks depend on the direction of view, for example for highlights and to correct errors of the rig's shape. For
views outside the clip they are untrained and their output is arbitrary. Therefore they get the nearest view within the
clip's range; the geometry is still posed for the real view.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from .posing import Pose

UNLIMITED_VIEWS = torch.tensor(((-math.pi, math.pi), (-math.pi / 2, math.pi / 2)))
MARGIN = math.radians(2)
"""Margin beyond the outermost views of the clip, within which the networks still extrapolate smoothly."""


def _front(like: Tensor) -> Tensor:
    """(3,): the constant (0, 0, 1) that `Pose.conditions` adds to the direction of view.

    It is made on the device: a copy of Python's numbers to a GPU would wait for all of its queued work.
    """
    return torch.eye(3, dtype=like.dtype, device=like.device)[2]


def view_directions(conditions: Tensor) -> Tensor:
    """`Pose.conditions` (B, C) -> (B, 3) unit vectors from the camera to the eyes, in the frame of the canonical
    head.
    """
    return functional.normalize(conditions[:, -3:] - _front(conditions), dim=-1)


def view_angles(directions: Tensor) -> Tensor:
    """(B, 3) -> (B, 2) yaw and pitch of the view, radians; zero for a camera straight in front of the face."""
    return torch.stack((torch.atan2(directions[:, 0], -directions[:, 2]), directions[:, 1].clamp(-1, 1).asin()), 1)


def view_range(conditions: Tensor) -> Tensor:
    """Conditions (F, C) of a clip's poses -> (2, 2): smallest and largest yaw, smallest and largest pitch, with a
    margin.
    """
    angles = view_angles(view_directions(conditions))
    return torch.stack((angles.amin(0) - MARGIN, angles.amax(0) + MARGIN), 1)


def clamp_view(pose: Pose, views: Tensor) -> Pose:
    """The pose with its view clamped to the range `views` (2, 2). Frames whose view is inside are not changed.

    Which frames these are is never read by the CPU, so that a GPU need not be waited for.
    """
    with torch.no_grad():
        before = view_directions(pose.conditions)
        angles = view_angles(before)
        within = torch.minimum(torch.maximum(angles, views[:, 0]), views[:, 1])
        inside = (within == angles).all(1)
        yaw, pitch = within.unbind(1)
        clamped = torch.stack((yaw.sin() * pitch.cos(), pitch.sin(), -yaw.cos() * pitch.cos()), 1)
        rotation = _shortest_rotation(before, clamped)
    view = torch.where(inside[:, None], pose.conditions[:, -3:], clamped + _front(clamped))
    rotated = pose.directions @ rotation.transpose(1, 2)
    return replace(
        pose,
        conditions=torch.cat((pose.conditions[:, :-3], view), 1),
        directions=torch.where(inside[:, None, None], pose.directions, rotated),
    )


def _shortest_rotation(before: Tensor, after: Tensor) -> Tensor:
    """Unit vectors (B, 3) and (B, 3) -> (B, 3, 3): the smallest rotation from one to the other (Rodrigues' formula).

    Opposite directions, for which it is not unique, are rotated about the head's vertical axis.
    """
    axis = torch.linalg.cross(before, after)
    cosine = (before * after).sum(-1)[:, None, None]
    skew = axis.new_zeros(len(axis), 3, 3)
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    skew = skew - skew.transpose(1, 2)
    identity = torch.eye(3, dtype=axis.dtype, device=axis.device)
    rotation = identity + skew + skew @ skew / (1 + cosine).clamp_min(1e-6)
    about_vertical = 2 * identity[1, :, None] * identity[1] - identity
    return torch.where(cosine < -1 + 1e-5, about_vertical, rotation)
