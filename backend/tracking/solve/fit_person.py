"""Who it is and through which lens: one identity and each clip's focal length, with some frames of every clip.

Levenberg-Marquardt over what the frames share and what each has of its own, by the Schur complement: landmarks first; then,
where the skin was looked at (`patches`), both, and where on the head each patch lies as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..model.frame_state import FrameState, concatenate
from ..model.landmark_surface import LandmarkSurface
from ..terms.landmarks import Evidence, Normal, as_seen, landmark_energy, landmark_normal
from ..terms.skin_patches import Patches
from .block_systems import solve_shared
from .fit_frames import HALVINGS, Beliefs, free_to_move

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
"""The same for the focal length. Measured on fifteen rendered people with FOCAL_SIGMA 0.3: 1, 3, 10 and 30 leave errors of 14, 13,
14 and 15 %, where the guess alone errs by 27; a wrong lens makes wide turns too small or too large."""
SKIN_FRAMES = 6.0
"""What patches of skin get wrong (gloss, a mesh that is not the head) is alike in frames that are alike; the same for identity
once the skin was looked at. Measured on rendered people: 3, 6 and 48 give 1.62, 1.65 and 1.83 mm, 1.90, 1.86 and 1.74 degrees."""
PLACE_SIGMA = 0.02, 0.02, 0.0015
"""Metres by which a patch lies beside its place on the head model, along the skin twice, and across it: free along it, for its
pattern was learned under a track that was degrees off."""
LENS_SIGMA = 0.03
"""By which the log focal length moves in a round of the photometric stage. What the skin says of the lens it says under the lens that
it was learned with, and there is a valley: turns that are too small and a lens that is too wide. Measured on fifteen rendered people,
0.003, 0.03 and 0.1 around the last round's give 1.35, 1.34 and 1.35 degrees and lens errors of 13, 11 and 9 %, and 0.6 to 1 around the
guess 1.35 degrees and 9 %; but of real people who hardly turn even 0.3 around the guess brings the camera as near as 37 cm, and
silhouettes fit less well (man_glasses 0.887 in place of 0.898)."""
SCALE_SIGMA = 0.003
"""Of the logarithm of the head's size, around what landmarks made of it. No picture tells size from distance; but a smaller head
has smaller errors in metres, and without this heads shrink by 5 %."""


@dataclass(frozen=True)
class ClipFrames:
    """Some frames of one clip, seen through one lens."""

    evidence: Evidence
    """Its focal length is the guess."""
    beliefs: Beliefs
    state: FrameState
    skin: Patches | None = None
    """In all clips, or in none."""


@dataclass(frozen=True)
class Person:
    identity: Tensor
    """(S,)"""
    focals: Tensor
    """(C,) pixels, of every clip."""
    places: Tensor
    """(K, 3) metres: where patches of skin lie beside their places on the head model, along their bases; none without skin."""
    covariance: Tensor
    """(S + C, S + C) float64: of identity and the log focal lengths, all else marginalised."""

    def focal_sigma(self, clip: int) -> float:
        """Standard deviation of a clip's log focal length; near FOCAL_SIGMA means that the clip does not tell it."""
        return min(float(self.covariance[len(self.identity) + clip, len(self.identity) + clip].sqrt()), FOCAL_SIGMA)

    def covariance_of(self, clip: int) -> Tensor:
        """(S + 1, S + 1): of identity and one clip's log focal length."""
        size = len(self.identity)
        own = torch.cat((torch.arange(size), torch.tensor([size + clip]))).to(self.covariance.device)
        return self.covariance[own[:, None], own]


