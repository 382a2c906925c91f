"""The image of the avatars before it gets Blender's colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np

from .camera import RenderRegion

EMPTY_ALPHA: Final = 1 / 255
"""A pixel with less counts as empty, as in the backend: its mean depth would be that of an invisible rim."""


@dataclass(frozen=True)
class RenderedFrame:
    """An image of H × W pixels, top row first."""

    color: np.ndarray
    """(H, W, 3) sRGB-encoded, premultiplied."""
    alpha: np.ndarray
    """(H, W)"""
    depth: np.ndarray
    """(H, W) metres along the camera's axis; infinity where nothing is covered."""
    hole: np.ndarray
    """(H, W) the share of a pixel that holdouts cut out of the image."""
    parts: np.ndarray
    """(H, W, M) the share of a pixel that each of M parts covers (`mattes.Parts`); M may be 0."""

    @classmethod
    def empty(cls, region: RenderRegion) -> RenderedFrame:
        """An image without an avatar."""
        size = region.height, region.width
        nothing = np.zeros(size, np.float32)
        return cls(
            np.zeros((*size, 3), np.float32), nothing, np.full(size, np.inf, np.float32), nothing, no_parts(nothing)
        )

    @classmethod
    def joined(cls, rows: Sequence[Sequence[RenderedFrame]]) -> RenderedFrame:
        """The image of which these are the tiles, row by row from the top."""
        return cls(
            *(
                np.concatenate([np.concatenate([getattr(tile, each.name) for tile in row], 1) for row in rows])
                for each in fields(cls)
            )
        )

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> RenderedFrame:
        """From the worker's answer to `avatar.render`."""
        alpha = answer["alpha"]
        hole, parts = answer.get("hole", np.zeros_like(alpha)), answer.get("parts", no_parts(alpha))
        return cls(answer["color"], alpha, answer["depth"], hole, parts)


def no_parts(alpha: np.ndarray) -> np.ndarray:
    """(H, W) -> (H, W, 0)."""
    return np.zeros((*alpha.shape, 0), np.float32)
