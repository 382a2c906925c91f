"""The graph U-Net of GraphAvatar (paper section 3.1): from a posed mesh and its expression to one attribute vector per
vertex.

Two Chebyshev convolutions with pooling encode the mesh as a code z of 8 numbers; z and the expression are decoded by
two mirrored convolutions with up-sampling and one output convolution.

Every decoder convolution is followed by one bias per vertex and filter, as in Defferrard et al. 2016 (`b2relu`), from
whose networks CoMA's derive, which have one per filter. The paper does not specify the bias. With one per filter only,
all texture of a face would have to pass through 157 coarse vertices, since the decoder has no skip connections.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..head.chebyshev import ChebyshevConvolution
from ..head.mesh_graph import MeshHierarchy, sample


class GraphUNet(nn.Module):
    """(B, N, inputs) and (B, conditions) -> attributes (B, N, outputs) and code (B, latent_size)."""

    def __init__(
        self,
        hierarchy: MeshHierarchy,
        inputs: int,
        conditions: int,
        outputs: int,
        *,
        filters: int,
        latent_size: int,
        order: int,
    ) -> None:
        super().__init__()
        self.hierarchy = hierarchy
        fine, middle, coarse = hierarchy.sizes
        self.filters = filters
        self.encode_fine = ChebyshevConvolution(inputs, filters, order)
        self.encode_middle = ChebyshevConvolution(filters, filters, order)
        self.to_code = nn.Linear(coarse * filters, latent_size)
        self.from_code = nn.Linear(latent_size + conditions, coarse * filters)
        self.decode_middle = ChebyshevConvolution(filters, filters, order)
        self.decode_fine = ChebyshevConvolution(filters, filters, order)
        self.output = ChebyshevConvolution(filters, outputs, order)
        self.bias_middle = nn.Parameter(torch.zeros(middle, filters))
        self.bias_fine = nn.Parameter(torch.zeros(fine, filters))
        self.bias_output = nn.Parameter(torch.zeros(fine, outputs))
        with torch.no_grad():
            # Keeps the random output of the untrained decoder small against the Gaussians learnt in the warm-up.
            for parameter in self.output.parameters():
                parameter.mul_(0.1)

    def encode(self, surface: Tensor) -> Tensor:
        """The bottleneck code (B, latent_size) of a surface (B, N, inputs)."""
        graph = self.hierarchy
        x = functional.elu(self.encode_fine(surface, graph.laplacians[0]))
        x = sample(graph.downs[0], x)
        x = functional.elu(self.encode_middle(x, graph.laplacians[1]))
        x = sample(graph.downs[1], x)
        return self.to_code(x.flatten(1))

    def forward(self, surface: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
        graph = self.hierarchy
        code = self.encode(surface)
        x = self.from_code(torch.cat((code, conditions), 1)).unflatten(1, (-1, self.filters))
        x = sample(graph.ups[1], x)
        x = functional.elu(self.decode_middle(x, graph.laplacians[1]) + self.bias_middle)
        x = sample(graph.ups[0], x)
        x = functional.elu(self.decode_fine(x, graph.laplacians[0]) + self.bias_fine)
        return self.output(x, graph.laplacians[0]) + self.bias_output, code
