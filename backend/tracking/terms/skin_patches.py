"""The skin patch term: photometric alignment of every frame to the person's own skin.

Landmarks are a network's guess; brows, eyelids, nostrils, stubble and moles are the person's.
`observe.albedo_and_light` predicts how bright each skin sample should be in a frame. Patch by patch this prediction is
registered to the image by Lucas and Kanade's method (1981), whose normal matrix gives the precision of the patch's
position by direction. Solving for pose, expression, identity and focal length with these positions is Gauss-Newton on
the image differences, with the posed mesh's derivatives taken once per patch.

The appearance was learned under an imperfect track, so it is not known where on the head model a patch lies. The
patches' offsets on the head are therefore unknowns too, almost free along the skin and held across it, so that frames
agree with each other instead of with the first estimate (bundle adjustment, Triggs et al. 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import FrameState
from ..model.landmark_surface import LandmarkSurface
from ..model.prediction import linearise, predict
from ..observe.albedo_and_light import PersonAppearance
from ..observe.skin_samples import IMAGE_SIZE, PATCHES, SAMPLES_PER_PATCH, PosedClip, Skin, SkinView, sample_frames
from .term import ROBUST_SCALE, NormalEquations, SharedBlocks, Term, robust

PATCH_SIGMA = 0.4
"""Pixels at 512 by which even a well registered patch errs: the mesh is not exactly the head, and the light model is
not exact. On rendered people with the true pose patches are 0.8 pixels off at a blur of 2 (median), and 1.0 without the
light's harmonics."""
_REGISTRATION_STEPS = 3
_CORRELATED_SAMPLES = 4.0
"""How many neighbouring samples carry as much information as one."""
_NOISE = 0.03
"""Standard deviation of one sample's logarithm of brightness."""
_MAX_SHIFT = 4.0
"""In blurs: a patch that moves farther has been registered to something else."""
_MIN_CORRELATION = 0.35
"""Correlation with the predicted brightness below which a patch gets no weight."""
_MIN_VISIBLE = 0.2
"""Share of a patch's samples that must be visible."""
_CHUNK = 32


@dataclass(frozen=True)
class SkinPatchTerm(Term):
    """K patches registered in F frames."""

    per_frame: ClassVar = ("detected", "roots", "weights")

    generic_surface: LandmarkSurface
    """The patches' centres on the mean person."""
    surface: LandmarkSurface
    """The patches' centres on the person, their offsets included (`of_person`)."""
    detected: Tensor
    """(F, K, 2) pixels"""
    roots: Tensor
    """(F, K, 2, 2): roots @ error is in standard deviations."""
    weights: Tensor
    """(F, K); zero where the patch was not found."""
    bases: Tensor
    """(K, 3, 3): see `Skin.bases`."""

    def of_person(self, identity: Tensor, patch_offsets: Tensor) -> SkinPatchTerm:
        """For a person (S,) whose patches are displaced on the head model by `patch_offsets` (K, 3) metres along
        `bases`.
        """
        person = self.generic_surface.of_person(identity)
        offsets = (self.bases @ patch_offsets.unsqueeze(-1)).squeeze(-1)
        position = replace(person.position, rest=person.position.rest + offsets)
        lever = replace(person.lever, rest=person.lever.rest + person.skin_weight[:, None] * offsets)
        return replace(self, surface=replace(person, position=position, lever=lever))

    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        parts = []
        for start in range(0, len(state), 4 * _CHUNK):
            part = slice(start, start + 4 * _CHUNK)
            chunk = self[part]
            error = chunk._whitened(predict(self.surface, state[part], camera))
            parts.append(robust(error, chunk.weights, ROBUST_SCALE)[0])
        return torch.cat(parts)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        parts = []
        for start in range(0, len(state), _CHUNK):
            part = slice(start, start + _CHUNK)
            chunk = self[part]
            found = linearise(self.surface, state[part], camera, shared=shared)
            error = chunk._whitened(found.pixels)
            energy, weight = robust(error, chunk.weights, ROBUST_SCALE)
            scale = weight.sqrt()
            roots, error = chunk.roots * scale[..., None, None], error * scale.unsqueeze(-1)
            rows = roots @ found.jacobian
            shared_rows = None if found.shared is None else roots @ found.shared.jacobian
            equations = NormalEquations.of_rows(
                rows.flatten(1, 2),
                error.flatten(1),
                energy,
                None if shared_rows is None else shared_rows.flatten(1, 2),
            )
            if found.shared is not None and shared_rows is not None and equations.shared is not None:
                by_offsets = roots @ found.shared.by_position @ self.bases
                blocks = _with_offsets(equations.shared, rows, shared_rows, by_offsets, error)
                equations = replace(equations, shared=blocks)
            parts.append(equations)
        return NormalEquations.concatenated(parts)

    def _whitened(self, pixels: Tensor) -> Tensor:
        """Errors of projected centres (F, K, 2) in standard deviations."""
        return (self.roots @ (pixels - self.detected).unsqueeze(-1)).squeeze(-1)


