"""The solver: Levenberg-Marquardt over every frame's expression, jaw, eyes and pose.

Two passes. `person.fit_person` takes some frames of every clip's training part and solves them together with identity, which
all share, and each clip's focal length. `fit_frames` holds these fixed and solves a clip's frames, coupled in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor

from ...head.rotations import matrix_to_axis_angle
from ..model.frame_state import FrameState
from ..model.landmark_surface import LandmarkSurface
from ..terms.landmarks import Evidence, as_seen, landmark_energy, landmark_normal
from ..terms.priors import Priors
from ..terms.silhouette import Outline, Shell, match
from .block_systems import Smoothness, solve_in_time

QUICK = 4.0
"""Standard deviations of the pose's acceleration beyond which smoothness in time is believed by less than half: a head that
shakes to 15 degrees three times a second is then 1.1 degrees off (median), as it is without smoothness, and not 7."""
_STEADY = torch.tensor((1.0, 2.0, 3.0, 2.0, 1.0)) / 9
HALVINGS = (12.0, 12.0, 8.0, 5.0, 4.0, 3.0)
"""The robust function's s over the iterations: from nearly least squares, which finds the basin, to outlier-proof."""


@dataclass(frozen=True)
class Beliefs:
    """`priors.Priors` as tensors, for F frames."""

    mean: Tensor
    precision: Tensor
    acceleration: Tensor
    lower: Tensor
    upper: Tensor
    fixed: Tensor
    vergence: Tensor
    """(2,)"""

    @classmethod
    def of(cls, priors: Priors, device: torch.device | str = "cpu") -> Beliefs:
        return cls(*(torch.as_tensor(getattr(priors, field.name), device=device) for field in fields(cls)))

    def __getitem__(self, index: slice | Tensor) -> Beliefs:
        return replace(self, mean=self.mean[index])

    def energy(self, state: FrameState) -> Tensor:
        """(F,)"""
        offset = state.face - self.mean
        squint = state.face[:, -4:-2] - state.face[:, -2:]
        return 0.5 * (self.precision[:-6] * offset**2).sum(1) + 0.5 * (self.vergence * squint**2).sum(1)

    def gradient(self, state: FrameState) -> Tensor:
        """(F, P)"""
        result = torch.zeros(len(state), len(self.precision), dtype=self.mean.dtype, device=self.mean.device)
        result[:, :-6] = self.precision[:-6] * (state.face - self.mean)
        squint = self.vergence * (state.face[:, -4:-2] - state.face[:, -2:])
        result[:, -10:-8] += squint
        result[:, -8:-6] -= squint
        return result

    def hessian(self) -> Tensor:
        """(P, P)"""
        result = torch.diag(self.precision)
        for axis in range(2):
            left, right = axis - 10, axis - 8
            for first, second, sign in ((left, left, 1), (right, right, 1), (left, right, -1), (right, left, -1)):
                result[first, second] += sign * self.vergence[axis]
        return result


