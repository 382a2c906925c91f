"""Mesh decimation for pooling: quadric-error edge collapse, and the barycentric coordinates of fine vertices on the
coarse mesh.

Pooling as in CoMA (Ranjan et al. 2018, section 3.2), with the error measure of Garland and Heckbert 1997. Only vertices
of the fine mesh are kept, so down-sampling is a selection; in up-sampling, each fine vertex is the barycentric mean of
the nearest coarse triangle. A head mesh has several connected parts (skin, eyeballs, teeth): each part keeps some
vertices, and no vertex is interpolated from another part.

A trained avatar works only with the hierarchy on which it was trained, and its file does not contain the hierarchy. The
same mesh must therefore give the same vertices on every machine. Every number here comes from single additions,
multiplications, divisions and square roots, which IEEE 754 rounds identically everywhere, in a fixed order, without
BLAS or long sums; ties are resolved by vertex number. A change of the result requires a new schema of the avatar file
(a test checks the result).
"""

from __future__ import annotations

import heapq

import numpy as np

from .closest_point import closest_barycentric
from .topology import connected_parts, mesh_edges

_PART_FLOOR = 4
"""Vertices that each connected part keeps at least: a tetrahedron."""
_BOUNDARY_WEIGHT = 10.0
"""Weight of an open edge (neck, eye sockets) relative to the surface."""
_EVENNESS = 1e-2
"""Weight of a vertex's displacement relative to its distance from the surface. On flat skin, where every collapse has
zero surface error, it keeps the remaining vertices evenly spread. It adds 0.1 mm of mean distance at 1/4 of the
vertices, and nothing at 1/32."""