class _Shared:
    """What all frames share, as one vector: identity (S), log focal lengths (C), places of patches (3 K); and what is believed
    of it before anything is seen.

    The detector misplaces a point alike in all frames. So without skin identity's prior is weighed against INDEPENDENT_FRAMES of
    them: frames that repeat each other should count for less, which is the same as a prior that counts for more. With skin,
    whose evidence is fresh in every frame, the landmarks' own weight is divided instead.
    """

    def __init__(self, surface: LandmarkSurface, clips: list[ClipFrames], known: Person | None) -> None:
        device = clips[0].state.face.device
        lengths = torch.tensor([len(clip.state) for clip in clips], device=device)
        frames, self.skin = int(lengths.sum()), clips[0].skin is not None
        self.identity = slice(surface.anchor.shape.shape[-1])
        self.lens = slice(self.identity.stop, self.identity.stop + len(clips))
        count = clips[0].skin.bases.shape[0] if self.skin else 0
        self.places = slice(self.lens.stop, self.lens.stop + 3 * count)
        focals = torch.stack([clip.evidence.focal for clip in clips]) if known is None else known.focals
        middle = torch.zeros(self.places.stop, device=device)
        middle[self.lens] = focals.log()
        self.start = middle.clone()
        self.prior_scale = torch.ones(self.lens.stop, device=device)
        self.prior_scale[self.identity] = max(frames / (SKIN_FRAMES if self.skin else INDEPENDENT_FRAMES), 1.0)
        self.prior_scale[self.lens] = 1.0 if self.skin else (lengths / _FOCAL_FRAMES).clamp_min(1)
        self.landmark_share = min(INDEPENDENT_FRAMES / frames, 1.0) if self.skin else 1.0
        own = torch.cat((self.prior_scale, torch.tensor(PLACE_SIGMA, device=device).repeat(count) ** -2))
        own[self.lens] *= (FOCAL_SIGMA if known is None else LENS_SIGMA) ** -2
        self.precision, self._pull = torch.diag(own), own * middle
        if known is not None:
            self.start[self.identity] = known.identity
            # Of the patches and not of the landmarks, whose surface is as the detector sees it.
            points = clips[0].skin.surface.anchor
            rest = points.rest - points.rest.mean(0)
            grows = torch.einsum("lc,lck->k", rest, points.shape - points.shape.mean(0)) / (rest**2).sum()
            held = torch.outer(grows, grows) / SCALE_SIGMA**2
            self.precision[self.identity, self.identity] += held
            self._pull[self.identity] += held @ known.identity
        self.columns = [
            torch.cat(
                (
                    torch.arange(self.identity.stop),
                    torch.tensor([self.identity.stop + index]),
                    torch.arange(self.places.start, self.places.stop),
                )
            ).to(device)
            for index in range(len(clips))
        ]

    def energy(self, at: Tensor) -> Tensor:
        """(), but for a constant."""
        return 0.5 * at @ self.precision @ at - self._pull @ at

    def gradient(self, at: Tensor) -> Tensor:
        return self.precision @ at - self._pull


