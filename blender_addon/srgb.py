"""The curve between sRGB-encoded values and linear light (IEC 61966-2-1), per component."""

from __future__ import annotations

import numpy as np


def decode(encoded: np.ndarray) -> np.ndarray:
    """Linear light from sRGB-encoded values."""
    low = encoded <= 0.04045
    return np.where(low, encoded / 12.92, ((np.maximum(encoded, 0.04045) + 0.055) / 1.055) ** 2.4)


def encode(light: np.ndarray) -> np.ndarray:
    """The inverse of `decode`. Values above 1 continue along the same curve."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
