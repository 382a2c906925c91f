"""What was painted on an avatar's texture → its file with other colours, opacities or offsets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import numpy as np

from ..player.baked_file import BakedAvatar
from ..player.evaluate import OFFSET_UNIT
from ..player.harmonics import C0
from .surface import Surface

STEPS: Final = 12
_LEAST: Final = 0.004
"""Between this and one minus this stays what a sigmoid makes; a Gaussian with a smaller opacity is not drawn."""
_NEAREST: Final = 1e-6
"""To 0 and 1, what a sigmoid or tanh has made."""
_HIDDEN: Final = -1.0
"""What the tanh of a spawned Gaussian's opacity is taken of where it is not to be seen in any expression."""
_LEAST_SCALE: Final = 1e-5
"""Metres, in units of which a spawned Gaussian is placed."""
MEAN: Final = "networks.blendshapes.mean"
POSITIONS: Final = "networks.blendshapes.positions"


class Attribute(StrEnum):
    """What a texture holds. The end of its name says which."""

    COLOR = "color"
    OPACITY = "opacity"
    OFFSETS = "offsets"

    @property
    def unpainted(self) -> float:
        """A texel that differs by less was not painted: 8 bits round colours and opacity, a .exr offsets (metres)."""
        return 1e-4 if self is Attribute.OFFSETS else 1.01 / 255


def values_at_rest(attribute: Attribute, baked: BakedAvatar, splats: Mapping[str, np.ndarray]) -> np.ndarray:
    """(G, c) of the Gaussians: colours (sRGB), opacities (c = 1), or metres from the skin in head space."""
    if attribute is Attribute.COLOR:
        return splats["colors"]
    if attribute is Attribute.OPACITY:
        return splats["opacities"][:, None]
    vertices = baked.vertices.T
    return splats["means"] - np.concatenate((vertices, np.repeat(vertices, baked.spawned, 0)))


def change_of(attribute: Attribute, surface: Surface, values: np.ndarray, painted: np.ndarray) -> np.ndarray:
    """How the Gaussians' `values` (G, c) change so that the texels become `painted` (T, c)."""
    shown = surface.mean(values)
    if attribute is not Attribute.OFFSETS:
        shown, painted = shown.clip(0, 1), painted.clip(0, 1)
    difference = painted - shown
    difference[np.abs(difference).max(1) < attribute.unpainted] = 0
    if attribute is not Attribute.OPACITY:
        return solved(surface, difference, len(values))
    # By a share of what there is, or of what is missing: a texel of 0 leaves no Gaussian there, however opaque it was.
    share = difference / np.maximum(np.where(difference < 0, shown, 1 - shown), _LEAST)
    share = share.clip(-1, 1)
    found = solved(surface, share, len(values)).clip(min(share.min(), 0), max(share.max(), 0))
    return found * np.where(found < 0, values, 1 - values)


def solved(surface: Surface, wanted: np.ndarray, count: int) -> np.ndarray:
    """What to add to the values (count, c) of the Gaussians so that the texels change by `wanted` (T, c), as near as
    the Gaussians are fine. Simultaneous iterative reconstruction (Gilbert 1972), which leaves those alone whose texels
    do not change.
    """
    seen = np.maximum(surface.spread(np.ones((len(wanted), 1), np.float32), count), 1e-6)
    change = np.zeros((count, wanted.shape[1]), np.float32)
    for _ in range(STEPS):
        change += (surface.spread(wanted - surface.mean(change), count) / seen).astype(np.float32)
    # Where nothing was painted nearby, the steps leave ripples.
    painted = np.abs(wanted).max(1, keepdims=True)
    touched = surface.spread(painted, count) / seen
    return np.where(touched > 1e-4 * max(float(painted.max(initial=0)), 1e-9), change, 0)


def painted_file(
    content: bytes, baked: BakedAvatar, splats: Mapping[str, np.ndarray], attribute: Attribute, change: np.ndarray
) -> bytes:
    """An avatar's file in which the Gaussians, which at rest are `splats`, have an attribute changed by `change` (G, c)
    in every expression.
    """
    n, k = len(baked.base_scale), baked.spawned
    mean = _numbers(content, MEAN)
    anchors = 11 + 3 * (baked.sh_degree + 1) ** 2
    spawned = mean[:, anchors:].reshape(n, k, 11)
    own = change[n:].reshape(n, k, -1)
    values = values_at_rest(attribute, baked, splats)
    before, after = values, values + change
    if attribute is Attribute.COLOR:
        mean[:, 11:14] += change[:n] / C0
        spawned[..., 1:4] += (_logit(after[n:], _LEAST) - _logit(before[n:], _LEAST)).reshape(n, k, 3)
    elif attribute is Attribute.OPACITY:
        moved = _logit(after[:n], _LEAST) - _logit(before[:n], _NEAREST)
        mean[:, 10:11] += np.where(change[:n], moved, 0)
        reached = np.arctanh(after[n:].clip(0, 1 - _LEAST))
        reached = np.where(after[n:] < _LEAST, _HIDDEN, reached) - np.arctanh(before[n:].clip(0, 1 - _NEAREST))
        spawned[..., :1] += np.where(own, reached.reshape(n, k, 1), 0)
    else:
        mean[:, :3] += change[:n] / OFFSET_UNIT
        positions = _numbers(content, POSITIONS)
        positions += (own - change[:n, None]) / np.maximum(splats["scales"][:n, None], _LEAST_SCALE)
        content = _replaced(content, POSITIONS, positions)
    mean[:, anchors:] = spawned.reshape(n, 11 * k)
    return _replaced(content, MEAN, mean)


def _logit(values: np.ndarray, least: float) -> np.ndarray:
    inside = values.clip(least, 1 - least).astype(np.float64)
    return np.log(inside / (1 - inside))


def _place(content: bytes, name: str) -> tuple[int, int, str, list[int]]:
    """Where a tensor lies in a file, its type and its shape."""
    length = int.from_bytes(content[:8], "little")
    entry = json.loads(content[8 : 8 + length])[name]
    begin, end = (8 + length + offset for offset in entry["data_offsets"])
    return begin, end, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[entry["dtype"]], entry["shape"]


def _numbers(content: bytes, name: str) -> np.ndarray:
    begin, end, dtype, shape = _place(content, name)
    return np.frombuffer(content[begin:end], dtype).reshape(shape).astype(np.float64)


def _replaced(content: bytes, name: str, values: np.ndarray) -> bytes:
    begin, end, dtype, _ = _place(content, name)
    return content[:begin] + values.astype(dtype).tobytes() + content[end:]
