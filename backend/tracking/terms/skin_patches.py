"""The skin's pattern as evidence: every frame is laid upon what the person looks like, and what is out of place is a point seen.

Landmarks are a network's guess; brows, lids, nostrils, stubble and moles are the person's. `appearance` says how bright each
place of the skin should be in a frame under the clip's light. Patch by patch that expectation is moved in the picture until
it fits (Lucas and Kanade 1981); the normal matrix says how well a patch knows its place, and along which direction. Solving for
pose, expression, identity and focal length with these points is Gauss-Newton on the differences of the pictures, the
derivatives of the posed mesh taken once a patch.

Where on the head a patch of skin lies nobody told: the pattern was learned under a track that was wrong. So the patches' places
are unknowns too, almost free along the skin and held across it, and frames agree with each other, not with the first guess
(bundle adjustment, Triggs et al. 2000).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...progress import SILENT, Progress
from ..model.frame_state import FrameState, predict
from ..model.landmark_surface import LandmarkSurface
from ..observe.albedo_and_light import Appearance, Lit
from ..observe.skin_samples import PATCHES, PICTURE, SAMPLES, Skin, View, look_at
from .landmarks import Evidence, Normal, robust

PATCH_SIGMA = 0.4
"""Pixels at 512 by which a patch that fits well errs still: the mesh is not the head, and not all light is explained. On
rendered people under the true pose patches are 0.8 pixels off at a blur of 2 (median), and 1.0 without the light's harmonics."""
HALVING = 3.0
"""Standard deviations at which a patch is believed by half."""
_STEPS = 3
_CORRELATED = 4.0
"""How many neighbouring places tell as much as one."""
_NOISE = 0.03
"""Of a place, in logarithms."""
_REACH = 4.0
"""In blurs: a patch that wants to move farther has found something else."""
_LEAST_LIKENESS = 0.35
"""Correlation with what was expected below which a patch is not believed."""
_LEAST_SEEN = 0.2
"""Share of a patch's places that must be seen."""
_CHUNK = 32


