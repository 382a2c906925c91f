"""Graph-guided optimisation (GraphAvatar section 3.3): what the tracker got wrong, found while the networks train.

    f_t = MLP(t)              time as several tokens
    f_g = both U-Nets' codes  what the mesh looks like
    delta = Attn(q = f_g, k = f_t, v = f_t) -> offsets of expression, jaw and eyes, and of the head's pose

An offset is a function of time. It is applied to a copy of the tracked numbers, for the frames of a training step alone:
held-out frames and an animator's poses have none, and the track on disk stays as it is. Three things decide whether it works:

- Only the last projection starts at zero, so training begins with the tracked poses. Its own gradient is not zero; after
  one step it has moved, and from then on every parameter here has a gradient. (Keys have no bias: one that is added
  to all keys alike would cancel in the softmax and never learn.)
- No rasteriser here differentiates cameras. The head's motion is therefore applied to the splats (`Motion.move`).
- A constant offset says the same as Gaussians that all stand elsewhere; it would be learnt here and be missing
  wherever there is no offset. `penalty` keeps the mean over the clip at zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..head.forward import Head, Shaped
from ..head.model import JAW
from ..head.rotations import matrix_to_quaternion, quaternion_multiply
from ..splatting.types import Splats
from .posing import Pose, pose_rig

TOKENS = 16
"""Tokens of time. Of one alone the softmax would be constant, and queries and keys without effect."""
WIDTH = 32
HEADS = 4
FRAMES_PER_PERIOD = 4
"""The fastest frequency in which time is told: faster ones fit each frame's own noise."""

MOST_WAVES = 256
"""Of a long clip: more make the first layer large."""

EXPRESSION_UNIT = 0.1
JOINT_UNIT = math.radians(2)
TURN_UNIT = math.radians(1)
SHIFT_UNIT = 0.003
"""What a projection of 1 means (a coefficient, radians of jaw and eyes, radians and metres of the head): the size of a
tracker's errors, so that one penalty weighs all offsets alike."""

MAGNITUDE_WEIGHT = 3e-4
SMOOTHNESS_WEIGHT = 1e-3
MEAN_WEIGHT = 3e-2


@dataclass(frozen=True)
class Motion:
    """A small rigid motion of B heads in their own space, x -> linear @ x + translation."""

    matrices: Tensor
    """(B, 4, 4)"""

    def move(self, splats: Splats) -> Splats:
        """The splats, moved; gradients reach the motion by means and quaternions."""
        turns, shifts = self.matrices[:, :3, :3], self.matrices[:, :3, 3]
        return Splats(
            means=splats.means @ turns.transpose(1, 2) + shifts[:, None],
            quaternions=quaternion_multiply(matrix_to_quaternion(turns)[:, None], splats.quaternions),
            scales=splats.scales,
            opacities=splats.opacities,
            colors=splats.colors,
        )


@dataclass(frozen=True)
class Offsets:
    """What is added to B frames of a track."""

    expression: Tensor
    """(B, E)"""
    joints: Tensor
    """(B, 3, 3) axis-angle, radians: jaw, left eye, right eye."""
    motion: Tensor
    """(B, 6) element of se(3): rotation (radians), then translation (metres), about the head's middle."""

    def motion_about(self, middle: Tensor) -> Motion:
        """The exponential of `motion`, with `middle` (3,) as the place about which it turns."""
        turn, shift = self.motion[:, :3], self.motion[:, 3:]
        x, y, z = turn.unbind(1)
        zero = torch.zeros_like(x)
        rows = ((zero, -z, y, shift[:, 0]), (z, zero, -x, shift[:, 1]), (-y, x, zero, shift[:, 2]), (zero,) * 4)
        exponential = torch.linalg.matrix_exp(torch.stack([torch.stack(row, 1) for row in rows], 1))
        linear = exponential[:, :3, :3]
        place = exponential[:, :3, 3] + middle - linear @ middle
        last = torch.tensor((0.0, 0, 0, 1), dtype=turn.dtype, device=turn.device).expand(len(turn), 1, 4)
        return Motion(torch.cat((torch.cat((linear, place[..., None]), 2), last), 1))


