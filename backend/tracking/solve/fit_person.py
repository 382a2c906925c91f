"""Fitting the person: one identity and each clip's focal length, from some frames of every clip.

Levenberg-Marquardt over the frames' own parameters and those that they share, by the Schur complement. First by
landmarks; then, once skin patches are registered (`terms.skin_patches`), by both, with the patches' offsets on the head
as further shared parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import Bounds, FrameState, concatenate
from ..terms.landmarks import LandmarkTerm
from ..terms.priors import PriorTerm
from ..terms.skin_patches import SkinPatchTerm
from ..terms.term import NormalEquations, SharedBlocks, Term, total_energy, total_equations
from .block_systems import solve_shared
from .fit_frames import ROBUST_SCALES, free_parameters, robust_scale_of

FOCAL_SIGMA = 0.3
"""Standard deviation of the log focal length around the initial guess: webcams and phones have fields of view of 80 to
50 degrees, portrait lenses 25."""
FOCAL_BIAS = 0.15
"""By how much the log focal length errs however many frames there are, measured on rendered people: a face that is
nearer or deeper than the detector draws it looks like another focal length."""
INDEPENDENT_FRAMES = 1.0
"""The detector misplaces a landmark in the same way in every frame, so many frames tell no more about identity than
this many independent ones would; identity's prior is weighed against them accordingly. Measured on the demo clip: 5, 2
and 1 give 2.8, 2.5 and 2.3 mm and 3.4, 3.1 and 2.8 degrees, and man_glasses loses 0.03 pixels. With more frames
identity follows the detector's bias in depth, and a face that is too deep rotates too little."""
_FOCAL_FRAMES = 3.0
"""The same for the focal length. Measured on fifteen rendered people with FOCAL_SIGMA 0.3: 1, 3, 10 and 30 leave errors
of 14, 13, 14 and 15 %, where the initial guess errs by 27; a wrong focal length makes large rotations too small or too
large."""
SKIN_FRAMES = 6.0
"""The same for identity with skin patches, whose errors (gloss, a mesh that is not the head) are alike in similar
frames. Measured on rendered people: 3, 6 and 48 give 1.62, 1.65 and 1.83 mm, 1.90, 1.86 and 1.74 degrees."""
OFFSET_SIGMA = 0.02, 0.02, 0.0015
"""Metres by which a patch lies beside its position on the head model, twice along the skin and once across it. It is
free along the skin, because the appearance was learned under a track that was degrees off."""
FOCAL_STEP_SIGMA = 0.03
"""By how much the log focal length moves in one round of the photometric stage. Patches are registered under the
current focal length, and rotations that are too small compensate one that is too short. Measured on fifteen rendered
people, 0.003, 0.03 and 0.1 around the last round's give 1.35, 1.34 and 1.35 degrees and focal errors of 13, 11 and 9 %,
and 0.6 to 1 around the initial guess 1.35 degrees and 9 %; but of real people who hardly rotate their head even 0.3
around the guess brings the camera as near as 37 cm, and silhouettes fit less well (man_glasses 0.887 instead of
0.898)."""
SCALE_SIGMA = 0.003
"""Standard deviation of the logarithm of the head's size around the landmarks' result. No image shows size apart from
distance; but a smaller head has smaller errors in metres, and without this prior heads shrink by 5 %."""
_MIN_IMPROVEMENT = 2e-4
"""Relative change of the energy below which the iterations end, once the robust scale no longer changes."""
_TRIES = 6


@dataclass(frozen=True)
class ClipFrames:
    """Some frames of one clip."""

    landmarks: LandmarkTerm
    prior: PriorTerm
    bounds: Bounds
    camera: Camera
    """With the initial guess of the focal length."""
    state: FrameState
    skin: SkinPatchTerm | None = None
    """In all clips, or in none."""


@dataclass(frozen=True)
class Person:
    """What all frames of a person share, with C clips and K skin patches."""

    identity: Tensor
    """(S,)"""
    focals: Tensor
    """(C,) pixels, of every clip."""
    patch_offsets: Tensor
    """(K, 3) metres: how far skin patches lie beside their position on the head model, along their bases; K = 0 without
    skin."""
    covariance: Tensor
    """(S + C, S + C) float64: of identity and log focal lengths, with everything else marginalised."""

    def focal_sigma(self, clip: int) -> float:
        """Standard deviation of a clip's log focal length; near FOCAL_SIGMA means that the clip does not determine
        it.
        """
        return min(float(self.covariance[len(self.identity) + clip, len(self.identity) + clip].sqrt()), FOCAL_SIGMA)

    def covariance_of(self, clip: int) -> Tensor:
        """(S + 1, S + 1): of identity and one clip's log focal length."""
        size = len(self.identity)
        own = torch.cat((torch.arange(size), torch.tensor([size + clip]))).to(self.covariance.device)
        return self.covariance[own[:, None], own]


