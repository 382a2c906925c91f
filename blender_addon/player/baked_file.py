"""Reads an avatar's baked model from its `.effigy` file (`backend.avatar.baked`), by json and numpy alone.

The file may be a stranger's: every size is checked against the others and against a bound before anything is computed,
and every number is finite.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from ..avatar_header import NOUN, REMEDY, is_avatar
from ..errors import EffigyError
from ..file_kinds import sentence_of_kind
from ..reading import check_file, reading, unlike
from .filmed_regions import FilmedRegions
from .surface_turns import SurfaceTurns

SCHEMA: Final = 1
MOST_VERTICES: Final = 200_000
"""FLAME's head has 5,023."""
MOST_GAUSSIANS: Final = 2_000_000
MOST_NUMBERS: Final = 64 << 20
"""In all tensors that are read. An avatar has under a million."""
MOST_SIZE: Final = 1 << 16
"""Pixels of a side of the training images."""
MOST_LAYERS: Final = 8
"""Of the mixing network."""
MOST_SPAWNED: Final = 16
"""Gaussians of an anchor, beside its own."""
BUST: Final = "baked.bust_means"
"""The tensor that every avatar with a bust has."""
MOST_BUST: Final = 100_000
"""Gaussians of a bust, as in `backend.avatar.bust`."""
MOST_ENHANCED: Final = 256
"""Channels of an enhancer; both as in `backend.avatar.settings`."""
MOST_MAGNITUDE: Final = 1e6
"""Of a number that has no reason to be infinite."""
MOST_NEIGHBOURS: Final = 64
"""Of a vertex that turns with the mesh around it."""
MOST_REGIONS: Final = 8
MOST_FACES: Final = 128
NOT_STORED: Final = 1e5
"""Of the filmed faces of regions, as in `backend.avatar.filmed_regions`."""
LEAST_AXIS: Final = 1e-6
"""Of the ellipsoid of filmed faces, as in `backend.avatar.filmed`."""
_DTYPES: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I32": "<i4"}
_GEOMETRY: Final = 10
_SPAWNED: Final = 11
"""Numbers of an anchor's geometry and of a spawned Gaussian (`backend.avatar.blendshapes`)."""


@dataclass(frozen=True)
class Layer:
    """A linear layer of the mixing network."""

    weight: np.ndarray
    """(outputs, inputs)"""
    bias: np.ndarray
    """(outputs,)"""


@dataclass(frozen=True)
class BakedBust:
    """Collar and shoulders: M Gaussians at rest, head space, metres (`backend.avatar.bust`)."""

    means: np.ndarray
    """(M, 3)"""
    scales: np.ndarray
    """(M, 3)"""
    quaternions: np.ndarray
    """(M, 4)"""
    opacities: np.ndarray
    """(M,)"""
    colors: np.ndarray
    """(M, 3)"""
    weights: np.ndarray
    """(M, 3) of root, neck and torso."""


