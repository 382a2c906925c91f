"""Topology of triangle meshes: edges, connected parts, values that are smooth along edges, and the open edge at the
neck.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve


def mesh_edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undirected edges (M, 2) of triangles (F, 3), each once with the smaller index first, in ascending order,
    and the number of triangles (M,) at each: 1 on an open boundary, 2 inside.
    """
    edges = np.concatenate((faces[:, (0, 1)], faces[:, (1, 2)], faces[:, (2, 0)])).astype(np.int64)
    return np.unique(np.sort(edges, 1), axis=0, return_counts=True)


def connected_parts(edges: np.ndarray, vertex_count: int) -> np.ndarray:
    """(N,) int: which connected part each vertex belongs to. A vertex without edges is a part of its own."""
    graph = coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(vertex_count, vertex_count))
    return connected_components(graph, directed=False)[1]


def smooth_values(
    edges: np.ndarray, edge_weights: np.ndarray, weights: np.ndarray, weighted_values: np.ndarray
) -> np.ndarray:
    """The x, (N,) or (N, C), that minimises the sum of w (x - v)^2 over vertices and of u (x_i - x_j)^2 over edges.

    `edges` (M, 2) have the weights u (M,), the vertices w (N,); `weighted_values` are w v, of the shape of x.
    """
    ends = np.r_[edges[:, 0], edges[:, 1]], np.r_[edges[:, 1], edges[:, 0]]
    adjacency = coo_matrix((np.r_[edge_weights, edge_weights], ends), (len(weights), len(weights)))
    system = diags(weights + np.asarray(adjacency.sum(1)).ravel()) - adjacency
    return np.asarray(spsolve(system.tocsc(), weighted_values))


def neck_ring(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Sorted vertices of the lowest open edge, the cut through the neck; on a closed mesh, its lowest vertex."""
    edges, counts = mesh_edges(faces)
    open_edges = edges[counts == 1]
    if len(open_edges) == 0:
        return np.array([vertices[:, 1].argmin()], np.int32)
    members = np.unique(open_edges)
    loops = connected_parts(open_edges, len(vertices))[members]
    heights = {loop: vertices[members[loops == loop], 1].mean() for loop in np.unique(loops)}
    return members[loops == min(heights, key=heights.__getitem__)].astype(np.int32)
