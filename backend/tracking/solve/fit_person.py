"""Fitting the person: one identity and each clip's focal length, from some frames of every clip.

Levenberg-Marquardt over each frame's own parameters and the shared parameters; the Schur complement eliminates the
frames' own. The person is fitted to landmarks first. Once skin patches are registered (`terms.skin_patches`), it is
fitted to landmarks and patches together, and the patches' offsets on the head become further shared parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import FrameState, concatenate
from ..terms.skin_patches import SkinPatchTerm
from ..terms.term import NormalEquations, SharedBlocks, Term, total_energy, total_equations
from .block_systems import solve_shared
from .fit_frames import ROBUST_SCALES, free_parameters, warm_start_robust_scale
from .person import FOCAL_SIGMA, ClipFrames, Person

FOCAL_BIAS = 0.15
"""Standard deviation of the log focal length's error that more frames do not reduce, measured on rendered people: a
face with more or less depth than the detector reports has the same effect as another focal length."""
INDEPENDENT_FRAMES = 1.0
"""The detector misplaces a landmark in the same way in every frame, so many frames tell no more about identity than
this many independent ones would, and identity's prior is multiplied accordingly. Measured on the demo clip: 5, 2 and 1
give vertex errors of 2.8, 2.5 and 2.3 mm and rotation errors of 3.4, 3.1 and 2.8 degrees, and man_glasses loses 0.03
pixels. With more frames identity follows the detector's bias in depth, and a face that is too deep rotates too
little."""
_FOCAL_FRAMES = 3.0
"""Independent frames that a clip's frames count as for the focal length, without skin patches. Measured on fifteen
rendered people with FOCAL_SIGMA 0.3: 1, 3, 10 and 30 leave errors of 14, 13, 14 and 15 %, where the initial guess errs
by 27; a wrong focal length makes large rotations too small or too large."""
SKIN_FRAMES = 6.0
"""Independent frames that all frames count as for identity with skin patches, whose errors (gloss, a mesh that is not
the head) are alike in similar frames. Measured on rendered people: 3, 6 and 48 give 1.62, 1.65 and 1.83 mm, 1.90, 1.86
and 1.74 degrees."""
OFFSET_SIGMA = 0.02, 0.02, 0.0015
"""Metres: standard deviations of a patch's offset from its position on the head model, in two directions along the skin
and one across it. Along the skin it is nearly free, because the appearance was learned under a track that was degrees
off."""
FOCAL_STEP_SIGMA = 0.03
"""Standard deviation of the change of the log focal length in one round of the photometric stage. Patches are
registered under the current focal length, and rotations that are too small compensate one that is too short. Measured
on fifteen rendered people, 0.003, 0.03 and 0.1 around the last round's give 1.35, 1.34 and 1.35 degrees and focal
errors of 13, 11 and 9 %, and 0.6 to 1 around the initial guess 1.35 degrees and 9 %; but for real people who hardly
rotate their head even 0.3 around the guess brings the camera as near as 37 cm, and silhouettes fit less well
(man_glasses 0.887 instead of 0.898)."""
SCALE_SIGMA = 0.003
"""Standard deviation of the logarithm of the head's size around the landmarks' result. Images do not determine size and
distance separately; but a smaller head has smaller errors in metres, and without this prior heads shrink by 5 %."""
HELD = 1e12
"""Precision of a parameter that does not move."""
_MIN_IMPROVEMENT = 2e-4
"""Relative change of the energy below which the iterations end, once the robust scale no longer changes."""
_TRIES = 6
"""Damping factors that are tried in one iteration; if none lowers the energy, the fit ends."""


class _SharedParameters:
    """The layout of the vector of shared parameters and its Gaussian prior: identity (S), log focal lengths (C), patch
    offsets (3 K).

    A landmark's error is nearly the same in all frames, so F frames are worth only INDEPENDENT_FRAMES frames. Without
    skin patches, identity's prior is therefore multiplied by F / INDEPENDENT_FRAMES, which is equivalent to weighting
    the frames down. With skin patches the landmarks' weight is multiplied by INDEPENDENT_FRAMES / F instead, and
    identity's prior by F / SKIN_FRAMES, because the patches' errors are less alike between frames.
    """

    def __init__(self, clips: Sequence[ClipFrames], previous: Person | None) -> None:
        device = clips[0].state.face.device
        skin = clips[0].skin
        lengths = torch.tensor([len(clip.state) for clip in clips], device=device)
        frames = int(lengths.sum())
        self.identity = slice(clips[0].landmarks.generic_surface.position.shape.shape[-1])
        self.focals = slice(self.identity.stop, self.identity.stop + len(clips))
        count = 0 if skin is None else skin.bases.shape[0]
        self.offsets = slice(self.focals.stop, self.focals.stop + 3 * count)
        focals = torch.stack([clip.camera.focal for clip in clips]) if previous is None else previous.focals
        mean = torch.zeros(self.offsets.stop, device=device)
        mean[self.focals] = focals.log()
        self.initial = mean.clone()
        self.prior_scale = torch.ones(self.focals.stop, device=device)
        independent = INDEPENDENT_FRAMES if skin is None else SKIN_FRAMES
        self.prior_scale[self.identity] = max(frames / independent, 1.0)
        self.prior_scale[self.focals] = (lengths / _FOCAL_FRAMES).clamp_min(1) if skin is None else 1.0
        self.landmark_weight = 1.0 if skin is None else min(INDEPENDENT_FRAMES / frames, 1.0)
        diagonal = torch.cat((self.prior_scale, torch.tensor(OFFSET_SIGMA, device=device).repeat(count) ** -2))
        diagonal[self.focals] *= (FOCAL_SIGMA if previous is None else FOCAL_STEP_SIGMA) ** -2
        self.precision, self._precision_mean = torch.diag(diagonal), diagonal * mean
        if previous is not None:
            self.initial[self.identity] = previous.identity
            if skin is not None:
                self._add_size_prior(skin, previous)
        self.focals_known = torch.tensor([clip.focal_known for clip in clips], device=device)
        self.columns = [
            torch.cat(
                (
                    torch.arange(self.identity.stop),
                    torch.tensor([self.identity.stop + index]),
                    torch.arange(self.offsets.start, self.offsets.stop),
                )
            ).to(device)
            for index in range(len(clips))
        ]
        """For each clip, the columns of this vector that its terms depend on."""

    def _add_size_prior(self, skin: SkinPatchTerm, previous: Person) -> None:
        """Add the prior that the head keeps the size of the `previous` person. Size is measured on the patches'
        centres, because the landmarks' surface is distorted to what the detector reports.
        """
        points = skin.generic_surface.position
        rest = points.rest - points.rest.mean(0)
        growth = torch.einsum("lc,lck->k", rest, points.shape - points.shape.mean(0)) / (rest**2).sum()
        precision = torch.outer(growth, growth) / SCALE_SIGMA**2
        self.precision[self.identity, self.identity] += precision
        self._precision_mean[self.identity] += precision @ previous.identity

    def energy(self, at: Tensor) -> Tensor:
        """The prior's energy at the shared parameters `at`, (), up to a constant."""
        return 0.5 * at @ self.precision @ at - self._precision_mean @ at

    def gradient(self, at: Tensor) -> Tensor:
        """The gradient of `energy` at the shared parameters `at`, of their shape."""
        return self.precision @ at - self._precision_mean