def _with_offsets(
    shared: SharedBlocks, rows: Tensor, shared_rows: Tensor, offset_rows: Tensor, error: Tensor
) -> SharedBlocks:
    """The blocks by identity and focal length, widened by those by the patches' offsets.

    Since a patch's offset (`offset_rows` (F, K, 2, 3)) affects its own residuals (`error` (F, K, 2)) alone, the
    offsets' block of the Hessian is block-diagonal. `rows` (F, K, 2, P) are by the frames' own parameters,
    `shared_rows` (F, K, 2, S + 1) by identity and focal length.
    """
    count, size = offset_rows.shape[1], shared_rows.shape[-1]
    wide = shared.widened(3 * count)
    wide.gradient[size:] = torch.einsum("fkri,fkr->ki", offset_rows, error).flatten()
    wide.cross[..., size:] = (rows.transpose(-1, -2) @ offset_rows).permute(0, 2, 1, 3).flatten(2)
    mixed = (shared_rows.transpose(-1, -2) @ offset_rows).sum(0).transpose(0, 1).flatten(1)
    wide.hessian[:size, size:], wide.hessian[size:, :size] = mixed, mixed.T
    each = torch.arange(count, device=offset_rows.device)
    blocks = torch.zeros(count, 3, count, 3, dtype=offset_rows.dtype, device=offset_rows.device)
    blocks[each, :, each] = torch.einsum("fkri,fkrj->kij", offset_rows, offset_rows)
    wide.hessian[size:, size:] = blocks.flatten(2).flatten(0, 1)
    return wide


def register_patches(
    skin: Skin,
    appearance: PersonAppearance,
    clip: int,
    posed: PosedClip,
    identity: Tensor,
    on_frame: Callable[[int], None] = lambda done: None,
) -> SkinPatchTerm:
    """Register the person's patches in frames of clip number `clip`, starting from the frames' poses.

    `on_frame` is called in this thread with the number of frames done. The term is not yet `of_person`.
    """
    camera, state = posed.camera, posed.state
    factor = posed.capture.size / IMAGE_SIZE
    not_found = np.zeros((PATCHES, 2), np.float32), np.zeros((PATCHES, 2, 2), np.float32), np.zeros(PATCHES, np.float32)

    def register(row: int, view: SkinView) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not posed.face_found[row]:
            return not_found
        expected = appearance.expected(clip, view)
        return _register(skin, appearance, expected, view, factor, PATCH_SIGMA * camera.pixel)

    found = []
    for part in sample_frames(skin, identity, posed, appearance.blur, register):
        found.append(part)
        on_frame(len(found))
    shift, roots, weights = (
        torch.as_tensor(np.stack(part), dtype=torch.float32, device=state.face.device)
        for part in zip(*found, strict=True)
    )
    person = skin.centres.of_person(identity)
    centres = torch.cat(
        [predict(person, state[start : start + _CHUNK], camera) for start in range(0, len(state), _CHUNK)]
    )
    return SkinPatchTerm(skin.centres, person, centres + shift, roots, weights, skin.bases)


@dataclass(frozen=True)
class _PatchEquations:
    """Lucas and Kanade's normal equations of K patches at their current shifts."""

    xx: np.ndarray
    """(K,) with xy and yy: the sums of products of the image's derivatives."""
    xy: np.ndarray
    yy: np.ndarray
    x: np.ndarray
    """(K,) with y: the sums of derivative times residual."""
    y: np.ndarray
    noise: np.ndarray
    """(K,): variance of a sample's residual."""
    correlation: np.ndarray
    """(K,): of the image with the prediction."""

    def step(self, prior: np.ndarray) -> np.ndarray:
        """(K, 2): the solution, with a prior precision (K,) on the shift."""
        determinant = (self.xx + prior) * (self.yy + prior) - self.xy**2
        step = np.stack(
            ((self.yy + prior) * self.x - self.xy * self.y, (self.xx + prior) * self.y - self.xy * self.x), 1
        )
        return step / np.maximum(determinant, 1e-12)[:, None]


