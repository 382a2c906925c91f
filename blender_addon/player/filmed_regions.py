"""The filmed faces that are most like an asked one, for each region, as in `backend.avatar.filmed_regions`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

SOFTNESS: Final = np.float32(0.1)


@dataclass(frozen=True)
class FilmedRegions:
    """R regions, M filmed faces of D numbers; float32."""

    shares: np.ndarray
    """(R, N): how far a vertex belongs to each region."""
    emphasis: np.ndarray
    """(R, D): how much each number of a face counts."""
    faces: np.ndarray
    """(M, D)"""
    reach: np.ndarray
    """(R, 2): distances up to which a face is drawn as it is, and from which on as the nearest filmed ones."""

    @cached_property
    def vertices(self) -> tuple[np.ndarray, ...]:
        """Of each region."""
        return tuple(np.flatnonzero(share) for share in self.shares)

    def faces_for(self, face: np.ndarray) -> np.ndarray:
        """A face (D,) -> the face of each region (R, D)."""
        away = (face - self.faces) * self.emphasis[:, None]
        distances = np.sqrt(np.einsum("rmd,rmd->rm", away, away))
        nearest = distances.min(1)
        weights = np.exp(-(distances - nearest[:, None]) / (SOFTNESS * np.maximum(nearest, 1e-6)[:, None]))
        filmed = (weights / weights.sum(1, keepdims=True)) @ self.faces
        share = np.clip((nearest - self.reach[:, 0]) / (self.reach[:, 1] - self.reach[:, 0]), 0, 1)
        return face + (share**2 * (3 - 2 * share))[:, None] * (filmed - face)