@dataclass(frozen=True)
class BakedAvatar:
    """An avatar of Gaussian blendshapes; float32, head space, metres. N anchors, E expressions, F features, K shapes,
    k spawned Gaussians per anchor, O = 10 + 1 + 3 (degree + 1)² + 11 k attributes.
    """

    head_name: str
    head_fingerprint: str
    identity: np.ndarray
    """(S,) identity coefficients of the person."""
    size: int
    """Side of the training images, pixels."""
    sh_degree: int
    spawned: int
    """k"""
    distilled: bool
    """Whether it was baked from networks, which it resembles. Otherwise it is what was trained."""
    has_enhancer: bool
    """Whether the avatar was trained with an enhancer of its images, which only the backend has."""
    vertices: np.ndarray
    """(3, N) of the person at rest."""
    joints: np.ndarray
    """(5, 3) of the person at rest."""
    skinning: np.ndarray
    """(5, N)"""
    jaw: np.ndarray
    """(E, 3) axis-angle by which a coefficient of 1 rotates the jaw; such an expression moves no vertices."""
    base_scale: np.ndarray
    """(N,)"""
    features: np.ndarray
    """(F, N)"""
    mean: np.ndarray
    """(O, N)"""
    shapes: np.ndarray
    """(K, O, F)"""
    positions: np.ndarray
    """(k, 3, N) of the spawned Gaussians, in units of the anchors' scales."""
    mix: tuple[Layer, ...]
    """From E + 12 conditions to K weights, with ELU between the layers."""
    views: np.ndarray
    """(2, 2) smallest and largest yaw, smallest and largest pitch, radians."""
    performed: np.ndarray
    """(2, E + 9) lower and upper limits of expression, jaw and eyes; may be infinite."""
    filmed: np.ndarray
    """(E + 11, E + 9) centre, semi-axes and their directions of the ellipsoid of filmed faces; the axes may be
    infinite."""
    weight_limits: np.ndarray
    """(2, K) smallest and largest weights of the shapes; may be infinite."""
    materials: np.ndarray
    """(4, N) colour of an anchor on the rig, and how far it takes it where the mouth shows what the clip did not."""
    reveals: np.ndarray
    """(E + 9,) which numbers of a face, beyond their limits, show that."""
    regions: FilmedRegions | None = None
    """None in files of earlier versions, whose faces are kept near the ellipsoid `filmed`."""
    turns: SurfaceTurns | None = None
    """None in files of earlier versions, whose lips turn with the joints alone."""
    bust: BakedBust | None = None

    @property
    def gaussians(self) -> int:
        return len(self.base_scale) * (1 + self.spawned) + (0 if self.bust is None else len(self.bust.means))


class _Misfit(Exception):
    """The file's content is impossible; the message says why."""


