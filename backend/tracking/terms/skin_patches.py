"""The skin patch term: photometric alignment of every frame to the person's own skin.

Landmarks are a network's guess; brows, eyelids, nostrils, stubble and moles are the person's. `observe.albedo_and_light`
predicts how bright each skin sample should be in a frame. Patch by patch this prediction is registered to the image by
Lucas and Kanade's method (1981), whose normal matrix gives the precision of the patch's position by direction. Solving for
pose, expression, identity and focal length with these positions is Gauss-Newton on the image differences, with the posed
mesh's derivatives taken once per patch.

The appearance was learned under an imperfect track, so it is not known where on the head model a patch lies. The patches'
offsets on the head are therefore unknowns too, almost free along the skin and held across it, so that frames agree
with each other instead of with the first estimate (bundle adjustment, Triggs et al. 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import FrameState
from ..model.landmark_surface import LandmarkSurface
from ..model.prediction import predict
from ..observe.albedo_and_light import PersonAppearance
from ..observe.skin_samples import IMAGE_SIZE, PATCHES, SAMPLES_PER_PATCH, PosedClip, Skin, SkinView, sample_frames
from .term import ROBUST_SCALE, NormalEquations, Term, robust

PATCH_SIGMA = 0.4
"""Pixels at 512 by which even a well registered patch errs: the mesh is not exactly the head, and the light model is not
exact. On rendered people with the true pose patches are 0.8 pixels off at a blur of 2 (median), and 1.0 without the light's
harmonics."""
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
        """For a person (S,) whose patches are displaced on the head model by `patch_offsets` (K, 3) metres along `bases`."""
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
            error = chunk._whitened(predict(self.surface, state[part], camera).pixels)
            parts.append(robust(error, chunk.weights, ROBUST_SCALE)[0])
        return torch.cat(parts)

    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        parts = []
        for start in range(0, len(state), _CHUNK):
            part = slice(start, start + _CHUNK)
            chunk = self[part]
            found = predict(self.surface, state[part], camera, jacobian=True, shared=shared)
            error = chunk._whitened(found.pixels)
            energy, weight = robust(error, chunk.weights, ROBUST_SCALE)
            scale = weight.sqrt()
            roots, error = chunk.roots * scale[..., None, None], error * scale.unsqueeze(-1)
            rows = roots @ found.jacobian
            shared_rows = roots @ found.shared_jacobian if shared else None
            equations = NormalEquations.of_rows(
                rows.flatten(1, 2), error.flatten(1), energy, shared_rows.flatten(1, 2) if shared else None
            )
            if shared:
                by_offsets = roots @ found.position_jacobian @ self.bases
                equations = _with_offsets(equations, rows, shared_rows, by_offsets, error)
            parts.append(equations)
        return NormalEquations.concatenated(parts)

    def _whitened(self, pixels: Tensor) -> Tensor:
        """Errors of projected centres (F, K, 2) in standard deviations."""
        return (self.roots @ (pixels - self.detected).unsqueeze(-1)).squeeze(-1)


def _with_offsets(
    equations: NormalEquations, rows: Tensor, shared_rows: Tensor, offset_rows: Tensor, error: Tensor
) -> NormalEquations:
    """The equations widened by the patches' offsets. Since a patch's offset (rows (F, K, 2, 3)) affects its own residuals
    alone, the offsets' block of the Hessian is block-diagonal."""
    count, size = offset_rows.shape[1], shared_rows.shape[-1]
    wide = equations.widened(3 * count)
    wide.shared_gradient[size:] = torch.einsum("fkri,fkr->ki", offset_rows, error).flatten()
    wide.cross[..., size:] = (rows.transpose(-1, -2) @ offset_rows).permute(0, 2, 1, 3).flatten(2)
    mixed = (shared_rows.transpose(-1, -2) @ offset_rows).sum(0).transpose(0, 1).flatten(1)
    wide.shared_hessian[:size, size:], wide.shared_hessian[size:, :size] = mixed, mixed.T
    own = torch.zeros(count, 3, count, 3, dtype=offset_rows.dtype, device=offset_rows.device)
    each = torch.arange(count, device=offset_rows.device)
    own[each, :, each] = torch.einsum("fkri,fkrj->kij", offset_rows, offset_rows)
    wide.shared_hessian[size:, size:] = own.flatten(2).flatten(0, 1)
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
        [predict(person, state[start : start + _CHUNK], camera).pixels for start in range(0, len(state), _CHUNK)]
    )
    return SkinPatchTerm(skin.centres, person, centres + shift, roots, weights, skin.bases)