class _JointProblem:
    """The frames of all clips, concatenated in one state, with their terms and the shared parameters' prior."""

    def __init__(self, clips: Sequence[ClipFrames], common: _SharedParameters) -> None:
        ends = np.cumsum([len(clip.state) for clip in clips]).tolist()
        self.parts = [slice(end - len(clip.state), end) for end, clip in zip(ends, clips, strict=True)]
        device = clips[0].state.face.device
        self.clip_of_frame = torch.cat([torch.full((len(clip.state),), index) for index, clip in enumerate(clips)]).to(
            device
        )
        """(F,): the number of the clip that a frame belongs to."""
        self.cameras = [clip.camera for clip in clips]
        self.common = common
        self.terms: list[list[Term]] = [
            [clip.landmarks.scaled(common.landmark_weight), clip.prior] + ([] if clip.skin is None else [clip.skin])
            for clip in clips
        ]

    def reweighted(self, state: FrameState, shared: Tensor, robust_scale: float) -> list[list[Term]]:
        """Each clip's terms with weights and correspondences for the current estimate; see `Term.reweighted`."""
        return [
            [term.reweighted(state[part], camera, robust_scale) for term in terms]
            for terms, part, camera in zip(self.terms, self.parts, self._cameras(shared), strict=True)
        ]

    def energy(self, terms: list[list[Term]], state: FrameState, shared: Tensor) -> float:
        """The energy of all terms and of the shared parameters' prior."""
        total = self.common.energy(shared)
        for own, part, camera in self._of_person(terms, shared):
            total = total + total_energy(own, state[part], camera)
        return float(total)

    def equations(self, terms: list[list[Term]], state: FrameState, shared: Tensor) -> NormalEquations:
        """The normal equations of all terms and of the shared parameters' prior; the shared blocks are float64."""
        parts = [
            total_equations(own, state[part], camera, shared=True)
            for own, part, camera in self._of_person(terms, shared)
        ]
        energy, gradient, hessian = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("energy", "gradient", "hessian")
        )
        cross = hessian.new_zeros(*hessian.shape[:2], len(shared))
        shared_hessian = self.common.precision.double()
        held = torch.zeros(len(shared_hessian), dtype=torch.float64, device=shared_hessian.device)
        held[self.common.focals] = HELD * self.common.focals_known
        shared_hessian = shared_hessian + torch.diag(held)
        shared_gradient = self.common.gradient(shared).double()
        for found, part, columns in zip(parts, self.parts, self.common.columns, strict=True):
            blocks = found.required_shared()
            cross[part] = cross[part].index_copy(2, columns, blocks.cross)
            shared_hessian[columns[:, None], columns] += blocks.hessian.double()
            shared_gradient[columns] += blocks.gradient.double()
        return NormalEquations(energy, gradient, hessian, SharedBlocks(shared_gradient, shared_hessian, cross))

    def _cameras(self, shared: Tensor) -> list[Camera]:
        focals = shared[self.common.focals].exp()
        return [camera.with_focal(focal) for camera, focal in zip(self.cameras, focals, strict=True)]

    def _of_person(self, terms: list[list[Term]], shared: Tensor) -> list[tuple[list[Term], slice, Camera]]:
        """For each clip: its terms for these shared parameters, the slice of its frames, and its camera."""
        identity, offsets = shared[self.common.identity], shared[self.common.offsets].unflatten(0, (-1, 3))
        of_person = [[term.of_person(identity, offsets) for term in own] for own in terms]
        return list(zip(of_person, self.parts, self._cameras(shared), strict=True))


