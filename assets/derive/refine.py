"""Mesh refinement where MakeHuman's skin is coarse: long edges of scalp and neck are halved.

MakeHuman's vertices are dense on the face, but 16 mm apart on the scalp, too coarse for the Gaussians that represent
hair. New vertices are fixed linear combinations of old ones, so one matrix transfers all data of the base mesh
(targets, sampled heads, expressions, weights).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

WING = 1 / 16
"""Dyn, Levin and Gregory's butterfly scheme (1990): a new vertex is the edge's midpoint, displaced by the
curvature of the four adjacent triangles, so that the silhouette becomes rounder."""


@dataclass(frozen=True)
class Refinement:
    matrix: csr_array
    """(N', N): new vertices from old; the old ones come first and are unchanged."""
    faces: np.ndarray
    """(F', 3)"""
    uv: np.ndarray
    uv_faces: np.ndarray
    halved: np.ndarray
    """(N' - N, 2): the end vertices of the edge that each new vertex halves."""


def halve_edges(
    vertices: np.ndarray, faces: np.ndarray, uv: np.ndarray, uv_faces: np.ndarray, long: np.ndarray
) -> Refinement:
    """Put a vertex on every edge of `long` (E, 2) and split each triangle accordingly; the mesh stays free of gaps."""
    count = len(vertices)
    opposite: dict[tuple[int, int], list[int]] = {}
    for triangle in faces.tolist():
        for k in range(3):
            opposite.setdefault(_edge(triangle[k], triangle[k - 2]), []).append(triangle[k - 1])
    middle = {_edge(*pair): count + i for i, pair in enumerate(long.tolist())}
    rows, columns, values = list(range(count)), list(range(count)), [1.0] * count
    for edge, index in middle.items():
        for vertex, weight in _butterfly(edge, opposite).items():
            rows.append(index)
            columns.append(vertex)
            values.append(weight)
    matrix = coo_array((values, (rows, columns)), (count + len(middle), count)).tocsr()

    placed = matrix @ vertices

    new_uv, uv_middle = list(uv), {}
    new_faces, new_uv_faces = [], []
    for corners, uv_corners in zip(faces.tolist(), uv_faces.tolist(), strict=True):
        mids = [middle.get(_edge(corners[k], corners[k - 2])) for k in range(3)]
        uv_mids: list[int | None] = [None] * 3
        for k in range(3):
            if mids[k] is not None:
                pair = _edge(uv_corners[k], uv_corners[k - 2])
                if pair not in uv_middle:
                    uv_middle[pair] = len(new_uv)
                    new_uv.append((uv[pair[0]] + uv[pair[1]]) / 2)
                uv_mids[k] = uv_middle[pair]
        other_diagonal = _other_diagonal(corners, mids, placed)
        new_faces += _split(corners, mids, other_diagonal)
        new_uv_faces += _split(uv_corners, uv_mids, other_diagonal)
    return Refinement(matrix, np.array(new_faces), np.array(new_uv), np.array(new_uv_faces), np.array(list(middle)))


def _edge(one: int, two: int) -> tuple[int, int]:
    return (one, two) if one < two else (two, one)


def _butterfly(edge: tuple[int, int], opposite: dict[tuple[int, int], list[int]]) -> dict[int, float]:
    weights = dict.fromkeys(edge, 0.5)
    wings = []
    for tip in opposite[edge]:
        for end in edge:
            across = [vertex for vertex in opposite[_edge(end, tip)] if vertex not in edge]
            wings.append((tip, across))
    if len(opposite[edge]) == 2 and all(across for _, across in wings):
        for tip, (far, *_) in wings:
            weights[tip] = weights.get(tip, 0) + WING
            weights[far] = weights.get(far, 0) - WING
    return weights


def _rotate_corners(corners: list[int], mids: list[int | None]) -> tuple[list[int], list[Any]]:
    """The triangle with its corners rotated so that its edge 0-1 carries a vertex, and 1-2 too if two edges do."""
    marked = [k for k in range(3) if mids[k] is not None]
    first = 2 if marked == [0, 2] else marked[0]
    return [corners[(first + k) % 3] for k in range(3)], [mids[(first + k) % 3] for k in range(3)]


def _other_diagonal(corners: list[int], mids: list[int | None], placed: np.ndarray) -> bool:
    """Whether a triangle with two halved edges leaves a quad whose shorter diagonal starts at its third corner."""
    if sum(mid is not None for mid in mids) != 2:
        return False
    (a, _, c), (ab, bc, _) = _rotate_corners(corners, mids)
    return bool(np.linalg.norm(placed[c] - placed[ab]) < np.linalg.norm(placed[a] - placed[bc]) - 1e-7)


def _split(corners: list[int], mids: list[int | None], other_diagonal: bool) -> list[list[int]]:
    """The triangles that replace one whose edges (k, k + 1) carry the new vertices `mids`; for vertices as for uv."""
    count = sum(mid is not None for mid in mids)
    if count == 0:
        return [corners]
    (a, b, c), (ab, bc, ca) = _rotate_corners(corners, mids)
    if count == 1:
        return [[a, ab, c], [ab, b, c]]
    if count == 2:
        return [[ab, b, bc], *([[a, ab, c], [ab, bc, c]] if other_diagonal else [[a, ab, bc], [a, bc, c]])]
    return [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
