"""What was seen, as a robust least-squares energy over landmarks: residuals, weights, normal equations.

Residuals are pixels at 512 divided by their standard deviation. Two kinds: the points themselves, and the differences of
pairs across lids and lips (`points.PAIRS`). Geman and McClure's function tames outliers: rho(e) = s^2 e^2 / (s^2 + e^2),
whose Gauss-Newton weight is (s^2 / (s^2 + e^2))^2; s is the number of standard deviations at which belief is halved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...correspondence.landmark_sets import JAW_LINE, PAIRS, point_weights
from ...head.model import LANDMARK_COUNT
from ..detector.pose_bias import bias_at, habits_of
from ..model.frame_state import FrameState, predict
from ..model.landmark_surface import LandmarkSurface

POINT_SIGMA = 3.5
"""Pixels at 512. The detector errs by about 1.5, but its 478 errors are far from independent: neighbours err together, so
each counts for a fraction of an observation."""
PAIR_SIGMA = 1.5
JAW_LINE_TRUST = 0.5
JAW_LINE_FADE = 0.3
"""Radians of turn after which the outline is believed by 1/e only."""
_CHUNK = 48
"""Frames whose Jacobians are held at a time: about 12 MB, which stays near the processor and flat in the clip's length."""


@dataclass(frozen=True)
class Evidence:
    """F frames of L points."""

    points: Tensor
    """(F, L, 2) pixels, as the detector gave them; zero where nothing was seen."""
    seen: Tensor
    """(F, L, 2) the same without the detector's habits, once it is known how the heads stand (`as_seen`)."""
    habits: Tensor
    """(FEATURES, L, 2) metres, see `bias`."""
    weights: Tensor
    """(F, L) trust; zero where nothing was seen."""
    across: Tensor
    """(F, C, 2) unit vectors across the outline of the jaw, along which alone its points are compared."""
    jaw_line: Tensor
    """(C,) rows of the points on that outline."""
    pairs: Tensor
    """(2, K) rows of the points above and below."""
    focal: Tensor
    """() pixels"""
    centre: Tensor
    """(2,) pixels"""
    pivot: Tensor
    """(3,) metres, head space"""
    pixel: float
    """One pixel at 512 in pixels of this picture."""
    halving: float
    """s of the robust function."""

    def __getitem__(self, index: slice | Tensor) -> Evidence:
        return replace(
            self,
            points=self.points[index],
            seen=self.seen[index],
            weights=self.weights[index],
            across=self.across[index],
        )


@dataclass(frozen=True)
class Normal:
    """Gauss-Newton's equations: half the gradient and the Hessian's main part, by block."""

    energy: Tensor
    """(F,)"""
    gradient: Tensor
    """(F, P)"""
    hessian: Tensor
    """(F, P, P)"""
    shared_gradient: Tensor | None = None
    """(S + 1,) summed over frames"""
    shared_hessian: Tensor | None = None
    """(S + 1, S + 1)"""
    cross: Tensor | None = None
    """(F, P, S + 1)"""

    @classmethod
    def of_rows(cls, energy: Tensor, rows: Tensor, errors: Tensor, common: Tensor | None) -> Normal:
        """From Jacobian rows (F, R, P), their residuals (F, R), and the rows (F, R, S + 1) of what is shared, all whitened."""
        own, errors = rows.transpose(1, 2), errors.unsqueeze(-1)
        normal = cls(energy, (own @ errors).squeeze(-1), own @ rows)
        if common is None:
            return normal
        flat = common.flatten(0, 1)
        return replace(
            normal, shared_gradient=flat.T @ errors.flatten(), shared_hessian=flat.T @ flat, cross=own @ common
        )

    @classmethod
    def joined(cls, parts: Sequence[Normal]) -> Normal:
        """Of frames that follow each other."""
        own = (torch.cat([getattr(part, name) for part in parts]) for name in ("energy", "gradient", "hessian"))
        if parts[0].cross is None:
            return cls(*own)
        return cls(
            *own,
            sum(part.shared_gradient for part in parts),
            sum(part.shared_hessian for part in parts),
            torch.cat([part.cross for part in parts]),
        )

    def widened(self, count: int) -> Normal:
        """With so many more shared parameters, of which nothing was seen."""
        pad = torch.nn.functional.pad
        return replace(
            self,
            shared_gradient=pad(self.shared_gradient, (0, count)),
            cross=pad(self.cross, (0, count)),
            shared_hessian=pad(self.shared_hessian, (0, count, 0, count)),
        )

    def __add__(self, other: Normal) -> Normal:
        """Of the same frames, from other evidence."""
        return Normal(
            *(
                None if mine is None else mine + theirs
                for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
            )
        )


def gather_evidence(
    landmarks: np.ndarray, intrinsics: np.ndarray, size: int, surface: LandmarkSurface, pivot: Tensor
) -> Evidence:
    """From a capture's landmarks (F, 478, 3), NaN without a face; `surface` says which points are looked at."""
    device = pivot.device
    seen = landmarks[:, surface.points, :2]
    trust = point_weights()[surface.points] * surface.valid * np.isfinite(seen).all(-1)
    row = np.full(LANDMARK_COUNT, -1)
    row[surface.points] = np.arange(len(surface.points))
    outline = np.nan_to_num(landmarks[:, JAW_LINE, :2])
    along = np.gradient(outline, axis=1)
    along /= np.linalg.norm(along, axis=-1, keepdims=True).clip(1e-6)
    there = row[JAW_LINE] >= 0
    pairs = row[PAIRS]
    points = torch.as_tensor(np.nan_to_num(seen), device=device)
    return Evidence(
        points=points,
        seen=points,
        habits=habits_of(surface.points, device),
        weights=torch.as_tensor(trust, dtype=torch.float32, device=device),
        across=torch.as_tensor(np.stack((-along[..., 1], along[..., 0]), -1)[:, there], device=device),
        jaw_line=torch.as_tensor(row[JAW_LINE][there], device=device),
        pairs=torch.as_tensor(pairs[(pairs >= 0).all(1)].T.copy(), device=device),
        focal=torch.tensor((intrinsics[0, 0] + intrinsics[1, 1]) / 2, dtype=torch.float32, device=device),
        centre=torch.as_tensor(intrinsics[:2, 2], dtype=torch.float32, device=device),
        pivot=pivot,
        pixel=size / 512,
        halving=5.0,
    )