def read_baked(path: Path) -> BakedAvatar | None:
    """The baked model in an avatar's file; None if it has none, or one of a newer kind.

    Raises an `EffigyError` for a file that cannot be read, is no avatar or is damaged.
    """
    check_file(path, NOUN, REMEDY)
    with reading(path, NOUN, REMEDY), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not is_avatar(file, size):
            raise unlike(path, NOUN, REMEDY)
        try:
            return _read(file)
        except (_Misfit, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if (other := sentence_of_kind(path, NOUN)) is not None:
                raise EffigyError(other) from error
            reason = str(error) if isinstance(error, _Misfit) else "its baked model cannot be read"
            raise EffigyError(f"The {NOUN} {path} is damaged ({reason}): {REMEDY}.") from error


def _read(file: BinaryIO) -> BakedAvatar | None:
    """From an open file that `is_avatar`."""
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    tensors = json.loads(file.read(length).decode("utf-8"))
    header = json.loads(tensors.pop("__metadata__")["effigy"])
    if not _is_readable(header):
        return None
    settings, numbers = header["settings"], _Tensors(file, 8 + length, tensors)
    degree, k = _whole(settings["sh_degree"], 0, 3), _whole(settings["neural_per_anchor"], 0, MOST_SPAWNED)
    outputs = _GEOMETRY + 1 + 3 * (degree + 1) ** 2 + _SPAWNED * k
    jaw = numbers.read("baked.jaw", (None, 3))
    expressions = len(jaw)
    base_scale = numbers.read("baked.base_scale", (None,))
    n = len(base_scale)
    if not (0 < n <= MOST_VERTICES and n * (1 + k) <= MOST_GAUSSIANS):
        raise _Misfit("it has too many Gaussians, or none")
    shapes = numbers.read("networks.blendshapes.shapes", (None, None, outputs))
    vertices = _planar(numbers.read("baked.vertices", (n, 3)))
    mix = numbers.layers("networks.blendshapes.mix.")
    sizes = [expressions + 12, *(len(layer.bias) for layer in mix)]
    if [layer.weight.shape[1] for layer in mix] != sizes[:-1] or sizes[-1] != len(shapes):
        raise _Misfit("its mixing network does not fit its shapes")
    return BakedAvatar(
        head_name=str(header["head_name"]),
        head_fingerprint=str(header["head_fingerprint"]),
        identity=numbers.read("identity", (None,)),
        size=_whole(settings["size"], 1, MOST_SIZE),
        sh_degree=degree,
        spawned=k,
        distilled="baked_psnr" in _mapping(header.get("metrics")),
        has_enhancer=_whole(settings.get("enhancer_width", 0), 0, MOST_ENHANCED) > 0,
        vertices=vertices,
        joints=numbers.read("baked.joints", (5, 3)),
        skinning=_planar(numbers.read("baked.skinning", (n, 5))),
        jaw=jaw,
        base_scale=base_scale,
        features=_planar(numbers.read("baked.features", (n, shapes.shape[1]))),
        mean=_planar(numbers.read("networks.blendshapes.mean", (n, outputs))),
        shapes=np.ascontiguousarray(shapes.transpose(0, 2, 1)),
        positions=np.ascontiguousarray(numbers.read("networks.blendshapes.positions", (n, k, 3)).transpose(1, 2, 0)),
        mix=mix,
        views=numbers.read("networks.views", (2, 2)),
        performed=numbers.read("networks.performed", (2, expressions + 9), finite=False),
        filmed=_filmed(numbers, expressions + 9),
        weight_limits=numbers.read(
            "networks.blendshapes.weight_limits", (2, len(shapes)), False, _unlimited(len(shapes))
        ),
        materials=_planar(numbers.read("networks.blendshapes.materials", (n, 4), default=np.zeros((n, 4)))),
        reveals=numbers.read("networks.blendshapes.reveals", (expressions + 9,), default=np.zeros(expressions + 9)),
        regions=_regions(numbers, n, expressions + 9),
        turns=_turns(numbers, vertices),
        bust=_bust(numbers),
    )


def _regions(numbers: _Tensors, vertices: int, size: int) -> FilmedRegions | None:
    """None where they were not stored."""
    prefix = "networks.blendshapes.regions."
    if not numbers.has(prefix + "reach"):
        return None
    reach = numbers.read(prefix + "reach", (None, 2))
    if not (len(reach) <= MOST_REGIONS and (reach[:, 0] > 0).all() and (reach[:, 1] > reach[:, 0]).all()):
        raise _Misfit("its filmed faces cannot be read")
    if (reach[:, 0] >= NOT_STORED).all():
        return None
    return FilmedRegions(
        shares=_planar(numbers.read(prefix + "shares", (vertices, len(reach)))),
        emphasis=numbers.read(prefix + "emphasis", (len(reach), size)),
        faces=numbers.read(prefix + "faces", (MOST_FACES, size)),
        reach=reach,
    )


def _turns(numbers: _Tensors, rest: np.ndarray) -> SurfaceTurns | None:
    """None where they were not stored. `rest` (3, N)."""
    if not numbers.has("baked.turning"):
        return None
    rows = numbers.read("baked.turning", (None, None))
    count = rest.shape[1]
    if not (
        0 < len(rows) <= count
        and 1 < rows.shape[1] <= 1 + MOST_NEIGHBOURS
        and ((rows >= 0) & (rows < count) & (rows % 1 == 0)).all()
        and len(np.unique(rows[:, 0])) == len(rows)
    ):
        raise _Misfit("the vertices that turn with its mesh cannot be read")
    chosen = rows.astype(np.int64)
    return SurfaceTurns(chosen[:, 0], np.ascontiguousarray(chosen[:, 1:].T), rest)


def _bust(numbers: _Tensors) -> BakedBust | None:
    if not numbers.has(BUST):
        return None
    means = numbers.read(BUST, (None, 3))
    if not 0 < len(means) <= MOST_BUST:
        raise _Misfit("its bust has too many Gaussians, or none")
    sizes = {"scales": (3,), "quaternions": (4,), "opacities": (), "colors": (3,), "weights": (3,)}
    rest = {name: numbers.read(f"baked.bust_{name}", (len(means), *size)) for name, size in sizes.items()}
    return BakedBust(means, **rest)


def _filmed(numbers: _Tensors, size: int) -> np.ndarray:
    """(size + 2, size) of `BakedAvatar.filmed`."""
    all_faces = np.concatenate((np.zeros((1, size)), np.full((1, size), np.inf), np.eye(size)))
    filmed = numbers.read("networks.filmed", all_faces.shape, False, all_faces)
    if not (filmed[1] > LEAST_AXIS).all() or not np.isfinite(np.delete(filmed, 1, 0)).all():
        raise _Misfit("its filmed faces cannot be read")
    return filmed


def _unlimited(size: int) -> np.ndarray:
    return np.stack((np.full(size, -np.inf), np.full(size, np.inf)))


def _is_readable(header: Mapping[str, Any]) -> bool:
    """Whether an avatar's own header promises a baked model that this version reads."""
    baked = header.get("baked")
    return isinstance(baked, dict) and isinstance(baked.get("schema"), int) and 1 <= baked["schema"] <= SCHEMA


class _Tensors:
    """The tensors of an open safetensors file whose header was checked by `is_avatar`."""

    def __init__(self, file: BinaryIO, start: int, entries: Mapping[str, Any]) -> None:
        self._file, self._start, self._entries = file, start, entries
        self._room = MOST_NUMBERS

    def has(self, name: str) -> bool:
        return name in self._entries

    def read(
        self, name: str, shape: tuple[int | None, ...], finite: bool = True, default: np.ndarray | None = None
    ) -> np.ndarray:
        """A tensor as float32. `shape`: None for a side of any length. `default`: of a tensor that files of earlier
        versions lack. Raises `_Misfit`.
        """
        entry = self._entries.get(name)
        if entry is None:
            if default is not None:
                return default.astype(np.float32)
            raise _Misfit(f"it lacks {name}")
        found = tuple(entry["shape"])
        if entry["dtype"] not in _DTYPES or len(found) != len(shape):
            raise _Misfit(f"{name} is of another kind")
        if any(want not in (None, side) for want, side in zip(shape, found, strict=True)):
            raise _Misfit(f"{name} has another size than the rest")
        begin, end = entry["data_offsets"]
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        self._room -= (end - begin) // dtype.itemsize
        if self._room < 0:
            raise _Misfit("it holds more numbers than any avatar")
        self._file.seek(self._start + begin)
        data = self._file.read(end - begin)
        if len(data) != end - begin:
            raise _Misfit("it is cut short")
        with np.errstate(over="ignore"):
            values = np.frombuffer(data, dtype).reshape(found).astype(np.float32)
        if np.isnan(values).any() or (finite and not np.isfinite(values).all()):
            raise _Misfit(f"{name} holds numbers that are not finite")
        if finite and values.size and np.abs(values).max() > MOST_MAGNITUDE:
            raise _Misfit(f"{name} holds numbers that no head has")
        return values

    def layers(self, prefix: str) -> tuple[Layer, ...]:
        """The linear layers `prefix`0, `prefix`2 … in the order of their numbers."""
        numbers = sorted(
            int(number)
            for name in self._entries
            if name.startswith(prefix)
            and name.endswith(".weight")
            and (number := name[len(prefix) : -len(".weight")]).isdecimal()
        )
        if not 1 <= len(numbers) <= MOST_LAYERS:
            raise _Misfit("it lacks its mixing network")
        weights = [self.read(f"{prefix}{number}.weight", (None, None)) for number in numbers]
        return tuple(
            Layer(weight, self.read(f"{prefix}{number}.bias", (len(weight),)))
            for number, weight in zip(numbers, weights, strict=True)
        )


def _whole(value: object, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _Misfit("its settings cannot be read")
    return value


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _planar(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values.T)
