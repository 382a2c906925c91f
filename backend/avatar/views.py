"""From where a clip saw the head and what it saw the face do, and what the networks are told of everything else.

The networks know the direction from which they are looked at, and use it: highlights wander, and what the rig's shape gets wrong
is mended for each view. Outside the views of the clip nothing has ever corrected them, and what they make of such a
direction is anything. There they are told the nearest view that the clip had; the geometry still turns as it should.

The same holds for expressions: `posing.pose_rig` moves the mesh as far as it is told, and tells the networks of the nearest
expression that the clip had. On held-out frames that is worth next to nothing (30.12 dB become 30.14); it is for an animator, who
asks for more than any clip shows.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from .posing import Pose

ALL_VIEWS = torch.tensor(((-math.pi, math.pi), (-math.pi / 2, math.pi / 2)))
MARGIN = math.radians(2)
"""Beyond the outermost views of the clip: the networks are smooth over as much."""
PERFORMED_MARGIN = 0.1
"""Beyond the least and the most of each coefficient (and each angle, radians): a few times the noise that training adds."""
_FRONT = (0.0, 0.0, 1.0)
"""What `Pose.conditions` has added to the view's direction."""


def directions_of(conditions: Tensor) -> Tensor:
    """(B, C) of `Pose` -> (B, 3) unit, from the camera to the eyes in the frame of the un-turned head."""
    return functional.normalize(conditions[:, -3:] - conditions.new_tensor(_FRONT), dim=-1)


def angles_of(directions: Tensor) -> Tensor:
    """(B, 3) -> (B, 2) yaw and pitch of the view, radians; zero for a camera straight before the face."""
    return torch.stack((torch.atan2(directions[:, 0], -directions[:, 2]), directions[:, 1].clamp(-1, 1).asin()), 1)


def view_range(conditions: Tensor) -> Tensor:
    """Conditions (F, C) of a clip's poses -> (2, 2): least and largest yaw, least and largest pitch, with a margin."""
    angles = angles_of(directions_of(conditions))
    return torch.stack((angles.amin(0) - MARGIN, angles.amax(0) + MARGIN), 1)


def performed_range(conditions: Tensor) -> Tensor:
    """Conditions (F, C) of a clip's poses -> (2, C - 3): least and most of expression, jaw and eyes, with a margin."""
    performed = conditions[:, :-3]
    return torch.stack((performed.amin(0) - PERFORMED_MARGIN, performed.amax(0) + PERFORMED_MARGIN))


def all_performances(condition_size: int) -> Tensor:
    """The range that leaves every pose as it is."""
    return torch.tensor((-math.inf, math.inf))[:, None].repeat(1, condition_size - 3)


def seen_from_within(pose: Pose, views: Tensor) -> Pose:
    """The pose with the nearest view inside `views` (2, 2); the same object where all are inside."""
    angles = angles_of(directions_of(pose.conditions))
    within = torch.minimum(torch.maximum(angles, views[:, 0]), views[:, 1])
    if torch.equal(within, angles):
        return pose
    yaw, pitch = within.unbind(1)
    wanted = torch.stack((yaw.sin() * pitch.cos(), pitch.sin(), -yaw.cos() * pitch.cos()), 1)
    turn = _turn(directions_of(pose.conditions), wanted)
    return replace(
        pose,
        conditions=torch.cat((pose.conditions[:, :-3], wanted + wanted.new_tensor(_FRONT)), 1),
        directions=pose.directions @ turn.transpose(1, 2),
    )


def _turn(before: Tensor, after: Tensor) -> Tensor:
    """(B, 3) and (B, 3) unit -> (B, 3, 3): the shortest rotation from one to the other (Rodrigues; opposite directions, which
    have none, are turned about the head's vertical).
    """
    axis = torch.linalg.cross(before, after)
    cosine = (before * after).sum(-1)[:, None, None]
    skew = axis.new_zeros(len(axis), 3, 3)
    skew[:, 0, 1], skew[:, 0, 2], skew[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    skew = skew - skew.transpose(1, 2)
    turn = torch.eye(3).to(axis) + skew + skew @ skew / (1 + cosine).clamp_min(1e-6)
    about_vertical = torch.diag(axis.new_tensor((-1.0, 1.0, -1.0)))
    return torch.where(cosine < -1 + 1e-5, about_vertical, turn)