def decimate(vertices: np.ndarray, faces: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collapse edges of a mesh (N, 3), (F, 3) until `target` vertices remain.

    Returns the kept vertices (sorted indices, M), the coarse triangles (G, 3) as indices of coarse vertices, and for
    each fine vertex the coarse vertex into which it was merged (N,). More than `target` vertices remain only if the
    minimum number of vertices per part requires it.
    """
    collapse = _Collapse(vertices, faces)
    # First keep the surface a manifold without flipped triangles; give this up only if the target requires it.
    for strict in (True, False):
        collapse.run(target, strict)
    return collapse.result()


class _Collapse:
    """The mesh during decimation, as plain Python lists and sets, since every step changes a few numbers only."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.points: list[tuple[float, float, float]] = [tuple(point) for point in vertices.astype(np.float64).tolist()]
        self.triangles: list[list[int]] = [list(face) for face in faces.tolist()]
        """Corners of each triangle; empty once the triangle has gone."""
        self.around: list[set[int]] = [set() for _ in self.points]
        for index, triangle in enumerate(faces.tolist()):
            for vertex in triangle:
                self.around[vertex].add(index)
        self.quadrics = _quadrics(vertices.astype(np.float64), faces).tolist()
        self.merged = list(range(len(self.points)))
        self.version = [0] * len(self.points)
        self.remaining = len(self.points)
        self.part = connected_parts(mesh_edges(faces)[0], len(self.points)).tolist()
        self.part_size = np.bincount(self.part).tolist()
        self.heap: list[tuple[float, int, int, int, int]] = []

    def run(self, target: int, strict: bool) -> None:
        self.heap = []
        for vertex in range(len(self.points)):
            for other in self._neighbours(vertex):
                if vertex < other:
                    self._push(vertex, other)
        while self.remaining > target and self.heap:
            _, gone, kept, gone_version, kept_version = heapq.heappop(self.heap)
            if self.version[gone] != gone_version or self.version[kept] != kept_version:
                continue
            if self.part_size[self.part[gone]] <= _PART_FLOOR or (strict and not self._harmless(gone, kept)):
                continue
            self._merge(gone, kept)

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        merged = np.array(self.merged)
        while (merged[merged] != merged).any():
            merged = merged[merged]
        kept = np.unique(merged)
        number = np.full(len(merged), -1)
        number[kept] = np.arange(len(kept))
        triangles = np.array([triangle for triangle in self.triangles if triangle], np.int64).reshape(-1, 3)
        return kept, number[triangles].astype(np.int32), number[merged]

    def _neighbours(self, vertex: int) -> set[int]:
        found = {corner for triangle in self.around[vertex] for corner in self.triangles[triangle]}
        found.discard(vertex)
        return found

    def _push(self, a: int, b: int) -> None:
        quadric = [x + y for x, y in zip(self.quadrics[a], self.quadrics[b], strict=True)]
        at_a, at_b = _error(quadric, self.points[a]), _error(quadric, self.points[b])
        gone, kept, cost = (b, a, at_a) if at_a < at_b else (a, b, at_b)
        heapq.heappush(self.heap, (cost, gone, kept, self.version[gone], self.version[kept]))

    def _harmless(self, gone: int, kept: int) -> bool:
        """Whether the link condition holds (only corners of shared triangles neighbour both) and no triangle is
        flipped.
        """
        shared = self.around[gone] & self.around[kept]
        opposite = {corner for triangle in shared for corner in self.triangles[triangle]} - {gone, kept}
        if self._neighbours(gone) & self._neighbours(kept) != opposite:
            return False
        for triangle in self.around[gone] - shared:
            corners = self.triangles[triangle]
            before = _normal(*(self.points[corner] for corner in corners))
            after = _normal(*(self.points[kept if corner == gone else corner] for corner in corners))
            if sum(x * y for x, y in zip(before, after, strict=True)) <= 0:
                return False
        return True

    def _merge(self, gone: int, kept: int) -> None:
        for triangle in list(self.around[gone]):
            corners = self.triangles[triangle]
            if kept in corners:
                for corner in corners:
                    self.around[corner].discard(triangle)
                self.triangles[triangle] = []
            else:
                corners[corners.index(gone)] = kept
                self.around[kept].add(triangle)
        self.around[gone] = set()
        self.quadrics[kept] = [x + y for x, y in zip(self.quadrics[gone], self.quadrics[kept], strict=True)]
        self.merged[gone] = kept
        self.version[gone] += 1
        self.version[kept] += 1
        self.remaining -= 1
        self.part_size[self.part[gone]] -= 1
        for other in self._neighbours(kept):
            self._push(kept, other)


def _error(q: list[float], point: tuple[float, float, float]) -> float:
    x, y, z = point
    return (
        q[0] * x * x
        + q[4] * y * y
        + q[7] * z * z
        + 2 * (q[1] * x * y + q[2] * x * z + q[5] * y * z)
        + 2 * (q[3] * x + q[6] * y + q[8] * z)
        + q[9]
    )


def _normal(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> tuple[float, float, float]:
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


def _quadrics(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N, 10): the upper triangle of each vertex's symmetric 4 x 4 error quadric (Garland and Heckbert, section 5)."""
    total = np.zeros((len(vertices), 10))
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1) / 2
    normal /= np.maximum(2 * area, 1e-20)[:, None]
    surface = _plane_quadrics(normal, corners[:, 0], area / 3)
    vertex_area = np.zeros(len(vertices))
    for corner in range(3):
        np.add.at(total, faces[:, corner], surface)
        np.add.at(vertex_area, faces[:, corner], area / 3)

    edges, counts = mesh_edges(faces)
    open_edges = edges[counts == 1]
    if len(open_edges):
        # A plane through each open edge, perpendicular to its triangle, keeps the edge in position.
        vertex_normal = np.zeros_like(vertices)
        for corner in range(3):
            np.add.at(vertex_normal, faces[:, corner], normal * area[:, None])
        start, end = vertices[open_edges[:, 0]], vertices[open_edges[:, 1]]
        upright = np.cross(end - start, vertex_normal[open_edges].sum(1))
        upright /= np.maximum(np.linalg.norm(upright, axis=1, keepdims=True), 1e-20)
        weight = _BOUNDARY_WEIGHT * ((end - start) ** 2).sum(1)
        fence = _plane_quadrics(upright, start, weight)
        for corner in range(2):
            np.add.at(total, open_edges[:, corner], fence)

    weight = _EVENNESS * vertex_area
    for axis, diagonal in enumerate((0, 4, 7)):
        total[:, diagonal] += weight
        total[:, (3, 6, 8)[axis]] -= weight * vertices[:, axis]
    total[:, 9] += weight * (vertices**2).sum(1)
    return total


def _plane_quadrics(normal: np.ndarray, point: np.ndarray, weight: np.ndarray) -> np.ndarray:
    plane = np.concatenate((normal, -(normal * point).sum(1, keepdims=True)), 1)
    rows, columns = np.triu_indices(4)
    return weight[:, None] * plane[:, rows] * plane[:, columns]


def project(
    vertices: np.ndarray, kept: np.ndarray, coarse_faces: np.ndarray, merged: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each fine vertex lies on the coarse mesh: coarse vertices (N, 3) and barycentric weights (N, 3).

    Looked for only among the triangles near the coarse vertex that the fine one was merged into, so that an upper lip
    is never interpolated from the lower one though they touch. Without such triangles it takes that vertex as it is.
    """
    coarse = vertices[kept].astype(np.float64)
    # Triangles incident to a coarse vertex or to one of its neighbours, as pairs (vertex, triangle).
    near: list[set[int]] = [set() for _ in kept]
    for index, triangle in enumerate(coarse_faces.tolist()):
        for corner in triangle:
            near[corner].add(index)
    wide = [set().union(*(near[corner] for triangle in own for corner in coarse_faces[triangle])) for own in near]
    candidates = [np.fromiter(wide[vertex], np.int64, len(wide[vertex])) for vertex in range(len(kept))]
    counts = np.array([len(candidates[vertex]) for vertex in merged])
    fine = np.repeat(np.arange(len(vertices)), counts)
    triangles = np.concatenate([candidates[vertex] for vertex in merged])

    indices = np.repeat(merged[:, None], 3, 1)
    weights = np.tile((1.0, 0.0, 0.0), (len(vertices), 1))
    if len(fine):
        corners = coarse[coarse_faces[triangles]]
        barycentric = closest_barycentric(vertices[fine].astype(np.float64), corners)
        distance = ((vertices[fine] - (barycentric[..., None] * corners).sum(1)) ** 2).sum(1)
        order = np.lexsort((triangles, distance, fine))
        found, first = np.unique(fine[order], return_index=True)
        best = order[first]
        indices[found] = coarse_faces[triangles[best]]
        weights[found] = barycentric[best]
    indices[kept], weights[kept] = np.arange(len(kept))[:, None], (1.0, 0.0, 0.0)
    return indices, weights