class Term(Protocol):
    """A part of the energy besides landmarks and outline, of F frames."""

    def __getitem__(self, index: slice) -> Term: ...

    def energy(self, state: FrameState, evidence: Evidence) -> Tensor:
        """(F,)"""
        ...

    def normal(self, state: FrameState, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Gauss-Newton's gradient (F, P) and Hessian (F, P, P)."""
        ...


def fit_frames(
    surface: LandmarkSurface,
    directions: Tensor,
    evidence: Evidence,
    beliefs: Beliefs,
    state: FrameState,
    linked: Tensor,
    held: int,
    iterations: int,
    told: Callable[[int, float], None],
    outline: tuple[Outline, Shell] | None = None,
    terms: Sequence[Term] = (),
) -> tuple[FrameState, Tensor]:
    """All frames of a window, in time order, `surface` being of the person. The first `held` frames are known and only
    lend their motion; `linked` (F - 1,) bool says whether a frame and the next belong together. With `outline` also the
    head's outline has a say in its pose, and so have `terms`. Returns the frames and the last Hessian of what was seen and
    believed, without smoothness (F, P, P)."""
    prior_hessian = beliefs.hessian()
    gathered = evidence
    damping = 1e-4

    def energy_of(at: FrameState) -> float:
        seen = landmark_energy(surface, evidence, at) + beliefs.energy(at)
        for term in terms:
            seen = seen + term.energy(at, evidence)
        return float(
            (seen if matched is None else seen + matched.energy(at)).sum() + smoothness.energy(velocity_of(at))
        )

    for iteration in range(iterations):
        matched = None if outline is None else match(*outline, evidence, state)
        # The robust scale, the view and the habits change with the iteration, so an energy is only compared within one.
        evidence = as_seen(gathered, directions, state, _halving(iteration))
        normal = landmark_normal(surface, evidence, state, shared=False)
        velocity = velocity_of(state)
        smoothness = smoothness_of(velocity, beliefs, linked)
        energy = energy_of(state)
        told(iteration, energy)
        gradient = normal.gradient + beliefs.gradient(state) + smoothness.gradient(velocity)
        hessian = normal.hessian + prior_hessian
        if matched is not None:
            _, pull, stiffness = matched.normal(state)
            gradient[:, -6:] += pull
            hessian[:, -6:, -6:] += stiffness
        for term in terms:
            pull, stiffness = term.normal(state, evidence)
            gradient += pull
            hessian += stiffness
        free = free_to_move(state, gradient, beliefs)
        free[:held] = False
        for _ in range(6):
            diagonal = hessian.diagonal(dim1=1, dim2=2)
            step = solve_in_time(hessian + torch.diag_embed(damping * diagonal + 1e-3), gradient, smoothness, free)
            trial = state.moved(step, beliefs.lower, beliefs.upper)
            trial_energy = energy_of(trial)
            if trial_energy <= energy:
                state, damping = trial, max(damping / 5, 1e-6)
                break
            damping *= 10
        else:
            break
    return state, hessian


def _halving(iteration: int) -> float:
    """Frames start near their solution, so they begin where the person's frames have come after two rounds."""
    return HALVINGS[min(iteration + 2, len(HALVINGS) - 1)]


def smoothness_of(velocity: Tensor, beliefs: Beliefs, linked: Tensor, seen: Tensor | None = None) -> Smoothness:
    """The terms in time for frames that move so (F - 1, P). A head nods and shakes in a moment what it keeps still for
    seconds, so where its pose bends by far more than is believed the belief gives way: Cauchy's function, as a weight.
    With `seen` (F,) bool, frames of which nothing was seen are taken to be quick: who knows what they did."""
    bend = velocity[1:] - velocity[:-1]
    if not len(bend):
        return Smoothness(beliefs.acceleration, linked)
    bend = bend * (linked[:-1] & linked[1:]).unsqueeze(1)
    # Averaged over some frames, in which noise goes to and fro and a head goes on.
    around = torch.nn.functional.pad(bend[:, -6:].T, (2, 2)).unfold(1, len(_STEADY), 1) @ _STEADY.to(bend)
    surprise = (beliefs.acceleration[-6:] * around.T**2).mean(1, keepdim=True)
    trust = torch.ones_like(bend)
    trust[:, -6:] = 1 / (1 + surprise / QUICK**2)
    if seen is not None:
        trust[~(seen[:-2] & seen[1:-1] & seen[2:]), -6:] /= QUICK**2
    return Smoothness(beliefs.acceleration, linked, trust)


def as_last_seen(evidence: Evidence, directions: Tensor, state: FrameState, iterations: int) -> Evidence:
    """Evidence of frames that stand so, weighted as in the last of `fit_frames`' iterations."""
    return as_seen(evidence, directions, state, _halving(iterations - 1))


def velocity_of(state: FrameState) -> Tensor:
    """First differences (F - 1, P) of a frame's parameters, rotations as left tangents."""
    turn = matrix_to_axis_angle(state.rotation[1:] @ state.rotation[:-1].transpose(1, 2))
    return torch.cat((state.face[1:] - state.face[:-1], turn, state.translation[1:] - state.translation[:-1]), 1)


def free_to_move(state: FrameState, gradient: Tensor, beliefs: Beliefs) -> Tensor:
    """(F, P) bool: what may move: not what is fixed, nor what lies on a bound and is pushed outwards (Bertsekas 1982)."""
    free = (~beliefs.fixed).expand(gradient.shape).clone()
    pushed = gradient[:, :-6]
    stuck = ((state.face <= beliefs.lower) & (pushed > 0)) | ((state.face >= beliefs.upper) & (pushed < 0))
    free[:, :-6] &= ~stuck
    return free
