"""Which triangle each pixel sees: a z-buffer for meshes, in numba, on one core and without the interpreter's lock.

A mesh raster stores, for every pixel centre, the nearest triangle and where in it the pixel's ray lands. Everything
else (colour, normals, region masks, landmark placement, mattes) is an interpolation of vertex values by the two:

    values = (attribute[faces[raster.face_index]] * raster.barycentric[..., None]).sum(-2)

Conventions are the project's: camera space with OpenCV axes, metres; pixels with the centre of the top-left one at
(0.5, 0.5). There is no anti-aliasing: a caller that wants it rasterises larger and averages down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from ..errors import EffigyError

NEAR = 1e-3
"""Metres. A triangle with a vertex nearer than this is left out; heads never come that close to a lens."""


@dataclass(frozen=True)
class MeshRaster:
    face_index: np.ndarray
    """(H, W) int32: index into `faces`; -1 where the pixel sees no triangle."""
    barycentric: np.ndarray
    """(H, W, 3) float32: perspective-correct coordinates in that triangle, summing to one; zeros where there is
    none."""
    depth: np.ndarray
    """(H, W) float32: distance along the camera axis, metres; infinity where there is none."""

    @property
    def covered(self) -> np.ndarray:
        """(H, W) bool."""
        return self.face_index >= 0


def rasterize_mesh(
    vertices_camera: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, width: int, height: int
) -> MeshRaster:
    """The nearest triangle of each pixel; both sides of a triangle are visible.

    `vertices_camera` (V, 3) in the camera's space, `faces` (F, 3), `intrinsics` (3, 3) in pixels of the picture.
    """
    vertices_camera = np.ascontiguousarray(vertices_camera, np.float64)
    faces = np.ascontiguousarray(faces, np.int32)
    intrinsics = np.ascontiguousarray(intrinsics, np.float64)
    if vertices_camera.ndim != 2 or vertices_camera.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise EffigyError(
            f"A mesh needs vertices (V, 3) and triangles (F, 3), not {vertices_camera.shape} and {faces.shape}."
        )
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices_camera)):
        raise EffigyError(f"A triangle names a vertex that the mesh of {len(vertices_camera)} vertices does not have.")
    face_index = np.full((height, width), -1, np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    inverse_depth = np.zeros((height, width), np.float64)
    _fill(vertices_camera, faces, intrinsics, face_index, barycentric, inverse_depth)
    with np.errstate(divide="ignore"):
        depth = np.where(inverse_depth > 0, 1.0 / inverse_depth, np.inf).astype(np.float32)
    return MeshRaster(face_index, barycentric, depth)


def interpolate(raster: MeshRaster, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Vertex `values` (V, C) seen by each pixel: (H, W, C) float32, zeros where there is no triangle."""
    values = np.asarray(values, np.float32)
    seen = np.zeros((*raster.face_index.shape, values.shape[1]), np.float32)
    covered = raster.covered
    corners, weights = np.asarray(faces)[raster.face_index[covered]], raster.barycentric[covered]
    seen[covered] = sum(values[corners[:, k]] * weights[:, k, None] for k in range(3))
    return seen


@numba.njit(nogil=True, cache=True)
def _fill(vertices, faces, intrinsics, face_index, barycentric, inverse_depth):
    height, width = face_index.shape
    pixels = np.empty((len(vertices), 2))
    for i in range(len(vertices)):
        z = vertices[i, 2]
        if z > NEAR:
            x = vertices[i, 0] / z
            y = vertices[i, 1] / z
            pixels[i, 0] = intrinsics[0, 0] * x + intrinsics[0, 1] * y + intrinsics[0, 2]
            pixels[i, 1] = intrinsics[1, 1] * y + intrinsics[1, 2]
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = vertices[a, 2], vertices[b, 2], vertices[c, 2]
        if not (za > NEAR and zb > NEAR and zc > NEAR):
            continue
        ax, ay, bx, by, cx, cy = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1], pixels[c, 0], pixels[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        # Clamped as floats first: a vertex far outside the picture must not overflow an integer.
        left = int(min(max(np.ceil(min(ax, bx, cx) - 0.5), 0.0), float(width)))
        right = int(max(min(np.floor(max(ax, bx, cx) - 0.5), width - 1.0), -1.0))
        top = int(min(max(np.ceil(min(ay, by, cy) - 0.5), 0.0), float(height)))
        bottom = int(max(min(np.floor(max(ay, by, cy) - 0.5), height - 1.0), -1.0))
        # Screen-space barycentrics divided by depth are linear on the screen; their sum is the inverse depth of the
        # pixel, and normalising by it makes them perspective-correct.
        ia, ib, ic = 1.0 / (area * za), 1.0 / (area * zb), 1.0 / (area * zc)
        for y in range(top, bottom + 1):
            py = y + 0.5
            for x in range(left, right + 1):
                px = x + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * ia
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * ib
                wc = ((ax - px) * (by - py) - (ay - py) * (bx - px)) * ic
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                inverse = wa + wb + wc
                if inverse > inverse_depth[y, x]:
                    inverse_depth[y, x] = inverse
                    face_index[y, x] = f
                    barycentric[y, x, 0] = wa / inverse
                    barycentric[y, x, 1] = wb / inverse
                    barycentric[y, x, 2] = wc / inverse