def fit_person(
    surface: LandmarkSurface,
    directions: Tensor,
    clips: list[ClipFrames],
    iterations: int,
    told: Callable[[int, float], None],
    known: Person | None = None,
) -> tuple[Person, list[FrameState]]:
    """One identity, and each clip's focal length, from frames that are taken as independent of each other: begun anew, or at
    the person that is `known` by now, whose head is as large. Also returns how each clip's frames stand then."""
    common = _Shared(surface, clips, known)
    ends = np.cumsum([len(clip.state) for clip in clips]).tolist()
    parts = [slice(end - len(clip.state), end) for end, clip in zip(ends, clips, strict=True)]
    lens_of = torch.cat([torch.full((len(clip.state),), index) for index, clip in enumerate(clips)]).to(
        clips[0].state.face.device
    )
    state, shared = concatenate([clip.state for clip in clips]), common.start
    beliefs = replace(clips[0].beliefs, mean=torch.cat([clip.beliefs.mean for clip in clips]))
    prior_hessian = beliefs.hessian()
    seen = [clip.evidence for clip in clips]
    damping, reduced = 1e-3, common.precision.double()

    def look(at: FrameState, shared: Tensor) -> list[tuple[LandmarkSurface, Patches | None, Evidence, FrameState]]:
        """Each clip as it looks when the person is so."""
        person, places = surface.of_person(shared[common.identity]), shared[common.places].unflatten(0, (-1, 3))
        return [
            (
                person,
                None if clip.skin is None else clip.skin.of_person(shared[common.identity], places),
                replace(evidence, focal=focal.exp()),
                at[part],
            )
            for clip, evidence, focal, part in zip(clips, seen, shared[common.lens], parts, strict=True)
        ]

    def energy_of(at: FrameState, shared: Tensor) -> float:
        total = common.energy(shared) + beliefs.energy(at).sum()
        for person, skin, evidence, frames in look(at, shared):
            total = total + landmark_energy(person, evidence, frames).sum()
            if skin is not None:
                total = total + skin.energy(frames, evidence).sum()
        return float(total)

    for iteration in range(iterations):
        halving = HALVINGS[min(iteration if known is None else iteration + 2, len(HALVINGS) - 1)]
        seen = [
            as_seen(
                replace(clip.evidence, weights=common.landmark_share * clip.evidence.weights, focal=focal.exp()),
                directions,
                state[part],
                halving,
            )
            for clip, focal, part in zip(clips, shared[common.lens], parts, strict=True)
        ]
        normals = [_equations(*clip) for clip in look(state, shared)]
        energy = energy_of(state, shared)
        told(iteration, energy)
        gradient = torch.cat([normal.gradient for normal in normals]) + beliefs.gradient(state)
        hessian = torch.cat([normal.hessian for normal in normals]) + prior_hessian
        all_cross = hessian.new_zeros(*hessian.shape[:2], len(shared))
        all_common, all_pull = common.precision.double(), common.gradient(shared).double()
        for normal, part, own in zip(normals, parts, common.columns, strict=True):
            all_cross[part] = all_cross[part].index_copy(2, own, normal.cross)
            all_common[own[:, None], own] += normal.shared_hessian.double()
            all_pull[own] += normal.shared_gradient.double()
        free = free_to_move(state, gradient, beliefs)
        # The first step stands the heads and opens the jaws only: a start that is off by degrees must not bend the faces.
        first = iteration == 0 and known is None
        if first:
            free[:, :-13] = False
            all_cross, all_common = (
                torch.zeros_like(all_cross),
                all_common + torch.eye(len(shared), device=shared.device) * 1e12,
            )
        for _ in range(6):
            blocks, cross, right = _held(hessian, all_cross, gradient, free, damping)
            step, shared_step, left = solve_shared(blocks, cross, all_common, right, all_pull)
            reduced = reduced if first else left
            trial_shared, zoom = shared + shared_step.float(), shared_step[common.lens].exp().float()
            trial = state.moved(step.float(), beliefs.lower, beliefs.upper).zoomed(zoom[lens_of])
            trial_energy = energy_of(trial, trial_shared)
            if trial_energy <= energy:
                state, shared = trial, trial_shared
                damping = max(damping / 5, 1e-6)
                break
            damping *= 10
        else:
            break
        if iteration >= len(HALVINGS) and energy - trial_energy < 2e-4 * abs(energy):
            break
    # With the prior's scaling undone: the posterior of as many independent frames.
    scales = common.prior_scale.double().sqrt()
    covariance = scales[:, None] * torch.linalg.inv(reduced)[: len(scales), : len(scales)] * scales
    # Held near where it was, a lens is known no better than it was.
    covariance[common.lens, common.lens] += (
        FOCAL_BIAS**2 * torch.eye(len(clips), device=shared.device)
        if known is None
        else known.covariance[common.lens, common.lens]
    )
    person = Person(
        shared[common.identity], shared[common.lens].exp(), shared[common.places].unflatten(0, (-1, 3)), covariance
    )
    return person, [state[part] for part in parts]


def _equations(person: LandmarkSurface, skin: Patches | None, evidence: Evidence, state: FrameState) -> Normal:
    normal = landmark_normal(person, evidence, state, shared=True)
    if skin is None:
        return normal
    return normal.widened(3 * len(skin.bases)) + skin.equations(state, evidence, shared=True)


def _held(
    hessian: Tensor, cross: Tensor, gradient: Tensor, free: Tensor, damping: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Blocks, cross blocks and gradient in float64 with the parameters that are not free taken out, and damped."""
    mask = free.double()
    diagonal = hessian.diagonal(dim1=1, dim2=2).double()
    blocks = hessian.double() * mask.unsqueeze(-1) * mask.unsqueeze(-2)
    return (
        blocks + torch.diag_embed(torch.where(free, damping * diagonal + 1e-3, 1.0)),
        cross.double() * mask.unsqueeze(-1),
        gradient.double() * mask,
    )
