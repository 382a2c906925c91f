"""Pose refinement, the graph-guided optimisation (GGO) of GraphAvatar section 3.3: learns tracking errors during
training.

    f_t = MLP(t)              several tokens of the time t
    f_g = codes of the mesh   from the encoders of both U-Nets, or the weights of the blendshapes
    delta = Attn(q = f_g, k = f_t, v = f_t) -> offsets of expression, jaw, eyes and head pose

The offsets are functions of time. They are added to a copy of the tracked poses, and only in training: held-out frames
and an animator's poses have none, and the track on disk is not changed. Three details are essential:

- Only the last projection is initialised with zero, so training starts from the tracked poses. Its gradient is not
  zero; after one step it has changed, and from then on all parameters have a gradient. (Keys have no bias: a constant
  added to all keys cancels in the softmax and would never learn.)
- The rasterisers have no gradient for cameras. The head's motion is therefore applied to the splats
  (`RigidMotion.move`).
- A constant offset is equivalent to a displacement of all Gaussians; the networks would learn it, and it would be
  missing in all frames without offsets. `penalty` keeps the mean over the clip at zero.
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
from .posing import Pose, limited_faces, pose_rig
from .surface_turns import SurfaceTurns

TOKENS = 16
"""Number of time tokens. With a single one the softmax would be constant, and queries and keys would have no effect."""
WIDTH = 32
HEADS = 4
FRAMES_PER_PERIOD = 4
"""Shortest period of the time encoding: higher frequencies would fit the noise of single frames."""

MAX_WAVES = 256
"""Limit of the number of frequencies for long clips, whose first layer would otherwise become large."""

EXPRESSION_UNIT = 0.1
JOINT_UNIT = math.radians(2)
ROTATION_UNIT = math.radians(1)
TRANSLATION_UNIT = 0.003
"""Offsets for a network output of 1: expression coefficient, radians of jaw and eyes, radians and metres of the head.
They are the typical errors of a tracker, so that one penalty suits all offsets."""

MAGNITUDE_WEIGHT = 3e-4
SMOOTHNESS_WEIGHT = 1e-3
MEAN_WEIGHT = 3e-2


@dataclass(frozen=True)
class RigidMotion:
    """A small rigid motion of B heads in their own space, x -> linear @ x + translation."""

    matrices: Tensor
    """(B, 4, 4)"""

    def move(self, splats: Splats) -> Splats:
        """Apply the motion to splats; gradients reach the motion through means and quaternions."""
        rotations, translations = self.matrices[:, :3, :3], self.matrices[:, :3, 3]
        return Splats(
            means=splats.means @ rotations.transpose(1, 2) + translations[:, None],
            quaternions=quaternion_multiply(matrix_to_quaternion(rotations)[:, None], splats.quaternions),
            scales=splats.scales,
            opacities=splats.opacities,
            colors=splats.colors,
        )


@dataclass(frozen=True)
class PoseOffsets:
    """Offsets that are added to the poses of B frames of a track."""

    expression: Tensor
    """(B, E)"""
    joints: Tensor
    """(B, 3, 3) axis-angle, radians: jaw, left eye, right eye."""
    motion: Tensor
    """(B, 6) element of se(3): rotation (radians), then translation (metres), about the head's centre."""

    def added_to(self, expression: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor]:
        """Expression (B, E) and joint rotations (B, 5, 3), axis-angle, with the offsets added."""
        return expression + self.expression, torch.cat((rotations[:, :JAW], rotations[:, JAW:] + self.joints), 1)

    def rigid_motion(self, centre: Tensor) -> RigidMotion:
        """The exponential of `motion`, with `centre` (3,) as the centre of rotation."""
        rotation, shift = self.motion[:, :3], self.motion[:, 3:]
        x, y, z = rotation.unbind(1)
        zero = torch.zeros_like(x)
        rows = ((zero, -z, y, shift[:, 0]), (z, zero, -x, shift[:, 1]), (-y, x, zero, shift[:, 2]), (zero,) * 4)
        exponential = torch.linalg.matrix_exp(torch.stack([torch.stack(row, 1) for row in rows], 1))
        linear = exponential[:, :3, :3]
        translation = exponential[:, :3, 3] + centre - linear @ centre
        last = torch.eye(4, dtype=rotation.dtype, device=rotation.device)[3:].expand(len(rotation), 1, 4)
        return RigidMotion(torch.cat((torch.cat((linear, translation[..., None]), 2), last), 1))


def offsets_from_units(units: Tensor) -> PoseOffsets:
    """Offsets of B frames from (B, E + 15) numbers in units of a tracker's typical errors."""
    expression, joints, rotation, translation = units.split((units.shape[1] - 15, 9, 3, 3), 1)
    return PoseOffsets(
        EXPRESSION_UNIT * expression,
        (JOINT_UNIT * joints).unflatten(1, (3, 3)),
        torch.cat((ROTATION_UNIT * rotation, TRANSLATION_UNIT * translation), 1),
    )


