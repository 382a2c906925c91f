"""Chebyshev graph convolution (Defferrard et al. 2016, eq. 4): y = sum_k T_k(L~) x Theta_k + b.

The cost of the products with the Laplacian is proportional to the number of channels. Two algorithms give the same y.
Expanding the input to T_0 x ... T_(K-1) x by the recurrence T_k = 2 L~ T_(k-1) - T_(k-2) works on the input's channels;
Clenshaw's recurrence b_k = x Theta_k + 2 L~ b_(k+1) - b_(k+2) works on the output's channels. The one with fewer
channels is used.

Each algorithm is the backward pass of the other, because L~ is symmetric: the gradient of x is sum_k T_k(L~) g
Theta_k^T, a Clenshaw sum on the input's channels, and the gradient of Theta_k is x^T T_k(L~) g, from the expanded
gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .sparse import SparseOperator, fold, unfold


class ChebyshevConvolution(nn.Module):
    """(B, N, inputs) -> (B, N, outputs) on any graph; the Laplacian is an argument of the call."""

    def __init__(self, inputs: int, outputs: int, order: int = 6) -> None:
        """`order` is the number K of polynomials: a vertex sees its neighbours up to K - 1 edges away."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(order, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # Glorot's bound for the K x inputs terms of each output.
        bound = (6 / (order * inputs + outputs)) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, features: Tensor, laplacian: SparseOperator) -> Tensor:
        return chebyshev(features, laplacian, self.weight) + self.bias


def chebyshev(features: Tensor, laplacian: SparseOperator, weight: Tensor) -> Tensor:
    """sum_k T_k(L~) x Theta_k: features (B, N, I), weight (K, I, O) -> (B, N, O), by the cheaper algorithm."""
    form = _Clenshaw if weight.shape[2] < weight.shape[1] else _Expanded
    return form.apply(features, weight, laplacian)


class _Expanded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, laplacian: SparseOperator) -> Tensor:
        expanded = _expand(features, laplacian.matrix, len(weight))
        ctx.laplacian = laplacian
        ctx.save_for_backward(expanded, weight)
        return expanded.flatten(2) @ weight.flatten(0, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        expanded, weight = ctx.saved_tensors
        to_weight = (expanded.flatten(2).flatten(0, 1).T @ gradient.flatten(0, 1)).view_as(weight)
        to_features = None
        if ctx.needs_input_grad[0]:
            to_features = _clenshaw(gradient, weight.transpose(1, 2), ctx.laplacian.matrix)
        return to_features, to_weight, None


class _Clenshaw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, laplacian: SparseOperator) -> Tensor:
        ctx.laplacian = laplacian
        ctx.save_for_backward(features, weight)
        return _clenshaw(features, weight, laplacian.matrix)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        features, weight = ctx.saved_tensors
        expanded = _expand(gradient, ctx.laplacian.matrix, len(weight)).flatten(2).flatten(0, 1)
        order, inputs, outputs = weight.shape
        to_weight = (features.flatten(0, 1).T @ expanded).view(inputs, order, outputs).transpose(0, 1)
        to_features = None
        if ctx.needs_input_grad[0]:
            to_features = (expanded @ weight.transpose(1, 2).flatten(0, 1)).view_as(features)
        return to_features, to_weight, None


def _expand(features: Tensor, laplacian: Tensor, order: int) -> Tensor:
    """(B, N, C) -> (B, N, K, C): T_0(L~) x ... T_(K-1)(L~) x."""
    columns = fold(features).contiguous()
    terms = [columns]
    if order > 1:
        terms.append(laplacian @ columns)
    for _ in range(order - 2):
        terms.append(torch.addmm(terms[-2], laplacian, terms[-1], beta=-1, alpha=2))
    return torch.stack([unfold(term, len(features)) for term in terms], 2)


def _clenshaw(features: Tensor, weight: Tensor, laplacian: Tensor) -> Tensor:
    """sum_k T_k(L~) x Theta_k from the last k to the first: (B, N, I), (K, I, O) -> (B, N, O)."""
    batch, flat = len(features), features.transpose(0, 1).flatten(0, 1)

    def coefficient(k: int) -> Tensor:
        return (flat @ weight[k]).view(features.shape[1], -1)

    later, latest = None, coefficient(len(weight) - 1)
    for k in range(len(weight) - 2, -1, -1):
        current = torch.addmm(coefficient(k), laplacian, latest, alpha=2 if k else 1)
        if later is not None:
            current -= later
        later, latest = latest, current
    return unfold(latest, batch)
