"""Solving the tracker's normal equations by their structure: independent frames, shared parameters, neighbours in time."""

from __future__ import annotations

import torch
from torch import Tensor


def solve_shared(
    hessian: Tensor, cross: Tensor, shared: Tensor, gradient: Tensor, shared_gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The step when all frames share some parameters, by the Schur complement (Triggs et al. 2000, section 6.1).

    Frames' blocks V (F, P, P), cross blocks W (F, P, K), shared block U (K, K), gradients (F, P) and (K,).
    Returns the frames' step (F, P), the shared step (K,), and the reduced U - sum W' V^-1 W, whose inverse is the shared
    parameters' covariance with the frames' marginalised.
    """
    factor = torch.linalg.cholesky(hessian)
    solved = torch.cholesky_solve(torch.cat((cross, gradient.unsqueeze(-1)), -1), factor)
    through, alone = solved[..., :-1], solved[..., -1]
    reduced = shared - torch.einsum("fpk,fpl->kl", cross, through)
    right = shared_gradient - torch.einsum("fpk,fp->k", cross, alone)
    step = torch.cholesky_solve(-right.unsqueeze(-1), torch.linalg.cholesky(reduced)).squeeze(-1)
    return -alone - through @ step, step, reduced


class Smoothness:
    """The energy 1/2 sum_t c . (x[t-1] - 2 x[t] + x[t+1])^2 of F frames in time order, c (P,) per parameter.

    `linked` (F - 1,) bool: whether a frame and the next belong to one take. Across a cut nothing is smoothed. `trust`
    (F - 2, P): factors of the terms.
    """

    def __init__(self, precision: Tensor, linked: Tensor, trust: Tensor | None = None) -> None:
        self.precision = precision
        self.triples = (linked[:-1] & linked[1:]).to(precision.dtype).unsqueeze(-1)
        if trust is not None:
            self.triples = self.triples * trust
        self.frames = len(linked) + 1
        ones = torch.zeros(self.frames, self.triples.shape[1], dtype=precision.dtype, device=precision.device)
        ones[:-2] += self.triples
        ones[1:-1] += 4 * self.triples
        ones[2:] += self.triples
        self.diagonal = ones * precision
        """(F, P): the diagonal of this term's Hessian."""

    def energy(self, velocity: Tensor) -> Tensor:
        """Of first differences (F - 1, P)."""
        return 0.5 * (self.precision * self.triples * (velocity[1:] - velocity[:-1]) ** 2).sum()

    def gradient(self, velocity: Tensor) -> Tensor:
        """(F, P)"""
        return self._spread(self.precision * self.triples * (velocity[1:] - velocity[:-1]))

    def times(self, vector: Tensor) -> Tensor:
        """This term's Hessian times (F, P)."""
        return self.gradient(vector[1:] - vector[:-1])

    def _spread(self, bend: Tensor) -> Tensor:
        result = torch.zeros(self.frames, bend.shape[1], dtype=bend.dtype, device=bend.device)
        result[:-2] += bend
        result[1:-1] -= 2 * bend
        result[2:] += bend
        return result


def solve_in_time(
    hessian: Tensor, gradient: Tensor, smoothness: Smoothness, free: Tensor, tolerance: float = 1e-2, limit: int = 80
) -> Tensor:
    """The step (F, P) of (blocks + smoothness) step = -gradient over the parameters that are `free` (F, P) bool.

    Conjugate gradients, preconditioned by the frames' own blocks, all frames at once. A direct block-banded
    factorisation would walk through the frames one by one; here the coupling in time is weak against the landmarks,
    so some ten or twenty batched products do, on either device.
    """
    mask = free.to(hessian.dtype)
    blocks = hessian + torch.diag_embed(smoothness.diagonal)
    blocks = blocks * mask.unsqueeze(-1) * mask.unsqueeze(-2) + torch.diag_embed(1 - mask)
    factor = torch.linalg.cholesky(blocks)

    def precondition(vector: Tensor) -> Tensor:
        return torch.cholesky_solve(vector.unsqueeze(-1), factor).squeeze(-1) * mask

    def apply(vector: Tensor) -> Tensor:
        # What is not free stays zero in every direction. A batch of matrices times one vector each is faster as a sum.
        return ((hessian * vector.unsqueeze(1)).sum(-1) + smoothness.times(vector)) * mask

    residual = -gradient * mask
    step = torch.zeros_like(residual)
    direction = preconditioned = precondition(residual)
    power = start = (residual * preconditioned).sum()
    for _ in range(limit):
        if power <= tolerance**2 * start:
            break
        image = apply(direction)
        length = power / (direction * image).sum()
        step = step + length * direction
        residual = residual - length * image
        preconditioned = precondition(residual)
        fresh = (residual * preconditioned).sum()
        direction = preconditioned + fresh / power * direction
        power = fresh
    return step


def variances_in_time(hessian: Tensor, smoothness: Smoothness) -> Tensor:
    """(F, P) float32: the diagonal of the inverse of (blocks + smoothness): what remains unknown of each parameter of each
    frame, all other parameters and frames taken into account.

    Frames are coupled with the next two, so pairs of frames are coupled with the next pair: a block-tridiagonal matrix, whose
    inverse has its diagonal blocks by one elimination and one substitution backwards (Takahashi et al. 1973; for chains of
    states, Rauch, Tung and Striebel 1965). In float64: place is known to fractions of a millimetre and gaze to radians.
    """
    frames, size = hessian.shape[:2]
    pairs = (frames + 1) // 2
    blocks = hessian.new_zeros(2 * pairs, size, size, dtype=torch.float64)
    blocks[:frames] = hessian.double() + torch.diag_embed(smoothness.diagonal.double())
    if frames % 2:
        blocks[-1] = torch.eye(size, dtype=torch.float64, device=hessian.device)
    to_next = hessian.new_zeros(2 * pairs, size, dtype=torch.float64)
    to_second = to_next.clone()
    bends = smoothness.triples.double() * smoothness.precision.double()
    to_next[: len(bends)] -= 2 * bends
    to_next[1 : len(bends) + 1] -= 2 * bends
    to_second[: len(bends)] = bends
    own = torch.zeros(pairs, 2 * size, 2 * size, dtype=torch.float64, device=hessian.device)
    own[:, :size, :size], own[:, size:, size:] = blocks[::2], blocks[1::2]
    own[:, :size, size:] = own[:, size:, :size] = torch.diag_embed(to_next[::2])
    # From a pair to the next: both frames see its first one, the second frame also its second.
    ahead = torch.zeros_like(own)
    ahead[:, :size, :size] = torch.diag_embed(to_second[::2])
    ahead[:, size:, :size] = torch.diag_embed(to_next[1::2])
    ahead[:, size:, size:] = torch.diag_embed(to_second[1::2])

    inverses, gains = [], []
    for pair in range(pairs):
        inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(own[pair])))
        gains.append(inverses[pair] @ ahead[pair])
        if pair + 1 < pairs:
            own[pair + 1] -= ahead[pair].T @ gains[pair]
    covariance = inverses[-1]
    diagonals = [covariance.diagonal()]
    for pair in range(pairs - 2, -1, -1):
        covariance = inverses[pair] + gains[pair] @ covariance @ gains[pair].T
        diagonals.append(covariance.diagonal())
    return torch.stack(diagonals[::-1]).reshape(2 * pairs, size)[:frames].float()