class PoseRefinementNetwork(nn.Module):
    """Times (B,) in [0, 1] and codes (B, 2, code_size), `GraphAvatar.codes` -> `PoseOffsets`."""

    def __init__(self, code_size: int, expression_size: int, frame_count: int) -> None:
        """`frame_count` of the whole clip, over which time runs from 0 to 1."""
        super().__init__()
        self.expression_size = expression_size
        self.frame_count = frame_count
        # Frequencies are evenly spaced, not doubling: their sum is a narrow peak in time, so what is learnt from one
        # frame affects its neighbours only, and a few visits to each frame are enough.
        waves = min(MAX_WAVES, max(1, 2 * frame_count // FRAMES_PER_PERIOD))
        highest = max(1, 2 * frame_count / FRAMES_PER_PERIOD)
        self.frequencies: Tensor
        self.register_buffer("frequencies", math.pi * torch.linspace(1, highest, waves), persistent=False)
        self.tokens = nn.Sequential(
            nn.Linear(2 * waves + 1, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, TOKENS * WIDTH)
        )
        self.query = nn.Linear(code_size, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(2 * WIDTH, expression_size + 15)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def units(self, times: Tensor, codes: Tensor) -> Tensor:
        """(B, E + 15) offsets in units of a tracker's typical errors."""
        angles = times[:, None] * self.frequencies
        tokens = self.tokens(torch.cat((2 * times[:, None] - 1, angles.sin(), angles.cos()), 1))
        tokens = tokens.unflatten(1, (TOKENS, WIDTH))

        def split(x: Tensor) -> Tensor:
            return x.unflatten(2, (HEADS, -1)).transpose(1, 2)

        attended = nn.functional.scaled_dot_product_attention(
            split(self.query(codes)), split(self.key(tokens)), split(self.value(tokens))
        )
        return self.project(attended.transpose(1, 2).flatten(1))

    def forward(self, times: Tensor, codes: Tensor) -> PoseOffsets:
        return offsets_from_units(self.units(times, codes))

    def penalty(self, units: Tensor, times: Tensor, codes: Tensor, other_times: Tensor) -> Tensor:
        """Keeps offsets small, smooth in time (second difference over neighbouring frames) and without a constant part.

        `units` are the offsets at `times` (B,); their mean is taken at the times `other_times` (M,) of training frames.
        """
        step = 1 / max(1, self.frame_count - 1)
        count = len(times)
        sampled_times = torch.cat((times - step, times + step, other_times))
        code_rows = torch.arange(len(sampled_times), device=sampled_times.device) % count
        before, after, others = self.units(sampled_times, codes[code_rows]).split((count, count, len(other_times)))
        return (
            MAGNITUDE_WEIGHT * units.square().mean()
            + SMOOTHNESS_WEIGHT * (before - 2 * units + after).square().mean()
            + MEAN_WEIGHT * others.mean(0).square().mean()
        )


def head_centre(shaped: Shaped) -> Tensor:
    """(3,) metres: the centre of rotation of `PoseOffsets.motion`. A rotation about it hardly moves the head's outline,
    so that rotation and translation are not confused.
    """
    return shaped.vertices[0].mean(0)


def refined_pose(
    head: Head,
    shaped: Shaped,
    expression: Tensor,
    rotations: Tensor,
    head_to_camera: Tensor,
    offsets: PoseOffsets,
    limits: tuple[Tensor, Tensor | None] | None = None,
    turns: SurfaceTurns | None = None,
) -> tuple[Pose, RigidMotion]:
    """`pose_rig` with offsets, and the motion of the pose's splats for which the *tracked* camera sees the refined
    pose.

    Gradients reach the offsets through the posed vertices, the conditions and the motion. They are not propagated
    through the networks' geometric inputs (`canonical`, `directions`), which change by a fraction of what the vertices'
    positions do and would need a backward pass through the encoders' widest layer.
    """
    motion = offsets.rigid_motion(head_centre(shaped))
    expression, rotations = offsets.added_to(expression, rotations)
    with torch.no_grad():
        pose = pose_rig(head, shaped, expression, rotations, head_to_camera @ motion.matrices, limits, turns)
    posed = head(shaped, expression, rotations).vertices if torch.is_grad_enabled() else pose.posed
    face = limited_faces(expression, rotations, limits)[0]
    conditions = torch.cat((face, pose.conditions[:, face.shape[1] :]), 1)
    return Pose(
        canonical=pose.canonical,
        normals=pose.normals,
        conditions=conditions,
        posed=posed,
        rotations=pose.rotations,
        directions=pose.directions,
        beyond=pose.beyond,
    ), motion