def view_weights(directions: Tensor, jaw_line: Tensor, state: FrameState) -> Tensor:
    """(F, L): trust in the points for how the head is turned.

    On the side that is turned away the detector only imagines. `directions` (L, 3) go from the middle of the skull to the
    point, a smooth stand-in for its normal (lips and lids have normals in all directions though they are plainly seen).
    The outline of the jaw is a place on the surface only as seen from the front, and fades with the turn.
    """
    towards = -torch.nn.functional.normalize(state.translation, dim=-1)
    cosine = ((directions @ state.rotation.transpose(1, 2)) * towards[:, None]).sum(-1)
    weights = ((cosine - 0.02) / 0.3).clamp(0.03, 1)
    front = (state.rotation[:, :, 2] * towards).sum(-1, keepdim=True).clamp(-1, 1)
    weights[:, jaw_line] = JAW_LINE_TRUST * torch.exp(-((torch.acos(front) / JAW_LINE_FADE) ** 2))
    return weights


def as_seen(evidence: Evidence, directions: Tensor, state: FrameState, halving: float) -> Evidence:
    """What `gather_evidence` gathered as it speaks of heads that stand so: without the detector's habits and trusted where it
    can see. Held still while a step is tried, for the energies before and after it must speak of the same points."""
    origin = state.translation - (state.rotation @ evidence.pivot)
    return replace(
        evidence,
        seen=evidence.points - bias_at(evidence.habits, state.rotation, origin, evidence.focal),
        weights=evidence.weights * view_weights(directions, evidence.jaw_line, state),
        halving=halving,
    )


def _rows(evidence: Evidence, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals (F, L + K, 2) in standard deviations and their trust (F, L + K)."""
    error = _across(evidence, (pixels - evidence.seen).unsqueeze(-1)).squeeze(-1)
    upper, lower = evidence.pairs
    pairs = (error[:, upper] - error[:, lower]) / (PAIR_SIGMA * evidence.pixel)
    trust = torch.minimum(evidence.weights[:, upper], evidence.weights[:, lower]) / 2
    return torch.cat((error / (POINT_SIGMA * evidence.pixel), pairs), 1), torch.cat((evidence.weights, trust), 1)


def _across(evidence: Evidence, rows: Tensor) -> Tensor:
    """Rows (F, L, 2, K), those of the jaw's outline made to see only what goes across it: n n' times the row. In place."""
    normal = evidence.across.unsqueeze(-1)
    line = rows[:, evidence.jaw_line]
    rows[:, evidence.jaw_line] = normal * (normal * line).sum(2, keepdim=True)
    return rows


def robust(residual: Tensor, trust: Tensor, halving: float) -> tuple[Tensor, Tensor]:
    """Geman and McClure's function of residuals (F, R, 2) in standard deviations, trusted by (F, R): the energy (F,), and each
    residual's weight (F, R) in Gauss-Newton's equations."""
    squared, limit = (residual**2).sum(-1), halving**2
    share = limit / (limit + squared)
    return 0.5 * (trust * squared * share).sum(1), trust * share**2


def landmark_energy(surface: LandmarkSurface, evidence: Evidence, state: FrameState) -> Tensor:
    """(F,)"""
    energies = []
    for start in range(0, len(state), 4 * _CHUNK):
        part = slice(start, start + 4 * _CHUNK)
        shown = predict(surface, state[part], evidence.focal, evidence.centre, evidence.pivot)
        energies.append(robust(*_rows(evidence[part], shown.pixels), evidence.halving)[0])
    return torch.cat(energies)


def landmark_normal(surface: LandmarkSurface, evidence: Evidence, state: FrameState, *, shared: bool) -> Normal:
    """The equations of all frames, a chunk at a time. With `shared` also those of identity and log focal length."""
    parts: list[Normal] = []
    upper, lower = evidence.pairs
    for start in range(0, len(state), _CHUNK):
        part = slice(start, start + _CHUNK)
        shown = predict(
            surface, state[part], evidence.focal, evidence.centre, evidence.pivot, jacobian=True, shared=shared
        )
        residual, trust = _rows(evidence[part], shown.pixels)
        energy, weight = robust(residual, trust, evidence.halving)
        root = weight.sqrt()

        def scaled(jacobian: Tensor, root: Tensor = root, part: slice = part) -> Tensor:
            count = jacobian.shape[1]
            jacobian = _across(evidence[part], jacobian)
            points = jacobian * (root[:, :count, None, None] / (POINT_SIGMA * evidence.pixel))
            pairs = jacobian[:, upper] - jacobian[:, lower]
            pairs *= root[:, count:, None, None] / (PAIR_SIGMA * evidence.pixel)
            return torch.cat((points, pairs), 1).flatten(1, 2)

        parts.append(
            Normal.of_rows(
                energy,
                scaled(shown.jacobian),
                (residual * root.unsqueeze(-1)).flatten(1),
                scaled(shown.shared) if shared else None,
            )
        )
    return Normal.joined(parts)