class Refinement(nn.Module):
    """Times (B,) in [0, 1] and codes (B, 2, latent_size) of both U-Nets -> `Offsets`."""

    def __init__(self, latent_size: int, expression_size: int, frame_count: int) -> None:
        """`frame_count`: of the whole clip, over which time runs from 0 to 1."""
        super().__init__()
        self.expression_size = expression_size
        self.frame_count = frame_count
        # Evenly spaced, not doubling: what is learnt of one moment then stays near it (the sum of such waves is a
        # narrow peak), and a few visits to a frame are enough.
        waves = min(MOST_WAVES, max(1, 2 * frame_count // FRAMES_PER_PERIOD))
        highest = max(1, 2 * frame_count / FRAMES_PER_PERIOD)
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * torch.linspace(1, highest, waves), persistent=False)
        self.tokens = nn.Sequential(
            nn.Linear(2 * waves + 1, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, TOKENS * WIDTH)
        )
        self.query = nn.Linear(latent_size, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(2 * WIDTH, expression_size + 15)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def units(self, times: Tensor, codes: Tensor) -> Tensor:
        """(B, E + 15) offsets in units of a tracker's error."""
        angles = times[:, None] * self.frequencies
        tokens = self.tokens(torch.cat((2 * times[:, None] - 1, angles.sin(), angles.cos()), 1))
        tokens = tokens.unflatten(1, (TOKENS, WIDTH))

        def split(x: Tensor) -> Tensor:
            return x.unflatten(2, (HEADS, -1)).transpose(1, 2)

        seen = nn.functional.scaled_dot_product_attention(
            split(self.query(codes)), split(self.key(tokens)), split(self.value(tokens))
        )
        return self.project(seen.transpose(1, 2).flatten(1))

    def forward(self, times: Tensor, codes: Tensor) -> Offsets:
        return self.offsets(self.units(times, codes))

    def offsets(self, units: Tensor) -> Offsets:
        expression, joints, turn, shift = units.split((self.expression_size, 9, 3, 3), 1)
        return Offsets(
            EXPRESSION_UNIT * expression,
            (JOINT_UNIT * joints).unflatten(1, (3, 3)),
            torch.cat((TURN_UNIT * turn, SHIFT_UNIT * shift), 1),
        )

    def penalty(self, units: Tensor, times: Tensor, codes: Tensor, elsewhere: Tensor) -> Tensor:
        """Keeps offsets small, smooth in time (second difference over neighbouring frames) and without a constant
        part: `units` at `times` (B,), and their mean over other training frames' times `elsewhere` (M,).
        """
        step = 1 / max(1, self.frame_count - 1)
        count = len(times)
        wanted = torch.cat((times - step, times + step, elsewhere))
        places = torch.arange(len(wanted), device=wanted.device) % count
        before, after, others = self.units(wanted, codes[places]).split((count, count, len(elsewhere)))
        return (
            MAGNITUDE_WEIGHT * units.square().mean()
            + SMOOTHNESS_WEIGHT * (before - 2 * units + after).square().mean()
            + MEAN_WEIGHT * others.mean(0).square().mean()
        )


def middle_of(shaped: Shaped) -> Tensor:
    """(3,) metres: the head's middle, about which `Offsets.motion` turns, so that a turn leaves the outline and a shift is
    not mistaken for one.
    """
    return shaped.vertices[0].mean(0)


def pose_refined(
    head: Head, shaped: Shaped, expression: Tensor, rotations: Tensor, head_to_camera: Tensor, offsets: Offsets
) -> tuple[Pose, Motion]:
    """`pose_rig` with offsets, and the motion that the pose's splats need to be seen by the *tracked* camera.

    Gradients reach the offsets by where the vertices go, by the conditions and by the motion. They are not followed through
    the networks' view of the mesh (`canonical`, `directions`), which changes by a fraction of what the vertices'
    places do and costs a backward pass through the encoders' widest layer.
    """
    motion = offsets.motion_about(middle_of(shaped))
    expression = expression + offsets.expression
    rotations = torch.cat((rotations[:, :JAW], rotations[:, JAW:] + offsets.joints), 1)
    with torch.no_grad():
        pose = pose_rig(head, shaped, expression, rotations, head_to_camera @ motion.matrices)
    joints = rotations[:, JAW:].flatten(1)
    posed = head(shaped, expression, rotations).vertices if torch.is_grad_enabled() else pose.posed
    conditions = torch.cat((expression, joints, pose.conditions[:, expression.shape[1] + joints.shape[1] :]), 1)
    return Pose(
        canonical=pose.canonical,
        normals=pose.normals,
        conditions=conditions,
        posed=posed,
        rotations=pose.rotations,
        directions=pose.directions,
    ), motion
