"""Files of 3D Gaussians that other programs read, as bytes: `.ply`, `.spz` and `.glb`. Numpy and the standard library.

    .ply  one binary little-endian record of 62 floats per Gaussian, named as in the released program of Kerbl et al.
          2023: x y z, nx ny nz (unused, zero), f_dc_0…2 and f_rest_0…44 (spherical harmonics; the rest colour by
          colour), opacity (before the sigmoid), scale_0…2 (natural logarithm, metres), rot_0…3 (w, x, y, z). All 45
          f_rest are written even when colour does not depend on direction, because many viewers refuse a file
          without them.
    .spz  Niantic's packed format, version 3 (github.com/nianticlabs/spz): 20 bytes per Gaussian before gzip. Axes are
          RUB (x right, y up, z back), which are those of head space seen from the front.
    .glb  glTF 2.0 with KHR_gaussian_splatting, Y up: linear scales, opacities in [0, 1], quaternions x, y, z, w. A
          viewer without the extension shows the Gaussians as coloured points.

The extension has this same file, because it does not import the backend; a test compares the two.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .errors import EffigyError

C0: Final = 0.28209479177387814
"""The constant spherical harmonic, ½ √(1/π): colour = 0.5 + C0 · f_dc."""
ALPHA_MIN: Final = 1 / 255
"""Gaussians with a lower opacity are never drawn and are not written, as in `backend.splatting.reference`."""
REST: Final = 15
"""Harmonics above the constant one, of degree 3."""
COLUMNS: Final = (
    *("x", "y", "z", "nx", "ny", "nz"),
    *(f"f_dc_{k}" for k in range(3)),
    *(f"f_rest_{k}" for k in range(3 * REST)),
    "opacity",
    *(f"scale_{k}" for k in range(3)),
    *(f"rot_{k}" for k in range(4)),
)
"""The properties of a `.ply`."""
_SPZ_MAGIC: Final = 0x5053474E
_SPZ_VERSION: Final = 3
_SPZ_COLOR: Final = 0.15
"""Of f_dc in a byte's range."""
_SPZ_FINEST: Final = 20
"""Bits after the binary point at which coordinates of up to 8 m are steps of 1 µm."""
_LIMIT: Final = 1 << 23
"""Of SPZ's coordinates, which have 24 bits."""
_SMALLEST: Final = 1e-12
"""Metres: a scale of zero has no logarithm."""


@dataclass(frozen=True)
class Gaussians:
    """G Gaussians with the axes of the file. Arrays may be of any float type."""

    means: np.ndarray
    """(G, 3) metres."""
    quaternions: np.ndarray
    """(G, 4) w, x, y, z, of any length."""
    scales: np.ndarray
    """(G, 3) standard deviations, metres."""
    opacities: np.ndarray
    """(G,)"""
    colors: np.ndarray
    """(G, 3) sRGB-encoded."""
    rest: np.ndarray | None = None
    """(G, K, 3), K ≤ 15: spherical harmonics above the constant one, which only a `.ply` takes."""

    def seen(self) -> Gaussians:
        """Those that are drawn, as float64 and with quaternions of unit length."""
        kept = self.opacities >= ALPHA_MIN
        means, quaternions, scales, opacities, colors = (
            np.asarray(part, np.float64)[kept]
            for part in (self.means, self.quaternions, self.scales, self.opacities, self.colors)
        )
        length = np.linalg.norm(quaternions, axis=1, keepdims=True)
        rest = None if self.rest is None else np.asarray(self.rest, np.float64)[kept]
        return Gaussians(means, quaternions / np.maximum(length, 1e-12), scales, opacities, colors, rest)


def encoded(suffix: str, gaussians: Gaussians) -> tuple[bytes, int]:
    """The content of a file that ends in `suffix`, one of `FORMATS`, and how many Gaussians it holds.

    Raises an `EffigyError` for Gaussians that are not finite, or too far away for `.spz`.
    """
    seen = gaussians.seen()
    if not all(part is None or np.isfinite(part).all() for part in vars(seen).values()):
        raise EffigyError("The avatar's Gaussians are not finite numbers: train or copy the avatar again.")
    return FORMATS[suffix.lower()](seen), len(seen.means)


def format_of(name: str) -> str | None:
    """The suffix in `FORMATS` in which a file's name ends; None for another one."""
    return next((suffix for suffix in FORMATS if name.lower().endswith(suffix)), None)


def _ply(seen: Gaussians) -> bytes:
    column = {name: k for k, name in enumerate(COLUMNS)}
    table = np.zeros((len(seen.means), len(COLUMNS)), "<f4")

    def put(first: str, values: np.ndarray) -> None:
        table[:, column[first] : column[first] + values.shape[1]] = values

    put("x", seen.means)
    put("f_dc_0", (seen.colors - 0.5) / C0)
    if seen.rest is not None:
        padded = np.zeros((len(table), 3, REST))
        padded[:, :, : seen.rest.shape[1]] = seen.rest.transpose(0, 2, 1)
        put("f_rest_0", padded.reshape(-1, 3 * REST))
    # A fully opaque Gaussian would have an infinite logit; 1 - 1e-6 is still distinguishable from 1 in float32.
    probability = np.clip(seen.opacities, None, 1 - 1e-6)
    put("opacity", np.log(probability / (1 - probability))[:, None])
    put("scale_0", np.log(np.maximum(seen.scales, _SMALLEST)))
    put("rot_0", seen.quaternions)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property float {name}" for name in COLUMNS]
    return "\n".join([*header, "end_header\n"]).encode() + table.tobytes()


