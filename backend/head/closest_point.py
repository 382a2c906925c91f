"""The closest points on triangles (Ericson 2005, section 5.1.5: the projection if it is inside, else the best edge)."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree


def closest_barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(P, 3): barycentric coordinates of the point on each triangle `corners` (P, 3, 3) that is closest to a point (P,
    3).
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]

    def on_edge(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        along = end - start
        length = np.maximum((along * along).sum(1), 1e-30)
        return np.clip(((points - start) * along).sum(1) / length, 0, 1)

    ab, bc, ca = on_edge(a, b), on_edge(b, c), on_edge(c, a)
    zero = np.zeros(len(points))
    options = [np.stack((1 - ab, ab, zero), 1), np.stack((zero, 1 - bc, bc), 1), np.stack((ca, zero, 1 - ca), 1)]
    u, v, w = b - a, c - a, points - a
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    determinant = uu * vv - uv * uv
    safe = np.where(determinant > 1e-30, determinant, 1)
    second, third = (vv * wu - uv * wv) / safe, (uu * wv - uv * wu) / safe
    options.append(np.stack((1 - second - third, second, third), 1))
    inside = (second >= 0) & (third >= 0) & (second + third <= 1) & (determinant > 1e-30)

    distances = np.stack([((points - (option[..., None] * corners).sum(1)) ** 2).sum(1) for option in options])
    distances[3] = np.where(inside, distances[3], np.inf)
    return np.stack(options)[distances.argmin(0), np.arange(len(points))]


def closest_on_mesh(points: np.ndarray, triangles: np.ndarray, candidates: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """For each point (P, 3) the index of the closest triangle (T, 3, 3), and barycentric coordinates (P, 3) float32 in
    it.

    Only the `candidates` triangles with the nearest centroids are compared, which is enough where neighbouring
    triangles are of similar size.
    """
    count = min(candidates, len(triangles))
    near = KDTree(triangles.mean(1)).query(points, count)[1].reshape(len(points), count)
    corners = triangles[near]
    coordinates = closest_barycentric(np.repeat(points, count, 0), corners.reshape(-1, 3, 3)).reshape(*near.shape, 3)
    closest = (coordinates[..., None] * corners).sum(2)
    best = np.linalg.norm(closest - points[:, None], axis=-1).argmin(1)
    row = np.arange(len(points))
    return near[row, best], coordinates[row, best].astype(np.float32)
