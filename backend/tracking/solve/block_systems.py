"""Linear solvers for the tracker's normal equations, by their block structure.

Frames are independent blocks; they share parameters (an arrowhead matrix) or are coupled to their neighbours in time (a
banded matrix).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..terms.temporal_coupling import TemporalCoupling


def solve_shared(
    hessian: Tensor, cross: Tensor, shared: Tensor, gradient: Tensor, shared_gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The Newton step when all frames share some parameters, by the Schur complement (Triggs et al. 2000, section 6.1).

    Args:
        hessian: (F, P, P) the frames' own blocks V.
        cross: (F, P, K) the mixed blocks W.
        shared: (K, K) the shared block U.
        gradient: (F, P).
        shared_gradient: (K,).

    Returns:
        The frames' step (F, P), the shared step (K,), and the reduced matrix U - sum W' V^-1 W (K, K). Its inverse is
        the shared parameters' covariance with the frames marginalised.

    """
    factor = torch.linalg.cholesky(hessian)
    solved = torch.cholesky_solve(torch.cat((cross, gradient.unsqueeze(-1)), -1), factor)
    by_shared, alone = solved[..., :-1], solved[..., -1]
    reduced = shared - torch.einsum("fpk,fpl->kl", cross, by_shared)
    right = shared_gradient - torch.einsum("fpk,fp->k", cross, alone)
    step = torch.cholesky_solve(-right.unsqueeze(-1), torch.linalg.cholesky(reduced)).squeeze(-1)
    return -alone - by_shared @ step, step, reduced


def solve_in_time(
    hessian: Tensor,
    gradient: Tensor,
    coupling: TemporalCoupling,
    free: Tensor,
    tolerance: float = 1e-2,
    max_iterations: int = 80,
) -> Tensor:
    """The step (F, P) with (blocks + coupling) step = -gradient over the parameters that are `free` (F, P) bool.

    Conjugate gradients for all frames at once, preconditioned by the frames' own blocks (F, P, P). A direct
    block-banded factorisation would walk through the frames one by one; here the temporal coupling is weak against the
    landmarks, so ten or twenty batched products suffice, on a CPU and on a GPU.
    """
    mask = free.to(hessian.dtype)
    blocks = hessian + torch.diag_embed(coupling.diagonal)
    blocks = blocks * mask.unsqueeze(-1) * mask.unsqueeze(-2) + torch.diag_embed(1 - mask)
    factor = torch.linalg.cholesky(blocks)

    def precondition(vector: Tensor) -> Tensor:
        return torch.cholesky_solve(vector.unsqueeze(-1), factor).squeeze(-1) * mask

    def apply(vector: Tensor) -> Tensor:
        # What is not free stays zero in every direction. A batch of matrices times one vector each is faster as a sum.
        return ((hessian * vector.unsqueeze(1)).sum(-1) + coupling.times(vector)) * mask

    residual = -gradient * mask
    step = torch.zeros_like(residual)
    direction = preconditioned = precondition(residual)
    power = initial = (residual * preconditioned).sum()
    for _ in range(max_iterations):
        if power <= tolerance**2 * initial:
            break
        image = apply(direction)
        length = power / (direction * image).sum()
        step = step + length * direction
        residual = residual - length * image
        preconditioned = precondition(residual)
        next_power = (residual * preconditioned).sum()
        direction = preconditioned + next_power / power * direction
        power = next_power
    return step


def solve_independent(hessian: Tensor, gradient: Tensor, free: Tensor) -> Tensor:
    """The step (F, P) with blocks step = -gradient over the parameters that are `free` (F, P) bool."""
    mask = free.to(hessian.dtype)
    blocks = hessian * mask.unsqueeze(-1) * mask.unsqueeze(-2) + torch.diag_embed(1 - mask)
    return torch.cholesky_solve((-gradient * mask).unsqueeze(-1), torch.linalg.cholesky(blocks)).squeeze(-1) * mask


def variances_in_time(hessian: Tensor, coupling: TemporalCoupling) -> Tensor:
    """(F, P) float32: the diagonal of the inverse of (blocks + coupling), which are the marginal variances of every
    parameter of every frame.

    Frames are coupled with the next two, so pairs of frames are coupled with the next pair. The inverse of such a
    block-tridiagonal matrix has its diagonal blocks by one elimination and one backward substitution (Takahashi et al.
    1973; for chains of states, Rauch, Tung and Striebel 1965). In float64, because positions are known to fractions of
    a millimetre and gaze to radians.
    """
    frames, size = hessian.shape[:2]
    pairs = (frames + 1) // 2
    blocks = hessian.new_zeros(2 * pairs, size, size, dtype=torch.float64)
    blocks[:frames] = hessian.double() + torch.diag_embed(coupling.diagonal.double())
    if frames % 2:
        blocks[-1] = torch.eye(size, dtype=torch.float64, device=hessian.device)
    to_next = hessian.new_zeros(2 * pairs, size, dtype=torch.float64)
    to_second = to_next.clone()
    accelerations = coupling.triples.double() * coupling.precision.double()
    to_next[: len(accelerations)] -= 2 * accelerations
    to_next[1 : len(accelerations) + 1] -= 2 * accelerations
    to_second[: len(accelerations)] = accelerations
    own = torch.zeros(pairs, 2 * size, 2 * size, dtype=torch.float64, device=hessian.device)
    own[:, :size, :size], own[:, size:, size:] = blocks[::2], blocks[1::2]
    own[:, :size, size:] = own[:, size:, :size] = torch.diag_embed(to_next[::2])
    # From a pair to the next: both frames are coupled to its first frame, the second one also to its second.
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
