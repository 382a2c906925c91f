"""Cryptomatte: names as numbers, and which of them cover a pixel and by how much (Friedman and Jones, "Fully Automatic
ID Mattes with Support for Motion Blur and Transparency", and their specification 1.2.0). The passes and their metadata
are those of Cycles, so that Blender's Cryptomatte node and other compositors read them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

_MASK = 0xFFFFFFFF


def hash_of(name: str) -> int:
    """MurmurHash3, x86, 32 bits, seed 0, of a name in UTF-8."""
    data, value = name.encode("utf-8"), 0
    whole = len(data) // 4 * 4
    for start in range(0, whole, 4):
        value ^= _mixed(int.from_bytes(data[start : start + 4], "little"))
        value = (_rotated(value, 13) * 5 + 0xE6546B64) & _MASK
    if data[whole:]:
        value ^= _mixed(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = (value ^ value >> shift) * factor & _MASK
    return value ^ value >> 16


def number_of(name: str) -> np.float32:
    """The number that stands for a name in a pass: its hash as a float, whose exponent is kept from the two that are no
    normal numbers.
    """
    value = hash_of(name)
    exponent = min(max(value >> 23 & 255, 1), 254)
    return np.float32(np.array((value & 0x807FFFFF) | exponent << 23, np.uint32).view(np.float32))


def ranked(names: list[str], shares: np.ndarray, levels: int) -> list[np.ndarray]:
    """Passes (H, W, 4) of two levels each: number and share, number and share, the largest share first. `shares`
    (M, H, W): by how much each name covers each pixel; a name may come several times.
    """
    unique = list(dict.fromkeys(names))
    summed = np.zeros((max(len(unique), levels + 1), *shares.shape[1:]), np.float32)
    for name, share in zip(names, shares, strict=True):
        summed[unique.index(name)] += share
    numbers = np.zeros(len(summed), np.float32)
    numbers[: len(unique)] = [number_of(name) for name in unique]
    order = np.argsort(-summed, 0, kind="stable")[: levels + levels % 2]
    found = np.take_along_axis(summed, order, 0)
    found[levels:] = 0
    identities = np.where(found > 0, numbers[order], 0)
    pairs = np.stack((identities, found), -1)
    return [np.concatenate((pairs[level], pairs[level + 1]), -1) for level in range(0, len(pairs), 2)]


def metadata(layer: str, kind: str, names: Iterable[str]) -> dict[str, str]:
    """What a file says about the passes `kind` (CryptoObject, CryptoMaterial, CryptoAsset) of a view layer."""
    full = f"{layer}.{kind}"
    prefix = f"cryptomatte/{hash_of(full):08x}"[: len("cryptomatte/") + 7]
    manifest = {name: f"{hash_of(name):08x}" for name in names}
    return {
        f"{prefix}/name": full,
        f"{prefix}/hash": "MurmurHash3_32",
        f"{prefix}/conversion": "uint32_to_float32",
        f"{prefix}/manifest": json.dumps(manifest, ensure_ascii=False, separators=(",", ":")),
    }


def _mixed(block: int) -> int:
    return _rotated(block * 0xCC9E2D51 & _MASK, 15) * 0x1B873593 & _MASK


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & _MASK
