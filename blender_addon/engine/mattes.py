"""The passes that tell what covers a pixel: Cryptomatte by object, material and asset, and the indices.

A Gaussian belongs to the vertex of the mesh that carries it, and so to the vertex's material. An artist cuts skin from
hair by giving faces of the mesh another material.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import bpy
import numpy as np

from ..viewport.mesh_visibility import MATERIAL_PROPERTY
from . import cryptomatte

CRYPTOMATTES: Final = {
    "CryptoObject": ("use_pass_cryptomatte_object", "object"),
    "CryptoMaterial": ("use_pass_cryptomatte_material", "material"),
    "CryptoAsset": ("use_pass_cryptomatte_asset", "asset"),
}
"""By the beginning of the passes' names: the setting of a view layer, and the field of a `Part`."""
INDICES: Final = {
    "IndexOB": ("use_pass_object_index", "object_index"),
    "IndexMA": ("use_pass_material_index", "material_index"),
}
SETTINGS: Final = tuple(setting for setting, _ in (*CRYPTOMATTES.values(), *INDICES.values()))
NONE: Final = "None"
"""The name of a material that is not there, as in Cycles."""


@dataclass(frozen=True)
class Part:
    """What belongs to one object and one of its materials."""

    object: str
    asset: str
    material: str
    object_index: int
    material_index: int


class Parts:
    """The parts of all avatars in an image, in the order in which they were first seen."""

    def __init__(self) -> None:
        self._parts: dict[Part, int] = {}

    def labels(self, mesh: bpy.types.Object) -> np.ndarray:
        """(N,) the number of the part to which each vertex of a rig's mesh belongs."""
        top = mesh
        while top.parent is not None:
            top = top.parent
        numbers = []
        for material in _materials(mesh):
            name, index = (NONE, 0) if material is None else (material.name, material.pass_index)
            part = Part(mesh.name, top.name, name, mesh.pass_index, index)
            numbers.append(self._parts.setdefault(part, len(self._parts)))
        return np.array(numbers, np.int64)[np.minimum(_slots(mesh.data), len(numbers) - 1)]

    def __len__(self) -> int:
        return len(self._parts)

    def passes(self, layer: bpy.types.ViewLayer, shares: np.ndarray) -> dict[str, np.ndarray]:
        """The passes that a layer asks for, (H, W, C) each, by name. `shares` (H, W, M) of the parts."""
        parts, made = list(self._parts), {}
        shares = np.moveaxis(shares, -1, 0)
        for kind, (setting, field) in CRYPTOMATTES.items():
            if getattr(layer, setting):
                names = [getattr(part, field) for part in parts]
                ranks = cryptomatte.ranked(names, shares, layer.pass_cryptomatte_depth)
                made |= {f"{kind}{number:02d}": rank for number, rank in enumerate(ranks)}
        for name, (setting, field) in INDICES.items():
            if getattr(layer, setting):
                made[name] = _largest([getattr(part, field) for part in parts], shares)
        return made

    def metadata(self, layer: bpy.types.ViewLayer) -> dict[str, str]:
        found: dict[str, str] = {}
        for kind, (setting, field) in CRYPTOMATTES.items():
            if getattr(layer, setting):
                names = dict.fromkeys(getattr(part, field) for part in self._parts)
                found |= cryptomatte.metadata(layer.name, kind, names)
        return found


def asked_for(layer: bpy.types.ViewLayer) -> bool:
    return any(getattr(layer, setting) for setting in SETTINGS)


def add_passes(layer: bpy.types.ViewLayer, add: Callable[[str, int, str, str], None]) -> None:
    """Calls `add` with name, number of channels, their names and type of each pass that a layer asks for."""
    for kind, (setting, _) in CRYPTOMATTES.items():
        if getattr(layer, setting):
            for number in range((layer.pass_cryptomatte_depth + 1) // 2):
                add(f"{kind}{number:02d}", 4, "RGBA", "COLOR")
    for name, (setting, _) in INDICES.items():
        if getattr(layer, setting):
            add(name, 1, "X", "VALUE")


def _materials(mesh: bpy.types.Object) -> Sequence[bpy.types.Material | None]:
    """The materials of a mesh's slots; of a slot that the viewport has made transparent, what is below."""
    found = []
    for slot, own in zip(mesh.material_slots, mesh.data.materials, strict=False):
        ours = slot.link == "OBJECT" and slot.material is not None and slot.material.get(MATERIAL_PROPERTY)
        found.append(own if ours else slot.material)
    return found or [None]


def _slots(mesh: bpy.types.Mesh) -> np.ndarray:
    """(N,) the material slot of most faces around each vertex."""
    slots = np.zeros(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("material_index", slots)
    corners, starts = np.zeros(len(mesh.loops), np.int32), np.zeros(len(mesh.polygons), np.int32)
    mesh.loops.foreach_get("vertex_index", corners)
    mesh.polygons.foreach_get("loop_total", starts)
    votes = np.zeros((len(mesh.vertices), int(slots.max(initial=0)) + 1), np.int32)
    np.add.at(votes, (corners, np.repeat(slots, starts)), 1)
    return votes.argmax(1)


def _largest(indices: list[int], shares: np.ndarray) -> np.ndarray:
    """(H, W, 1): the index that covers most of each pixel; 0 where less is covered than not."""
    unique = list(dict.fromkeys((0, *indices)))
    summed = np.zeros((len(unique), *shares.shape[1:]), np.float32)
    summed[0] = np.maximum(1 - shares.sum(0), 0)
    for index, share in zip(indices, shares, strict=True):
        summed[unique.index(index)] += share
    return np.array(unique, np.float32)[summed.argmax(0)][..., None]