class _SharedParameters:
    """The vector of what all frames share, and its prior: identity (S), log focal lengths (C), patch offsets (3 K).

    The detector misplaces a landmark alike in all frames. So without skin patches identity's prior is weighed against
    INDEPENDENT_FRAMES frames: counting repeating frames less is the same as counting the prior more. With skin patches,
    whose errors are independent between frames, the landmarks' own weight is divided instead.
    """

    def __init__(self, clips: Sequence[ClipFrames], known: Person | None) -> None:
        device = clips[0].state.face.device
        skin = clips[0].skin
        lengths = torch.tensor([len(clip.state) for clip in clips], device=device)
        frames = int(lengths.sum())
        self.identity = slice(clips[0].landmarks.generic_surface.position.shape.shape[-1])
        self.focals = slice(self.identity.stop, self.identity.stop + len(clips))
        count = 0 if skin is None else skin.bases.shape[0]
        self.offsets = slice(self.focals.stop, self.focals.stop + 3 * count)
        focals = torch.stack([clip.camera.focal for clip in clips]) if known is None else known.focals
        mean = torch.zeros(self.offsets.stop, device=device)
        mean[self.focals] = focals.log()
        self.initial = mean.clone()
        self.prior_scale = torch.ones(self.focals.stop, device=device)
        independent = INDEPENDENT_FRAMES if skin is None else SKIN_FRAMES
        self.prior_scale[self.identity] = max(frames / independent, 1.0)
        self.prior_scale[self.focals] = (lengths / _FOCAL_FRAMES).clamp_min(1) if skin is None else 1.0
        self.landmark_weight = 1.0 if skin is None else min(INDEPENDENT_FRAMES / frames, 1.0)
        diagonal = torch.cat((self.prior_scale, torch.tensor(OFFSET_SIGMA, device=device).repeat(count) ** -2))
        diagonal[self.focals] *= (FOCAL_SIGMA if known is None else FOCAL_STEP_SIGMA) ** -2
        self.precision, self._precision_mean = torch.diag(diagonal), diagonal * mean
        if known is not None:
            self.initial[self.identity] = known.identity
            if skin is not None:
                self._hold_size(skin, known)
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

    def _hold_size(self, skin: SkinPatchTerm, known: Person) -> None:
        """The prior on the head's size, measured on the patches' centres: the landmarks' compared surface is distorted
        as the detector sees it.
        """
        points = skin.generic_surface.position
        rest = points.rest - points.rest.mean(0)
        growth = torch.einsum("lc,lck->k", rest, points.shape - points.shape.mean(0)) / (rest**2).sum()
        precision = torch.outer(growth, growth) / SCALE_SIGMA**2
        self.precision[self.identity, self.identity] += precision
        self._precision_mean[self.identity] += precision @ known.identity

    def energy(self, at: Tensor) -> Tensor:
        """() up to a constant."""
        return 0.5 * at @ self.precision @ at - self._precision_mean @ at

    def gradient(self, at: Tensor) -> Tensor:
        return self.precision @ at - self._precision_mean


class _Clips:
    """The frames of all clips as one state, and each clip's terms."""

    def __init__(self, clips: Sequence[ClipFrames], common: _SharedParameters) -> None:
        ends = np.cumsum([len(clip.state) for clip in clips]).tolist()
        self.parts = [slice(end - len(clip.state), end) for end, clip in zip(ends, clips, strict=True)]
        device = clips[0].state.face.device
        self.clip_of_frame = torch.cat([torch.full((len(clip.state),), index) for index, clip in enumerate(clips)]).to(
            device
        )
        self.cameras = [clip.camera for clip in clips]
        self.common = common
        self.terms: list[list[Term]] = [
            [clip.landmarks.scaled(common.landmark_weight), clip.prior] + ([] if clip.skin is None else [clip.skin])
            for clip in clips
        ]

    def reweighted(self, state: FrameState, shared: Tensor, robust_scale: float) -> list[list[Term]]:
        return [
            [term.reweighted(state[part], camera, robust_scale) for term in terms]
            for terms, part, camera in zip(self.terms, self.parts, self._cameras(shared), strict=True)
        ]

    def energy(self, terms: list[list[Term]], state: FrameState, shared: Tensor) -> float:
        total = self.common.energy(shared)
        for own, part, camera in self._of_person(terms, shared):
            total = total + total_energy(own, state[part], camera)
        return float(total)

    def equations(self, terms: list[list[Term]], state: FrameState, shared: Tensor) -> NormalEquations:
        """All frames' own blocks, and the shared blocks (in float64) with the shared parameters' prior."""
        parts = [
            total_equations(own, state[part], camera, shared=True)
            for own, part, camera in self._of_person(terms, shared)
        ]
        energy, gradient, hessian = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("energy", "gradient", "hessian")
        )
        cross = hessian.new_zeros(*hessian.shape[:2], len(shared))
        shared_hessian = self.common.precision.double()
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
        """Each clip's terms for these shared parameters, its frames, and its camera."""
        identity, offsets = shared[self.common.identity], shared[self.common.offsets].unflatten(0, (-1, 3))
        of_person = [[term.of_person(identity, offsets) for term in own] for own in terms]
        return list(zip(of_person, self.parts, self._cameras(shared), strict=True))


