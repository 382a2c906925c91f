"""The mesh of a head as a graph for networks: Laplacians on three levels, and sampling operators between the levels.

The Laplacian is the normalised one, rescaled to [-1, 1] for Chebyshev polynomials (Defferrard et al. 2016, eq. 2-4):
L~ = 2 L / lambda_max - I with L = I - D^-1/2 A D^-1/2. Since lambda_max <= 2 for every graph, lambda_max = 2 is taken
as is usual, and L~ = -D^-1/2 A D^-1/2. Levels are 1, 1/4 and 1/32 of the vertices (FLAME: 5023, 1256, 157), as in
GraphAvatar.
"""

from __future__ import annotations

import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix
from torch import nn

from ..array_files import read_arrays
from ..errors import EffigyError
from ..reading import reading
from ..storage import write_beside
from ..user_cache import user_cache
from .decimation import decimate, project
from .model import HeadModel
from .sparse import SparseOperator, sample
from .topology import mesh_edges

__all__ = ["POOLING", "MeshHierarchy", "cache_folder", "mesh_hierarchy", "rescaled_laplacian", "sample"]

POOLING = (4, 8)
_CACHE_SCHEMA = 1
_MOST_CACHE = 64 * 2**20
"""Bytes; the cache of FLAME's mesh has 300 kB."""


@dataclass(frozen=True)
class Levels:
    """The result of decimation, as it is stored in the cache."""

    vertices: tuple[np.ndarray, ...]
    """Per level, the sorted indices of its vertices in the finest mesh."""
    faces: tuple[np.ndarray, ...]
    """Per level, triangles as indices of the level's own vertices."""
    ups: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Per step between levels, three coarse vertices and their weights for each vertex of the finer level."""


class MeshHierarchy(nn.Module):
    """Three levels of one mesh, fine to coarse; a module, so that it moves between devices with its network."""

    sizes: tuple[int, ...]
    """Vertices on each level."""
    laplacians: nn.ModuleList
    """`SparseOperator` L~ of each level, symmetric."""
    downs: nn.ModuleList
    """`downs[i]` samples level i to level i + 1 by selecting vertices."""
    ups: nn.ModuleList
    """`ups[i]` samples level i + 1 to level i barycentrically."""

    def __init__(self, levels: Levels) -> None:
        super().__init__()
        self.vertices = levels.vertices
        self.faces = levels.faces
        self.sizes = tuple(len(vertices) for vertices in levels.vertices)
        edges = [mesh_edges(faces)[0] for faces in levels.faces]
        self.register_buffer("edges", torch.from_numpy(edges[0]), persistent=False)
        self.laplacians = nn.ModuleList(
            SparseOperator(rescaled_laplacian(level, size)) for level, size in zip(edges, self.sizes, strict=True)
        )
        downs, ups = [], []
        for level, (indices, weights) in enumerate(levels.ups):
            fine, coarse = self.sizes[level], self.sizes[level + 1]
            kept = np.searchsorted(levels.vertices[level], levels.vertices[level + 1])
            downs.append(SparseOperator(coo_matrix((np.ones(coarse), (np.arange(coarse), kept)), shape=(coarse, fine))))
            rows = np.repeat(np.arange(fine), 3)
            ups.append(SparseOperator(coo_matrix((weights.ravel(), (rows, indices.ravel())), shape=(fine, coarse))))
        self.downs, self.ups = nn.ModuleList(downs), nn.ModuleList(ups)


def mesh_hierarchy(model: HeadModel) -> MeshHierarchy:
    """The hierarchy of a head model's mesh, computed once per model and then read from the user's cache."""
    path = cache_folder() / "mesh" / f"{model.fingerprint}.v{_CACHE_SCHEMA}.npz"
    # Missing or damaged, it is computed again and overwritten.
    with suppress(EffigyError), reading(path, "cache", "delete it"):
        hierarchy = MeshHierarchy(_read(path))
        if hierarchy.sizes[0] == len(model.template):
            return hierarchy
    levels = build_levels(model.template, model.faces)
    # Without a writable cache the hierarchy is computed again next time, which takes a second.
    with suppress(EffigyError):
        _write(levels, path)
    return MeshHierarchy(levels)


def build_levels(template: np.ndarray, faces: np.ndarray) -> Levels:
    """Decimate a mesh (N, 3), (F, 3) by the factors of `POOLING`, each step starting from the mesh before it."""
    all_vertices, all_faces, ups = [np.arange(len(template))], [np.asarray(faces, np.int32)], []
    for factor in POOLING:
        points = template[all_vertices[-1]]
        kept, coarse_faces, merged = decimate(points, all_faces[-1], math.ceil(len(points) / factor))
        ups.append(project(points, kept, coarse_faces, merged))
        all_vertices.append(all_vertices[-1][kept])
        all_faces.append(coarse_faces)
    return Levels(tuple(all_vertices), tuple(all_faces), tuple(ups))


def rescaled_laplacian(edges: np.ndarray, vertex_count: int) -> csr_matrix:
    """L~ = -D^-1/2 A D^-1/2 (N, N) of undirected edges (M, 2); a vertex without edges has an empty row."""
    both = np.concatenate((edges, edges[:, ::-1]))
    degree = np.bincount(both[:, 0], minlength=vertex_count)
    root = 1 / np.sqrt(np.maximum(degree, 1))
    values = -root[both[:, 0]] * root[both[:, 1]]
    return csr_matrix((values, (both[:, 0], both[:, 1])), shape=(vertex_count, vertex_count), dtype=np.float32)


def cache_folder() -> Path:
    """Effigy's folder of recomputable files; the environment variable EFFIGY_CACHE overrides it."""
    if override := os.environ.get("EFFIGY_CACHE"):
        return Path(override)
    return user_cache() / "Cache" if sys.platform == "win32" else user_cache()


def _read(path: Path) -> Levels:
    arrays = read_arrays(path, "cache", "delete it", _MOST_CACHE)
    count = len(POOLING)
    return Levels(
        tuple(arrays[f"vertices_{level}"] for level in range(count + 1)),
        tuple(arrays[f"faces_{level}"] for level in range(count + 1)),
        tuple((arrays[f"up_indices_{step}"], arrays[f"up_weights_{step}"]) for step in range(count)),
    )


def _write(levels: Levels, path: Path) -> None:
    arrays: dict[str, Any] = {f"vertices_{level}": value for level, value in enumerate(levels.vertices)}
    arrays |= {f"faces_{level}": value for level, value in enumerate(levels.faces)}
    for step, (indices, weights) in enumerate(levels.ups):
        arrays |= {f"up_indices_{step}": indices, f"up_weights_{step}": weights}
    with write_beside(path, durable=False) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
