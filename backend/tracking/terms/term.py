"""The interface of every energy term, and the normal equations that terms contribute.

The tracker minimises a sum of energies by Gauss-Newton with Levenberg-Marquardt damping (`solve/`). Each energy is one
`Term`. To add one, write a class with `energy` and `normal_equations` and put an instance into the list that
`pipeline.py` builds; the solvers need no change.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..model.camera import Camera
from ..model.frame_state import FrameState
from .temporal_coupling import TemporalCoupling

ROBUST_SCALE = 3.0
"""s of `robust` for measured irises, silhouette points and skin patches: a residual of this many standard deviations
has half its quadratic energy, and a quarter of its weight in the Gauss-Newton equations."""


@dataclass(frozen=True)
class SharedBlocks:
    """The blocks of the normal equations that belong to K parameters which all frames share."""

    gradient: Tensor
    """(K,) summed over frames."""
    hessian: Tensor
    """(K, K) summed over frames."""
    cross: Tensor
    """(F, P, K): the mixed second derivatives by a frame's own and the shared parameters."""

    def widened(self, count: int) -> SharedBlocks:
        """The blocks with `count` more shared parameters, on which the energy does not depend."""
        pad = torch.nn.functional.pad
        return SharedBlocks(
            pad(self.gradient, (0, count)), pad(self.hessian, (0, count, 0, count)), pad(self.cross, (0, count))
        )

    def __add__(self, other: SharedBlocks) -> SharedBlocks:
        """The sum for the same frames; the narrower one is widened."""
        width = max(len(self.gradient), len(other.gradient))
        first, second = (part.widened(width - len(part.gradient)) for part in (self, other))
        return SharedBlocks(
            first.gradient + second.gradient, first.hessian + second.hessian, first.cross + second.cross
        )


@dataclass(frozen=True)
class NormalEquations:
    """Gauss-Newton's gradient and approximate Hessian of F frames, by block."""

    energy: Tensor
    """(F,)"""
    gradient: Tensor
    """(F, P)"""
    hessian: Tensor
    """(F, P, P)"""
    shared: SharedBlocks | None = None
    """The blocks of the shared parameters, if they were requested and the energy depends on them."""
    coupling: TemporalCoupling | None = None
    """The part of the Hessian that couples neighbouring frames, where there is one."""

    @classmethod
    def of_rows(cls, rows: Tensor, residuals: Tensor, energy: Tensor, shared_rows: Tensor | None) -> NormalEquations:
        """From whitened Jacobian rows (F, R, P), residuals (F, R), energy (F,) and shared Jacobian rows (F, R, K)."""
        transposed, column = rows.transpose(1, 2), residuals.unsqueeze(-1)
        shared = None
        if shared_rows is not None:
            flat = shared_rows.flatten(0, 1)
            shared = SharedBlocks(flat.T @ residuals.flatten(), flat.T @ flat, transposed @ shared_rows)
        return cls(energy, (transposed @ column).squeeze(-1), transposed @ rows, shared)

    @classmethod
    def concatenated(cls, parts: Sequence[NormalEquations]) -> NormalEquations:
        """The equations of consecutive frames as one; shared gradients and Hessians are summed."""
        energy, gradient, hessian = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("energy", "gradient", "hessian")
        )
        blocks = [part.shared for part in parts if part.shared is not None]
        if not blocks:
            return cls(energy, gradient, hessian)
        return cls(
            energy,
            gradient,
            hessian,
            SharedBlocks(
                torch.stack([part.gradient for part in blocks]).sum(0),
                torch.stack([part.hessian for part in blocks]).sum(0),
                torch.cat([part.cross for part in blocks]),
            ),
        )

    def __add__(self, other: NormalEquations) -> NormalEquations:
        """The equations of the sum of two energies of the same frames. At most one of them may couple frames in
        time.
        """
        shared = self.shared or other.shared
        if self.shared is not None and other.shared is not None:
            shared = self.shared + other.shared
        return NormalEquations(
            self.energy + other.energy,
            self.gradient + other.gradient,
            self.hessian + other.hessian,
            shared,
            self.coupling or other.coupling,
        )

    def required_shared(self) -> SharedBlocks:
        """The shared blocks; raises a ValueError if these equations were made without them."""
        if self.shared is None:
            raise ValueError("these normal equations were made without their shared blocks")
        return self.shared


class Term(ABC):
    """One energy over the parameters of F frames.

    A term is immutable. Robust weights, bias corrections and correspondences depend on the current estimate;
    `reweighted` recomputes them once per iteration, as in iteratively reweighted least squares and ICP. They stay fixed
    while the solver tries steps, so that the energies before and after a step are comparable. By default nothing is
    recomputed.
    """

    per_frame: ClassVar[tuple[str, ...]] = ()
    """The fields whose first dimension is the frame."""

    def __getitem__(self, index: slice | Tensor) -> Self:
        """The term restricted to some frames."""
        return replace(self, **{name: getattr(self, name)[index] for name in self.per_frame})  # type: ignore[type-var]

    def of_person(self, identity: Tensor, patch_offsets: Tensor) -> Self:
        """The term for a person with identity (S,) and skin patch offsets (K, 3) in metres. `fit_person` calls it for
        every trial step; terms that take no part in fitting a person need not override it.
        """
        return self

    def reweighted(self, state: FrameState, camera: Camera, robust_scale: float) -> Self:
        """The term with weights and correspondences recomputed for the current estimate. Always call it on the original
        term, never on the result of an earlier call. `robust_scale` is s of `robust`; terms with a constant scale
        ignore it.
        """
        return self

    @abstractmethod
    def energy(self, state: FrameState, camera: Camera) -> Tensor:
        """The energy of each frame, (F,)."""

    @abstractmethod
    def normal_equations(self, state: FrameState, camera: Camera, *, shared: bool = False) -> NormalEquations:
        """Gradient and Gauss-Newton Hessian of the energy at `state`.

        With `shared`, terms that take part in fitting a person also return the blocks of the shared parameters:
        identity (S), log focal length (1), and, where the term depends on them, patch offsets (3 K). Other terms ignore
        `shared`.
        """


def total_energy(terms: Sequence[Term], state: FrameState, camera: Camera) -> Tensor:
    """The sum over all terms and frames, ()."""
    return torch.stack([term.energy(state, camera) for term in terms]).sum(0).sum()


def total_equations(
    terms: Sequence[Term], state: FrameState, camera: Camera, *, shared: bool = False
) -> NormalEquations:
    """The normal equations of the sum of all terms."""
    total = terms[0].normal_equations(state, camera, shared=shared)
    for term in terms[1:]:
        total = total + term.normal_equations(state, camera, shared=shared)
    return total


def robust(residual: Tensor, weight: Tensor, robust_scale: float) -> tuple[Tensor, Tensor]:
    """Geman and McClure's function rho(e) = s^2 e^2 / (s^2 + e^2), s = `robust_scale`.

    Args:
        residual: (F, R, D) in standard deviations; e is its norm over the last dimension.
        weight: (F, R).
        robust_scale: s.

    Returns:
        The energy (F,), and each residual's weight (F, R) in the Gauss-Newton equations, (s^2 / (s^2 + e^2))^2.

    """
    squared, limit = (residual**2).sum(-1), robust_scale**2
    share = limit / (limit + squared)
    return 0.5 * (weight * squared * share).sum(1), weight * share**2
