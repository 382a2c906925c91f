"""Fitting frames: Levenberg-Marquardt over every frame's expression, jaw, eyes and head pose with a fixed person.

The energy is the sum of a list of terms. All frames of a clip are solved in windows, so that memory does not grow with
the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import Bounds, FrameState, concatenate
from ..terms.smoothness import SmoothnessTerm
from ..terms.term import NormalEquations, Term, total_energy, total_equations
from .block_systems import solve_in_time, solve_independent, variances_in_time

ROBUST_SCALES = (12.0, 12.0, 8.0, 5.0, 4.0, 3.0)
"""s of `term.robust` in each iteration: from nearly least squares, which has a wide basin of convergence, to robust
against outliers."""
WINDOW = 512
"""Frames that are solved at once."""
_LOOK_AHEAD = 16
"""Frames after a window that are solved together with it and solved again in the next window, so that motion is smooth
across the window's end."""
_TRIES = 6
"""Damping factors that are tried in one iteration; if none lowers the energy, the fit ends."""
_POSE_SIGMA = (1.0, 1.0, 1.0, 0.3, 0.3, 0.3)
"""Radians and metres: standard deviations of the pose of a head that nothing constrains."""


def warm_start_robust_scale(iteration: int) -> float:
    """The robust scale in an iteration of a fit that starts near its solution: it skips the first two of
    ROBUST_SCALES.
    """
    return ROBUST_SCALES[min(iteration + 2, len(ROBUST_SCALES) - 1)]


def fit_frames(
    terms: Sequence[Term],
    camera: Camera,
    state: FrameState,
    bounds: Bounds,
    *,
    iterations: int,
    held: int = 0,
    on_iteration: Callable[[int], None] = lambda iteration: None,
) -> tuple[FrameState, NormalEquations]:
    """Minimise the sum of `terms` over the parameters of F frames in time order, starting from `state`.

    The first `held` frames stay fixed; they only constrain the motion of the others. `on_iteration` is called with the
    iteration's number before its step.

    Returns:
        The fitted frames, and the normal equations from which the last iteration's step was computed.

    """
    damping, equations = 1e-4, None
    for iteration in range(iterations):
        # Robust weights, bias and correspondences change with the iteration, so energies are compared only within one.
        current = [term.reweighted(state, camera, warm_start_robust_scale(iteration)) for term in terms]
        equations = total_equations(current, state, camera)
        energy = float(total_energy(current, state, camera))
        on_iteration(iteration)
        free = free_parameters(state, equations.gradient, bounds)
        free[:held] = False
        diagonal = equations.hessian.diagonal(dim1=1, dim2=2)
        for _ in range(_TRIES):
            damped = equations.hessian + torch.diag_embed(damping * diagonal + 1e-3)
            if equations.coupling is None:
                step = solve_independent(damped, equations.gradient, free)
            else:
                step = solve_in_time(damped, equations.gradient, equations.coupling, free)
            trial = state.updated(step, bounds)
            if float(total_energy(current, trial, camera)) <= energy:
                state, damping = trial, max(damping / 5, 1e-6)
                break
            damping *= 10
        else:
            break
    if equations is None:
        raise ValueError("fitting frames takes at least one iteration")
    return state, equations


def free_parameters(state: FrameState, gradient: Tensor, bounds: Bounds) -> Tensor:
    """(F, P) bool: the parameters that a step may change. Fixed parameters are excluded, and those at a bound which a
    descent step would cross (Bertsekas 1982).
    """
    free = (~bounds.fixed).expand(gradient.shape).clone()
    face = state.layout.face
    slope = gradient[:, face]
    blocked = ((state.face <= bounds.lower) & (slope > 0)) | ((state.face >= bounds.upper) & (slope < 0))
    free[:, face] &= ~blocked
    return free


@dataclass(frozen=True)
class FittedClip:
    """All frames of a clip after a pass over its windows."""

    state: FrameState
    variances: Tensor | None
    """(F, P): the parameters' marginal variances with the person fixed, if they were requested."""

    def required_variances(self) -> Tensor:
        """The variances (F, P); raises a ValueError if the clip was fitted without them."""
        if self.variances is None:
            raise ValueError("this clip was fitted without variances")
        return self.variances


def fit_windows(
    terms: Sequence[Term],
    camera: Camera,
    state: FrameState,
    bounds: Bounds,
    *,
    training_count: int,
    iterations: int,
    with_variances: bool = False,
    on_frames: Callable[[int], None] = lambda done: None,
) -> FittedClip:
    """Fit all F frames of a clip in consecutive windows of WINDOW frames. The last two frames of the window before stay
    fixed and keep the motion smooth across the boundary.

    No window extends past the training part (the first `training_count` frames), so held-out frames never influence
    training frames; the reverse is allowed. `on_frames` is called with the number of frames done.
    """
    frames = len(state)
    done: list[FrameState] = []
    variances: list[Tensor] = []
    start = 0
    while start < frames:
        part_end = training_count if start < training_count else frames
        end = min(start + WINDOW, part_end)
        reach = min(end + _LOOK_AHEAD, part_end)
        held = min(2, start)
        initial = state[start:reach]
        if held:
            initial = concatenate([done[-1][-held:], initial])
        window = [term[start - held : reach] for term in terms]

        def on_iteration(iteration: int, start: int = start, end: int = end) -> None:
            on_frames(start + (end - start) * iteration // iterations)

        solved, equations = fit_frames(
            window, camera, initial, bounds, iterations=iterations, held=held, on_iteration=on_iteration
        )
        own = slice(held, held + end - start)
        done.append(solved[own])
        if with_variances:
            variances.append(_variances(window, equations, solved, camera)[own])
        start = end
    on_frames(frames)
    return FittedClip(concatenate(done), torch.cat(variances) if variances else None)


def _variances(window: Sequence[Term], equations: NormalEquations, state: FrameState, camera: Camera) -> Tensor:
    """The parameters' marginal variances (F, P) in a solved window."""
    hessian = equations.hessian.clone()
    # The equations of frames without a face can be singular; a weak prior on the pose prevents it.
    pose_precision = torch.tensor(_POSE_SIGMA, device=hessian.device) ** -2
    hessian.diagonal(dim1=1, dim2=2)[:, state.layout.pose] += pose_precision
    smoothness = next(term for term in window if isinstance(term, SmoothnessTerm))
    smoothness = replace(smoothness, relax_unobserved=True).reweighted(state, camera, ROBUST_SCALES[-1])
    return variances_in_time(hessian, smoothness.current_coupling())