def fit_person(
    clips: Sequence[ClipFrames],
    iterations: int,
    on_iteration: Callable[[int], None] = lambda iteration: None,
    previous: Person | None = None,
) -> tuple[Person, list[FrameState]]:
    """Fit one identity and each clip's focal length, with the frames' own parameters. No smoothness acts between
    frames.

    Args:
        clips: The frames of every clip, with their initial parameters.
        iterations: The largest number of iterations.
        on_iteration: Called with the iteration's number before its step.
        previous: The person to start from, whose head keeps its size and whose focal lengths change little. Without it
            the fit starts from the mean person.

    Returns:
        The person, and the fitted parameters of each clip's frames.

    """
    common = _SharedParameters(clips, previous)
    problem = _JointProblem(clips, common)
    bounds = clips[0].bounds
    state, shared = concatenate([clip.state for clip in clips]), common.initial
    damping, reduced = 1e-3, common.precision.double()

    for iteration in range(iterations):
        scale = (
            warm_start_robust_scale(iteration)
            if previous is not None
            else ROBUST_SCALES[min(iteration, len(ROBUST_SCALES) - 1)]
        )
        terms = problem.reweighted(state, shared, scale)
        equations = problem.equations(terms, state, shared)
        energy = problem.energy(terms, state, shared)
        on_iteration(iteration)
        blocks = equations.required_shared()
        cross, shared_hessian = blocks.cross, blocks.hessian
        free = free_parameters(state, equations.gradient, bounds)
        # The first step changes only head poses, jaws and eyes: initial poses that are degrees off must not deform
        # faces.
        first = iteration == 0 and previous is None
        if first:
            free[:, state.layout.expression] = False
            cross = torch.zeros_like(cross)
            shared_hessian = shared_hessian + torch.eye(len(shared), device=shared.device) * HELD
        for _ in range(_TRIES):
            own, free_cross, gradient = _restricted(equations.hessian, cross, equations.gradient, free, damping)
            step, shared_step, marginal = solve_shared(own, free_cross, shared_hessian, gradient, blocks.gradient)
            reduced = reduced if first else marginal
            trial_shared, zoom = shared + shared_step.float(), shared_step[common.focals].exp().float()
            trial = state.updated(step.float(), bounds).dolly_zoomed(zoom[problem.clip_of_frame])
            trial_energy = problem.energy(terms, trial, trial_shared)
            if trial_energy <= energy:
                state, shared = trial, trial_shared
                damping = max(damping / 5, 1e-6)
                break
            damping *= 10
        else:
            break
        if iteration >= len(ROBUST_SCALES) and energy - trial_energy < _MIN_IMPROVEMENT * abs(energy):
            break
    person = Person(
        shared[common.identity],
        shared[common.focals].exp(),
        shared[common.offsets].unflatten(0, (-1, 3)),
        _covariance(reduced, common, previous),
    )
    return person, [state[part] for part in problem.parts]


def _covariance(reduced: Tensor, common: _SharedParameters, previous: Person | None) -> Tensor:
    """The covariance (S + C, S + C) of identity and log focal lengths, from the shared parameters' Schur complement."""
    # Undoing the multiplication of the prior gives the posterior from the corresponding number of independent frames.
    scales = common.prior_scale.double().sqrt()
    covariance = scales[:, None] * torch.linalg.inv(reduced)[: len(scales), : len(scales)] * scales
    # A prior around the previous focal length adds no information, so the previous uncertainty is added.
    covariance[common.focals, common.focals] += (
        FOCAL_BIAS**2 * torch.diag((~common.focals_known).float())
        if previous is None
        else previous.covariance[common.focals, common.focals]
    )
    return covariance


def _restricted(
    hessian: Tensor, cross: Tensor, gradient: Tensor, free: Tensor, damping: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Damped blocks (F, P, P), cross blocks (F, P, K) and gradient (F, P) in float64, in which the parameters that are
    not `free` (F, P) are decoupled from all others and have a zero step.
    """
    mask = free.double()
    diagonal = hessian.diagonal(dim1=1, dim2=2).double()
    blocks = hessian.double() * mask.unsqueeze(-1) * mask.unsqueeze(-2)
    return (
        blocks + torch.diag_embed(torch.where(free, damping * diagonal + 1e-3, 1.0)),
        cross.double() * mask.unsqueeze(-1),
        gradient.double() * mask,
    )
