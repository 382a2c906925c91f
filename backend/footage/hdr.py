"""Tone mapping of high dynamic range footage and of scene-linear images to sRGB.

Phones record HLG by default, which appears pale and grey if it is decoded as sRGB. The transfer functions are those of
ITU-R BT.2100 (HLG: table 5, PQ: table 4), diffuse white is 203 cd/m2 (BT.2408), and brighter highlights are compressed
into the last fifth of the range instead of being clipped.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

SDR, HLG, PQ = "sdr", "hlg", "pq"
_TRANSFER_CODES = {16: PQ, 18: HLG}
"""H.273 transfer characteristics, as FFmpeg numbers them."""

_DIFFUSE_WHITE = 203.0
"""cd/m2"""
_HLG_PEAK = 1000.0
"""cd/m2: peak luminance of the display for which HLG's system gamma is 1.2."""
_KNEE = 0.8
"""Linear light, in units of diffuse white, above which highlights are compressed."""

_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT2020_TO_BT709 = np.array(
    [
        [1.660491, -0.587641, -0.072850],
        [-0.124550, 1.132900, -0.008349],
        [-0.018151, -0.100579, 1.118730],
    ],
    np.float32,
)
_STEPS = 4096


def transfer_of(code: int) -> str:
    """SDR, HLG or PQ for a transfer characteristic's code."""
    return _TRANSFER_CODES.get(int(code), SDR)


def to_sdr(image: np.ndarray, transfer: str) -> np.ndarray:
    """(H, W, 3) uint8 encoded in `transfer` with BT.2020 primaries -> (H, W, 3) uint8 sRGB. SDR images are returned
    unchanged.
    """
    if transfer == SDR:
        return image
    light = _decode_table(transfer)[image]
    if transfer == HLG:
        # The opto-optical transfer function: display light = scene light x luminance ^ (1.2 - 1), BT.2100 table 5.
        luminance = light @ _BT2020_LUMA
        light *= (_HLG_PEAK / _DIFFUSE_WHITE) * np.power(luminance, 0.2)[..., None]
    return _encode(cv2.transform(_within_display(light), _BT2020_TO_BT709))


def linear_to_srgb(light: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 scene-linear light of Rec. 709 primaries, 1 = white and none negative -> (H, W, 3) uint8
    sRGB.
    """
    return _encode(_within_display(light))


def _within_display(light: np.ndarray) -> np.ndarray:
    """The light with its highlights compressed. A common factor for the three channels preserves their hue."""
    peak = light.max(-1, keepdims=True)
    return light * (_compress_highlights(peak) / np.maximum(peak, 1e-6))


def _encode(light: np.ndarray) -> np.ndarray:
    return _encode_table()[(np.clip(light, 0, 1) * (_STEPS - 1) + 0.5).astype(np.int32)]


def _compress_highlights(light: np.ndarray) -> np.ndarray:
    """Identity up to the knee, then an exponential approach to 1 with the same slope."""
    headroom = 1 - _KNEE
    return np.where(light <= _KNEE, light, 1 - headroom * np.exp(-(np.maximum(light, _KNEE) - _KNEE) / headroom))


@cache
def _decode_table(transfer: str) -> np.ndarray:
    """(256,) float32. HLG: scene light, 1 = the brightest signal; PQ: display light in units of diffuse white."""
    signal = np.arange(256) / 255.0
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10000 / _DIFFUSE_WHITE
    return light.astype(np.float32)


@cache
def _encode_table() -> np.ndarray:
    """(4096,) uint8: linear light in [0, 1] to the sRGB code."""
    light = np.linspace(0, 1, _STEPS)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)