@dataclass(frozen=True)
class Patches:
    """What was found: F frames, K patches."""

    surface: LandmarkSurface
    """Of the person (or to be made of one): the patches' middles."""
    seen: Tensor
    """(F, K, 2) pixels"""
    root: Tensor
    """(F, K, 2, 2): root @ error is in standard deviations."""
    trust: Tensor
    """(F, K); zero where nothing was found."""
    bases: Tensor
    """(K, 3, 3): along the skin, along the skin, across it."""

    def __getitem__(self, index: slice | Tensor) -> Patches:
        return replace(self, seen=self.seen[index], root=self.root[index], trust=self.trust[index])

    def of_person(self, identity: Tensor, places: Tensor) -> Patches:
        """Of a person whose patches lie beside the head model's places by `places` (K, 3) metres."""
        own = self.surface.of_person(identity)
        places = (self.bases @ places.unsqueeze(-1)).squeeze(-1)
        own = replace(
            own,
            anchor=replace(own.anchor, rest=own.anchor.rest + places),
            arm=replace(own.arm, rest=own.arm.rest + own.share[:, None] * places),
        )
        return replace(self, surface=own)

    def energy(self, state: FrameState, evidence: Evidence) -> Tensor:
        """(F,), robust as the landmarks' is."""
        parts = []
        for start in range(0, len(state), 4 * _CHUNK):
            part = slice(start, start + 4 * _CHUNK)
            shown = predict(self.surface, state[part], evidence.focal, evidence.centre, evidence.pivot)
            parts.append(robust(self[part]._error(shown.pixels), self.trust[part], HALVING)[0])
        return torch.cat(parts)

    def normal(self, state: FrameState, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """Gauss-Newton's gradient (F, P) and Hessian (F, P, P)."""
        found = self.equations(state, evidence, shared=False)
        return found.gradient, found.hessian

    def equations(self, state: FrameState, evidence: Evidence, *, shared: bool) -> Normal:
        """With `shared` also those of identity, log focal length and the patches' places, in this order."""
        parts = []
        for start in range(0, len(state), _CHUNK):
            part = slice(start, start + _CHUNK)
            own = self[part]
            shown = predict(
                self.surface, state[part], evidence.focal, evidence.centre, evidence.pivot, jacobian=True, shared=shared
            )
            error = own._error(shown.pixels)
            energy, weight = robust(error, own.trust, HALVING)
            scale = weight.sqrt()
            root, error = own.root * scale[..., None, None], error * scale.unsqueeze(-1)
            rows = root @ shown.jacobian
            common = root @ shown.shared if shared else None
            normal = Normal.of_rows(
                energy, rows.flatten(1, 2), error.flatten(1), common.flatten(1, 2) if shared else None
            )
            parts.append(
                self._with_places(normal, rows, common, root @ shown.place @ self.bases, error) if shared else normal
            )
        return Normal.joined(parts)

    def _with_places(self, normal: Normal, rows: Tensor, common: Tensor, moved: Tensor, error: Tensor) -> Normal:
        """Equations widened by the places: a patch's place (rows `moved` (F, K, 2, 3)) touches its own rows alone."""
        count, size = moved.shape[1], common.shape[-1]
        wide = normal.widened(3 * count)
        wide.shared_gradient[size:] = torch.einsum("fkri,fkr->ki", moved, error).flatten()
        wide.cross[..., size:] = (rows.transpose(-1, -2) @ moved).permute(0, 2, 1, 3).flatten(2)
        beside = (common.transpose(-1, -2) @ moved).sum(0).transpose(0, 1).flatten(1)
        wide.shared_hessian[:size, size:], wide.shared_hessian[size:, :size] = beside, beside.T
        own = torch.zeros(count, 3, count, 3, dtype=moved.dtype, device=moved.device)
        each = torch.arange(count, device=moved.device)
        own[each, :, each] = torch.einsum("fkri,fkrj->kij", moved, moved)
        wide.shared_hessian[size:, size:] = own.flatten(2).flatten(0, 1)
        return wide

    def _error(self, pixels: Tensor) -> Tensor:
        return (self.root @ (pixels - self.seen).unsqueeze(-1)).squeeze(-1)


def find_patches(
    skin: Skin, appearance: Appearance, clip: int, lit: Lit, identity: Tensor, progress: Progress = SILENT
) -> Patches:
    """Where the person's skin is in frames of clip number `clip`, looked for around where their state has it."""
    evidence, state = lit.evidence, lit.state
    factor = lit.capture.size / PICTURE
    sighted = (evidence.weights.sum(1) > 0).cpu().numpy()
    nothing = np.zeros((PATCHES, 2), np.float32), np.zeros((PATCHES, 2, 2), np.float32), np.zeros(PATCHES, np.float32)

    def register(index: int, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not sighted[index]:
            return nothing
        return _register(skin, appearance, appearance.expected(clip, view), view, factor, PATCH_SIGMA * evidence.pixel)

    found = []
    # Told from here and not from the threads that look, which whoever listens need not know of.
    for part in look_at(skin, lit.capture, identity, state, lit.which, evidence, appearance.blur, register):
        found.append(part)
        progress.update("alignment", len(found), len(state))
        progress.raise_if_cancelled()
    shift, root, trust = (
        torch.as_tensor(np.stack(part), dtype=torch.float32, device=state.face.device)
        for part in zip(*found, strict=True)
    )
    own = skin.middles.of_person(identity)
    middle = torch.cat(
        [
            predict(own, state[start : start + _CHUNK], evidence.focal, evidence.centre, evidence.pivot).pixels
            for start in range(0, len(state), _CHUNK)
        ]
    )
    return Patches(skin.middles, middle + shift, root, trust, skin.bases)


def _register(
    skin: Skin, appearance: Appearance, expected: np.ndarray, view: View, factor: float, sigma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift (K, 2) in pixels of the capture, whitening root (K, 2, 2) and trust (K,)."""
    patch, blur = skin.patch, appearance.blur * PICTURE / 512
    weight = view.weight * appearance.known
    mass = skin.sum_over(weight)
    aim = expected - skin.mean_over(expected, weight)[patch]
    spread = skin.sum_over(weight * aim**2)
    shift = np.zeros((PATCHES, 2), np.float32)
    for _ in range(_STEPS):
        found = view.look(shift[patch])
        # Every patch has a brightness of its own: what the light does not explain.
        found -= np.stack([skin.mean_over(found[:, k], weight) for k in range(3)], 1)[patch]
        values, slope_x, slope_y = found.T
        common = skin.sum_over(weight * values * aim)
        # And a contrast: haze, gloss and motion blur take it away.
        contrast = (common / np.maximum(spread, 1e-9)).clip(0.3, 2.0)
        rest = values - contrast[patch] * aim
        xx, xy, yy = (
            skin.sum_over(weight * a * b) for a, b in ((slope_x, slope_x), (slope_x, slope_y), (slope_y, slope_y))
        )
        noise = skin.sum_over(weight * rest**2) / np.maximum(mass, 1e-6) + _NOISE**2
        # Without a prior on the shift a patch of bare skin would wander along its own noise.
        inertia = _CORRELATED * noise / (1.5 * blur) ** 2
        x, y = (skin.sum_over(weight * a * rest) for a in (slope_x, slope_y))
        determinant = (xx + inertia) * (yy + inertia) - xy**2
        step = (
            np.stack(((yy + inertia) * x - xy * y, (xx + inertia) * y - xy * x), 1)
            / np.maximum(determinant, 1e-12)[:, None]
        )
        held, shift = shift, (shift - step).clip(-_REACH * blur, _REACH * blur)
    energy = skin.sum_over(weight * values**2)
    likeness = common / np.sqrt(np.maximum(spread * energy, 1e-12))
    trust = ((likeness - _LEAST_LIKENESS) / (0.9 - _LEAST_LIKENESS)).clip(0, 1) * (mass / (0.6 * SAMPLES)).clip(0, 1)
    trust[(mass < _LEAST_SEEN * SAMPLES) | (np.linalg.norm(shift, axis=1) > 0.9 * _REACH * blur)] = 0
    # The last step again without the prior: what a patch hardly knows it must not claim to be zero, only not insist upon.
    values, vectors = np.linalg.eigh(np.stack((xx, xy, xy, yy), 1).reshape(-1, 2, 2))
    values = np.maximum(values, 1e-6)
    along = np.einsum("kji,kj->ki", vectors, np.stack((x, y), 1)) / values
    shift = held - np.einsum("kij,kj->ki", vectors, along.clip(-_REACH * blur, _REACH * blur))
    variance = sigma**2 + factor**2 * _CORRELATED * noise[:, None] / values
    root = vectors.transpose(0, 2, 1) / np.sqrt(variance)[:, :, None]
    return (shift * factor).astype(np.float32), root.astype(np.float32), trust.astype(np.float32)