def _register(
    skin: Skin, appearance: PersonAppearance, expected: np.ndarray, view: SkinView, factor: float, sigma: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shift (K, 2) in pixels of the capture, whitening roots (K, 2, 2) and weights (K,)."""
    patch, blur = skin.patch, appearance.blur * IMAGE_SIZE / 512
    weight = view.weight * appearance.known
    mass = skin.patch_sum(weight)
    target = expected - skin.patch_mean(expected, weight)[patch]
    target_energy = skin.patch_sum(weight * target**2)
    shift = np.zeros((PATCHES, 2), np.float32)
    for _ in range(_REGISTRATION_STEPS):
        found = view.sample(shift[patch])
        # Every patch has a brightness of its own, for light that the model does not explain.
        found -= np.stack([skin.patch_mean(found[:, k], weight) for k in range(3)], 1)[patch]
        values, slope_x, slope_y = found.T
        product = skin.patch_sum(weight * values * target)
        # And a contrast of its own: haze, gloss and motion blur reduce it.
        contrast = (product / np.maximum(target_energy, 1e-9)).clip(0.3, 2.0)
        residual = values - contrast[patch] * target
        xx, xy, yy = (
            skin.patch_sum(weight * a * b) for a, b in ((slope_x, slope_x), (slope_x, slope_y), (slope_y, slope_y))
        )
        noise = skin.patch_sum(weight * residual**2) / np.maximum(mass, 1e-6) + _NOISE**2
        # Without a prior on the shift a patch of plain skin would follow its own noise.
        prior = _CORRELATED_SAMPLES * noise / (1.5 * blur) ** 2
        x, y = (skin.patch_sum(weight * a * residual) for a in (slope_x, slope_y))
        determinant = (xx + prior) * (yy + prior) - xy**2
        step = np.stack(((yy + prior) * x - xy * y, (xx + prior) * y - xy * x), 1)
        step /= np.maximum(determinant, 1e-12)[:, None]
        previous, shift = shift, (shift - step).clip(-_MAX_SHIFT * blur, _MAX_SHIFT * blur)
    energy = skin.patch_sum(weight * values**2)
    correlation = product / np.sqrt(np.maximum(target_energy * energy, 1e-12))
    weights = ((correlation - _MIN_CORRELATION) / (0.9 - _MIN_CORRELATION)).clip(0, 1)
    weights *= (mass / (0.6 * SAMPLES_PER_PATCH)).clip(0, 1)
    too_far = np.linalg.norm(shift, axis=1) > 0.9 * _MAX_SHIFT * blur
    weights[(mass < _MIN_VISIBLE * SAMPLES_PER_PATCH) | too_far] = 0
    # The last step again without the prior: along a direction in which a patch is hardly constrained, it must not claim a
    # shift of zero but a low precision.
    values, vectors = np.linalg.eigh(np.stack((xx, xy, xy, yy), 1).reshape(-1, 2, 2))
    values = np.maximum(values, 1e-6)
    along = np.einsum("kji,kj->ki", vectors, np.stack((x, y), 1)) / values
    shift = previous - np.einsum("kij,kj->ki", vectors, along.clip(-_MAX_SHIFT * blur, _MAX_SHIFT * blur))
    variance = sigma**2 + factor**2 * _CORRELATED_SAMPLES * noise[:, None] / values
    roots = vectors.transpose(0, 2, 1) / np.sqrt(variance)[:, :, None]
    return (shift * factor).astype(np.float32), roots.astype(np.float32), weights.astype(np.float32)
