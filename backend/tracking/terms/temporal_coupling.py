"""The part of the Hessian that couples neighbouring frames: a sum of squared second differences."""

from __future__ import annotations

import torch
from torch import Tensor


class TemporalCoupling:
    """The energy 1/2 sum_t c . (x[t-1] - 2 x[t] + x[t+1])^2 of F frames in time order, with c (P,) per parameter.

    `linked` (F - 1,) bool says whether a frame and the next belong to one shot; across a shot cut nothing is smoothed.
    `weights` (F - 2, P) scale the single terms.
    """

    def __init__(self, precision: Tensor, linked: Tensor, weights: Tensor | None = None) -> None:
        self.precision = precision
        self.triples = (linked[:-1] & linked[1:]).to(precision.dtype).unsqueeze(-1)
        """(F - 2, 1) or (F - 2, P): the weight of each second difference."""
        if weights is not None:
            self.triples = self.triples * weights
        self.frames = len(linked) + 1
        counts = torch.zeros(self.frames, self.triples.shape[1], dtype=precision.dtype, device=precision.device)
        counts[:-2] += self.triples
        counts[1:-1] += 4 * self.triples
        counts[2:] += self.triples
        self.diagonal = counts * precision
        """(F, P): the diagonal of the Hessian."""

    def energy(self, velocity: Tensor) -> Tensor:
        """(F,) from first differences (F - 1, P); each second difference counts for its middle frame."""
        per_triple = 0.5 * (self.precision * self.triples * (velocity[1:] - velocity[:-1]) ** 2).sum(1)
        result = per_triple.new_zeros(self.frames)
        result[1:-1] = per_triple
        return result

    def gradient(self, velocity: Tensor) -> Tensor:
        """(F, P) from first differences (F - 1, P)."""
        weighted = self.precision * self.triples * (velocity[1:] - velocity[:-1])
        result = torch.zeros(self.frames, weighted.shape[1], dtype=weighted.dtype, device=weighted.device)
        result[:-2] += weighted
        result[1:-1] -= 2 * weighted
        result[2:] += weighted
        return result

    def times(self, vector: Tensor) -> Tensor:
        """The Hessian times a vector (F, P)."""
        return self.gradient(vector[1:] - vector[:-1])
