"""Frequency encoding of positions and normals (NeRF, Mildenhall et al. 2020, eq. 4), in bands that float32 resolves.

Positions are divided by EXTENT first, so band b is sin and cos of 2^b pi x / EXTENT. A band distinguishes points that
lie a quarter of its period apart:

    bands   highest band   period     resolves
    4       2^3            37.5 mm    9.4 mm
    6       2^5             9.4 mm    2.3 mm
    7       2^6             4.7 mm    1.2 mm
    30      2^29            0.6 nm    nothing: float32 holds a position of this size to 7 nm

The released code of GraphAvatar uses the last row, whose highest bands are noise that depends on a vertex's rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EXTENT = 0.15
"""Metres; half the extent of a head with its neck."""


def encoded_size(position_bands: int, normal_bands: int) -> int:
    return 6 + 6 * position_bands + 6 * normal_bands


def encode_surface(vertices: Tensor, normals: Tensor, position_bands: int, normal_bands: int) -> Tensor:
    """(B, N, 3) metres and (B, N, 3) unit -> (B, N, encoded_size)."""
    scaled = vertices / EXTENT
    return torch.cat((scaled, normals, _bands(scaled, position_bands), _bands(normals, normal_bands)), -1)


def _bands(values: Tensor, count: int) -> Tensor:
    frequencies = math.pi * 2.0 ** torch.arange(count, device=values.device, dtype=values.dtype)
    angles = (values[..., None] * frequencies).flatten(-2)
    return torch.cat((angles.sin(), angles.cos()), -1)