def fit_person(
    clips: Sequence[ClipFrames],
    iterations: int,
    on_iteration: Callable[[int], None] = lambda iteration: None,
    known: Person | None = None,
) -> tuple[Person, list[FrameState]]:
    """One identity, and each clip's focal length, from frames that are taken as independent of each other.

    Starts from the mean person, or from the person that is `known` so far, whose head keeps its size. Also returns the
    state of each clip's frames.
    """
    common = _SharedParameters(clips, known)
    together = _Clips(clips, common)
    bounds = clips[0].bounds
    state, shared = concatenate([clip.state for clip in clips]), common.initial
    damping, reduced = 1e-3, common.precision.double()

    for iteration in range(iterations):
        scale = (
            robust_scale_of(iteration) if known is not None else ROBUST_SCALES[min(iteration, len(ROBUST_SCALES) - 1)]
        )
        terms = together.reweighted(state, shared, scale)
        equations = together.equations(terms, state, shared)
        energy = together.energy(terms, state, shared)
        on_iteration(iteration)
        blocks = equations.required_shared()
        cross, shared_hessian = blocks.cross, blocks.hessian
        free = free_parameters(state, equations.gradient, bounds)
        # The first step moves heads and opens jaws only: an initial pose that is degrees off must not deform the faces.
        first = iteration == 0 and known is None
        if first:
            free[:, state.layout.expression] = False
            cross = torch.zeros_like(cross)
            shared_hessian = shared_hessian + torch.eye(len(shared), device=shared.device) * 1e12
        for _ in range(_TRIES):
            own, free_cross, gradient = _restricted(equations.hessian, cross, equations.gradient, free, damping)
            step, shared_step, marginal = solve_shared(own, free_cross, shared_hessian, gradient, blocks.gradient)
            reduced = reduced if first else marginal
            trial_shared, zoom = shared + shared_step.float(), shared_step[common.focals].exp().float()
            trial = state.updated(step.float(), bounds).dolly_zoomed(zoom[together.clip_of_frame])
            trial_energy = together.energy(terms, trial, trial_shared)
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
        _covariance(reduced, common, known),
    )
    return person, [state[part] for part in together.parts]


def _covariance(reduced: Tensor, common: _SharedParameters, known: Person | None) -> Tensor:
    """Of identity and log focal lengths, from the shared parameters' reduced matrix."""
    # With the prior's scaling undone: the posterior of as many independent frames.
    scales = common.prior_scale.double().sqrt()
    covariance = scales[:, None] * torch.linalg.inv(reduced)[: len(scales), : len(scales)] * scales
    clips = common.focals.stop - common.focals.start
    # A focal length that is held near its previous value is known no better than before.
    covariance[common.focals, common.focals] += (
        FOCAL_BIAS**2 * torch.eye(clips, device=reduced.device)
        if known is None
        else known.covariance[common.focals, common.focals]
    )
    return covariance


def _restricted(
    hessian: Tensor, cross: Tensor, gradient: Tensor, free: Tensor, damping: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Damped blocks, cross blocks and gradient in float64, with the parameters that are not `free` taken out."""
    mask = free.double()
    diagonal = hessian.diagonal(dim1=1, dim2=2).double()
    blocks = hessian.double() * mask.unsqueeze(-1) * mask.unsqueeze(-2)
    return (
        blocks + torch.diag_embed(torch.where(free, damping * diagonal + 1e-3, 1.0)),
        cross.double() * mask.unsqueeze(-1),
        gradient.double() * mask,
    )
