"""What was painted on an avatar's texture → its file with other colours."""

from __future__ import annotations

import json
from typing import Final

import numpy as np

from ..player.baked_file import BakedAvatar
from .surface import Surface

STEPS: Final = 12
UNPAINTED: Final = 1.01 / 255
"""A texel that differs by less in all colours was not painted: 8 bits round it."""
_C0: Final = 0.28209479177387814
_LEAST: Final = 0.004
"""Between this and one minus this a spawned Gaussian's colour stays, which a sigmoid makes."""
MEAN: Final = "networks.blendshapes.mean"


def solved(surface: Surface, difference: np.ndarray, count: int) -> np.ndarray:
    """What to add to the colours (count, 3) of the Gaussians so that the texels change by `difference` (T, 3), as near
    as the Gaussians are fine. Simultaneous iterative reconstruction (Gilbert 1972), which leaves those alone whose
    texels do not change.
    """
    wanted = np.where(np.abs(difference).max(1, keepdims=True) < UNPAINTED, 0, difference).astype(np.float32)
    seen = np.maximum(surface.spread(np.ones((len(wanted), 1), np.float32), count), 1e-6)
    colors = np.zeros((count, 3), np.float32)
    for _ in range(STEPS):
        colors += (surface.spread(wanted - surface.mean(colors), count) / seen).astype(np.float32)
    # Where nothing was painted nearby, the steps leave ripples.
    touched = surface.spread(np.abs(wanted).max(1, keepdims=True), count) / seen
    return np.where(touched > 1e-4, colors, 0)


def painted_file(content: bytes, baked: BakedAvatar, colors: np.ndarray, change: np.ndarray) -> bytes:
    """An avatar's file in which the Gaussians, whose colours at rest are `colors` (G, 3), have them changed by `change`
    (G, 3) in every expression.
    """
    length = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + length])[MEAN]
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    dtype = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[entry["dtype"]]
    mean = np.frombuffer(content[begin:end], dtype).reshape(entry["shape"]).astype(np.float64)
    n, k, own = len(baked.base_scale), baked.spawned, 11 + 3 * (baked.sh_degree + 1) ** 2
    mean[:, 11:14] += change[:n] / _C0
    logit = lambda values: np.log(values / (1 - values))
    before, after = (values[n:].clip(_LEAST, 1 - _LEAST) for values in (colors, colors + change))
    moved = (logit(after) - logit(before)).reshape(n, k, 3)
    for index in range(k):
        mean[:, own + 11 * index + 1 : own + 11 * index + 4] += moved[:, index]
    return content[:begin] + mean.astype(dtype).tobytes() + content[end:]
