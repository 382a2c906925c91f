"""The solver: Levenberg-Marquardt over one identity and focal length and every frame's expression, jaw, eyes and pose.

Two passes. `fit_person` takes some frames of the training part and solves them together with identity and focal length,
which all share (Schur complement). `fit_frames` holds these fixed and solves all frames, coupled in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..head.rotations import matrix_to_axis_angle
from .blocks import Smoothness, solve_in_time, solve_shared
from .contact import Contact
from .evidence import Evidence, view_weights, landmark_energy, landmark_normal
from .frames import FrameState
from .iris import Irises
from .outline import Outline, Shell, match
from .surface import LandmarkSurface

FOCAL_SIGMA = 0.3
"""Standard deviation of the log focal length around the guess: webcams and phones see 80 to 50 degrees, portrait lenses 25."""
FOCAL_BIAS = 0.15
"""By how much the log focal length errs however many frames there are, measured on rendered people: a face that is nearer or
deeper than the detector draws it looks like a lens."""
INDEPENDENT_FRAMES = 1.0
"""The detector misplaces a point in the same way in every frame, so many frames tell no more about identity than this
many independent ones would; identity's prior is weighed against them accordingly. Measured on the demo clip: 5, 2, 1 give
2.8, 2.5, 2.3 mm and 3.4, 3.1, 2.8 degrees, and man_glasses loses 0.03 pixels. What identity believes of the detector's
habits it believes in depth, and a face that is too deep turns too little."""
_FOCAL_FRAMES = 3.0
"""The same for the focal length. Measured on rendered people with FOCAL_SIGMA 0.3: 0.3, 3 and 10 leave errors of 23, 17 and
19 %, where the guess alone errs by 27; a wrong lens makes wide turns too small or too large."""
_HALVINGS = (12.0, 12.0, 8.0, 5.0, 4.0, 3.0)
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


@dataclass(frozen=True)
class Person:
    identity: Tensor
    """(S,)"""
    focal: Tensor
    """() pixels"""
    focal_sigma: float
    """Posterior standard deviation of the log focal length; near FOCAL_SIGMA means that the clip does not tell it."""


def fit_person(surface: LandmarkSurface, directions: Tensor, evidence: Evidence, beliefs: Beliefs, state: FrameState,
               iterations: int, told: Callable[[int, float], None]) -> Person:
    """Identity and focal length from frames that are taken as independent of each other."""
    frames, size = len(state), surface.anchor.shape.shape[-1]
    device = state.face.device
    identity = torch.zeros(size, device=device)
    guess = evidence.focal.log()
    log_focal = guess.clone()
    # Frames that repeat each other should count for less; that is the same as a shared prior that counts for more.
    focal_scale = frames / _FOCAL_FRAMES
    shared_precision = torch.cat((torch.full((size,), max(frames / INDEPENDENT_FRAMES, 1.0), device=device),
                                  torch.full((1,), focal_scale * FOCAL_SIGMA**-2, device=device)))
    prior_hessian = beliefs.hessian()
    base = evidence.weights
    damping, reduced = 1e-3, None

    def shared_offset() -> Tensor:
        return torch.cat((identity, (log_focal - guess).unsqueeze(0)))

    for iteration in range(iterations):
        evidence = replace(evidence, weights=base * view_weights(directions, evidence.jaw_line, state), focal=log_focal.exp(),
                           halving=_HALVINGS[min(iteration, len(_HALVINGS) - 1)])
        person = surface.of_person(identity)
        normal = landmark_normal(person, evidence, state, shared=True)
        energy = float((normal.energy + beliefs.energy(state)).sum() + 0.5 * (shared_precision * shared_offset() ** 2).sum())
        told(iteration, energy)
        gradient = normal.gradient + beliefs.gradient(state)
        hessian = normal.hessian + prior_hessian
        free = _free(state, gradient, beliefs)
        # The first step stands the heads and opens the jaws only: a start that is off by degrees must not bend the faces.
        if iteration == 0:
            free[:, :-13] = False
        for _ in range(6):
            blocks, cross, right = _held(hessian, normal.cross, gradient, free, damping)
            common = normal.shared_hessian.double() + torch.diag(shared_precision.double())
            pull = normal.shared_gradient.double() + shared_precision * shared_offset()
            if iteration == 0:
                cross, common = torch.zeros_like(cross), common + torch.eye(size + 1, device=device) * 1e12
            step, shared_step, reduced = solve_shared(blocks, cross, common, right, pull)
            trial = state.moved(step.float(), beliefs.lower, beliefs.upper)
            trial_identity, trial_focal = identity + shared_step[:-1].float(), log_focal + shared_step[-1].float()
            trial_offset = torch.cat((trial_identity, (trial_focal - guess).unsqueeze(0)))
            trial_energy = float(
                (landmark_energy(surface.of_person(trial_identity), replace(evidence, focal=trial_focal.exp()), trial)
                 + beliefs.energy(trial)).sum() + 0.5 * (shared_precision * trial_offset**2).sum())
            if trial_energy <= energy:
                state, identity, log_focal = trial, trial_identity, trial_focal
                damping = max(damping / 5, 1e-6)
                break
            damping *= 10
        else:
            break
        if iteration >= len(_HALVINGS) and energy - trial_energy < 2e-4 * energy:
            break
    # With the prior's scaling undone: the posterior of as many independent frames.
    variance = torch.linalg.inv(reduced / focal_scale)[-1, -1].clamp_min(0)
    return Person(identity, log_focal.exp(), min(float((variance + FOCAL_BIAS**2).sqrt()), FOCAL_SIGMA))


def fit_frames(surface: LandmarkSurface, directions: Tensor, evidence: Evidence, beliefs: Beliefs, state: FrameState,
               linked: Tensor, held: int, iterations: int, told: Callable[[int, float], None],
               outline: tuple[Outline, Shell] | None = None, contact: Contact | None = None,
               irises: Irises | None = None) -> FrameState:
    """All frames of a window, in time order, `surface` being of the person. The first `held` frames are known and only
    lend their motion; `linked` (F - 1,) bool says whether a frame and the next belong together. With `outline` also the
    head's outline has a say in its pose, with `contact` also lids and lips
    that were seen to meet, with `irises` also these for the gaze."""
    smoothness = Smoothness(beliefs.acceleration, linked)
    prior_hessian = beliefs.hessian()
    base = evidence.weights
    damping = 1e-4

    def energy_of(at: FrameState) -> float:
        seen = landmark_energy(surface, evidence, at) + beliefs.energy(at)
        if contact is not None:
            seen = seen + contact.energy(at)
        if irises is not None:
            seen = seen + irises.energy(at, evidence)
        return float((seen if matched is None else seen + matched.energy(at)).sum() + smoothness.energy(_velocity(at)))

    for iteration in range(iterations):
        matched = None if outline is None else match(*outline, evidence, state)
        # The robust scale and the view change with the iteration, so an energy is only compared within one.
        evidence = replace(evidence, weights=base * view_weights(directions, evidence.jaw_line, state),
                           halving=_HALVINGS[min(iteration + 2, len(_HALVINGS) - 1)])
        normal = landmark_normal(surface, evidence, state, shared=False)
        velocity = _velocity(state)
        energy = energy_of(state)
        told(iteration, energy)
        gradient = normal.gradient + beliefs.gradient(state) + smoothness.gradient(velocity)
        hessian = normal.hessian + prior_hessian
        if matched is not None:
            _, pull, stiffness = matched.normal(state)
            gradient[:, -6:] += pull
            hessian[:, -6:, -6:] += stiffness
        if contact is not None:
            pull, stiffness = contact.normal(state)
            gradient[:, :-6] += pull
            hessian[:, :-6, :-6] += stiffness
        if irises is not None:
            pull, stiffness = irises.normal(state, evidence)
            gradient += pull
            hessian += stiffness
        free = _free(state, gradient, beliefs)
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
        if iteration >= len(_HALVINGS) - 2 and energy - trial_energy < 1e-3 * energy:
            break
    return state


def _velocity(state: FrameState) -> Tensor:
    """First differences (F - 1, P) of a frame's parameters, rotations as left tangents."""
    turn = matrix_to_axis_angle(state.rotation[1:] @ state.rotation[:-1].transpose(1, 2))
    return torch.cat((state.face[1:] - state.face[:-1], turn, state.translation[1:] - state.translation[:-1]), 1)


def _free(state: FrameState, gradient: Tensor, beliefs: Beliefs) -> Tensor:
    """(F, P) bool: what may move: not what is fixed, nor what lies on a bound and is pushed outwards (Bertsekas 1982)."""
    free = (~beliefs.fixed).expand(gradient.shape).clone()
    pushed = gradient[:, :-6]
    stuck = ((state.face <= beliefs.lower) & (pushed > 0)) | ((state.face >= beliefs.upper) & (pushed < 0))
    free[:, :-6] &= ~stuck
    return free


def _held(hessian: Tensor, cross: Tensor, gradient: Tensor, free: Tensor, damping: float) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks, cross blocks and gradient in float64 with the parameters that are not free taken out, and damped."""
    mask = free.double()
    diagonal = hessian.diagonal(dim1=1, dim2=2).double()
    blocks = hessian.double() * mask.unsqueeze(-1) * mask.unsqueeze(-2)
    return (blocks + torch.diag_embed(torch.where(free, damping * diagonal + 1e-3, 1.0)),
            cross.double() * mask.unsqueeze(-1), gradient.double() * mask)