@dataclass(frozen=True)
class _PatchRegistration:
    """One frame's samples, and what the patches should look like in it."""

    skin: Skin
    view: SkinView
    weight: np.ndarray
    """(D,)"""
    target: np.ndarray
    """(D,): the predicted logarithm of brightness, without each patch's mean."""

    @cached_property
    def mass(self) -> np.ndarray:
        """(K,): how many samples are visible."""
        return self.skin.patch_sum(self.weight)

    @cached_property
    def target_energy(self) -> np.ndarray:
        """The prediction's weighted sum of squares in each patch, (K,)."""
        return self.skin.patch_sum(self.weight * self.target**2)

    def equations(self, shift: np.ndarray) -> _PatchEquations:
        """At shifts (K, 2), pixels of the sampled image."""
        skin, weight, target = self.skin, self.weight, self.target
        found = self.view.sample(shift[skin.patch])
        # Every patch has a brightness of its own, for light that the model does not explain.
        found -= np.stack([skin.patch_mean(found[:, k], weight) for k in range(3)], 1)[skin.patch]
        values, slope_x, slope_y = found.T
        product, energy = skin.patch_sum(weight * values * target), self.target_energy
        # And a contrast of its own: haze, gloss and motion blur reduce it.
        contrast = (product / np.maximum(energy, 1e-9)).clip(0.3, 2.0)
        residual = values - contrast[skin.patch] * target
        return _PatchEquations(
            xx=skin.patch_sum(weight * slope_x * slope_x),
            xy=skin.patch_sum(weight * slope_x * slope_y),
            yy=skin.patch_sum(weight * slope_y * slope_y),
            x=skin.patch_sum(weight * slope_x * residual),
            y=skin.patch_sum(weight * slope_y * residual),
            noise=skin.patch_sum(weight * residual**2) / np.maximum(self.mass, 1e-6) + _NOISE**2,
            correlation=product / np.sqrt(np.maximum(energy * skin.patch_sum(weight * values**2), 1e-12)),
        )


def _register(
    skin: Skin, appearance: PersonAppearance, expected: np.ndarray, view: SkinView, factor: float, sigma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift (K, 2) in pixels of the capture, whitening roots (K, 2, 2) and weights (K,)."""
    blur = appearance.blur * IMAGE_SIZE / 512
    max_shift = _MAX_SHIFT * blur
    weight = view.weight * appearance.determined
    frame = _PatchRegistration(skin, view, weight, expected - skin.patch_mean(expected, weight)[skin.patch])
    previous = shift = np.zeros((PATCHES, 2), np.float32)
    at = frame.equations(shift)
    for step in range(_REGISTRATION_STEPS):
        if step:
            at = frame.equations(shift)
        # Without a prior on the shift a patch of plain skin would follow its own noise.
        prior = _CORRELATED_SAMPLES * at.noise / (1.5 * blur) ** 2
        previous, shift = shift, (shift - at.step(prior)).clip(-max_shift, max_shift)
    mass = frame.mass
    weights = ((at.correlation - _MIN_CORRELATION) / (0.9 - _MIN_CORRELATION)).clip(0, 1)
    weights *= (mass / (0.6 * SAMPLES_PER_PATCH)).clip(0, 1)
    too_far = np.linalg.norm(shift, axis=1) > 0.9 * max_shift
    weights[(mass < _MIN_VISIBLE * SAMPLES_PER_PATCH) | too_far] = 0
    # The last step again without the prior: along a direction in which a patch is hardly constrained, it must not claim
    # a shift of zero but a low precision.
    values, vectors = np.linalg.eigh(np.stack((at.xx, at.xy, at.xy, at.yy), 1).reshape(-1, 2, 2))
    values = np.maximum(values, 1e-6)
    along = np.einsum("kji,kj->ki", vectors, np.stack((at.x, at.y), 1)) / values
    shift = previous - np.einsum("kij,kj->ki", vectors, along.clip(-max_shift, max_shift))
    variance = sigma**2 + factor**2 * _CORRELATED_SAMPLES * at.noise[:, None] / values
    roots = vectors.transpose(0, 2, 1) / np.sqrt(variance)[:, :, None]
    return (shift * factor).astype(np.float32), roots.astype(np.float32), weights.astype(np.float32)