def _spz(seen: Gaussians) -> bytes:
    farthest = float(np.abs(seen.means).max(initial=0.0))
    bits = next((bits for bits in range(_SPZ_FINEST, 7, -1) if farthest * 2**bits < _LIMIT - 1), None)
    if bits is None:
        raise EffigyError(
            f"The avatar is {farthest / 1000:.0f} km from the world's origin, which a .spz file cannot hold: move it "
            "nearer, or choose .ply."
        )
    fixed = np.round(seen.means * 2**bits).astype("<i4").reshape(-1, 1)
    parts = (
        struct.pack("<IIIBBBB", _SPZ_MAGIC, _SPZ_VERSION, len(seen.means), 0, bits, 0, 0),
        # The lowest three bytes of each.
        fixed.view(np.uint8).reshape(-1, 4)[:, :3].tobytes(),
        _byte(255 * seen.opacities),
        _byte(255 * ((seen.colors - 0.5) / C0 * _SPZ_COLOR + 0.5)),
        _byte(16 * (np.log(np.maximum(seen.scales, _SMALLEST)) + 10)),
        _smallest_three(seen.quaternions),
    )
    return gzip.compress(b"".join(parts), mtime=0)


def _byte(values: np.ndarray) -> bytes:
    return np.clip(np.round(values), 0, 255).astype(np.uint8).tobytes()


def _smallest_three(quaternions: np.ndarray) -> bytes:
    """Unit quaternions (G, 4) w, x, y, z -> 4 bytes each: in x, y, z, w the index of the largest component in two bits,
    then sign and 9 bits of each other one, divided by its largest possible value √½.
    """
    xyzw = quaternions[:, (1, 2, 3, 0)]
    largest = np.abs(xyzw).argmax(1)
    xyzw = np.where(np.take_along_axis(xyzw, largest[:, None], 1) < 0, -xyzw, xyzw)
    packed = largest.astype("<u4")
    for index in range(4):
        size = np.minimum(np.round(511 * np.abs(xyzw[:, index]) * 2**0.5), 511).astype("<u4")
        field = (xyzw[:, index] < 0).astype("<u4") << 9 | size
        packed = np.where(index == largest, packed, packed << 10 | field).astype("<u4")
    return packed.tobytes()


def _glb(seen: Gaussians) -> bytes:
    if not len(seen.means):
        # glTF has no accessor without elements.
        return _glb_container({"asset": _GLTF_ASSET, "scene": 0, "scenes": [{}]}, b"")
    prefix = "KHR_gaussian_splatting:"
    linear = np.where(seen.colors <= 0.04045, seen.colors / 12.92, ((seen.colors.clip(0.0) + 0.055) / 1.055) ** 2.4)
    attributes = {
        "POSITION": seen.means,
        "COLOR_0": np.column_stack((linear, seen.opacities)).clip(0.0, 1.0),
        f"{prefix}ROTATION": seen.quaternions[:, (1, 2, 3, 0)],
        f"{prefix}SCALE": seen.scales,
        f"{prefix}OPACITY": seen.opacities.clip(0.0, 1.0)[:, None],
        f"{prefix}SH_DEGREE_0_COEF_0": (seen.colors - 0.5) / C0,
    }
    accessors: list[dict[str, Any]] = []
    views: list[dict[str, Any]] = []
    binary = b""
    for name, values in attributes.items():
        values = np.ascontiguousarray(values, "<f4")
        kind = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[values.shape[1]]
        accessors.append({"bufferView": len(views), "componentType": 5126, "count": len(values), "type": kind})
        if name == "POSITION":
            accessors[-1] |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": values.nbytes, "target": 34962})
        binary += values.tobytes()
    splatting = {
        "kernel": "ellipse",
        "colorSpace": "srgb_rec709_display",
        "sortingMethod": "cameraDistance",
        "projection": "perspective",
    }
    primitive = {
        "mode": 0,
        "attributes": {name: index for index, name in enumerate(attributes)},
        "extensions": {"KHR_gaussian_splatting": splatting},
    }
    scene = {
        "asset": _GLTF_ASSET,
        "extensionsUsed": ["KHR_gaussian_splatting"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "avatar"}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return _glb_container(scene, binary)


_GLTF_ASSET: Final = {"version": "2.0", "generator": "Effigy"}


def _glb_container(scene: dict[str, Any], binary: bytes) -> bytes:
    """The binary glTF file of a JSON scene and its one buffer."""
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


FORMATS: Final[Mapping[str, Callable[[Gaussians], bytes]]] = {".ply": _ply, ".spz": _spz, ".glb": _glb}
"""Suffix of a file -> what encodes it."""
