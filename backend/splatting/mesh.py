"""Mesh rasterisation with a z-buffer, in numba, on one core and without the interpreter's lock.

A mesh raster stores, for every pixel centre, the nearest triangle and the barycentric coordinates of the point that the
pixel sees. Everything else (colour, normals, region masks, landmark positions, mattes) is an interpolation of vertex
values by the two:

    values = (attribute[faces[raster.face_index]] * raster.barycentric[..., None]).sum(-2)

`rasterize_mesh` draws one image of NumPy arrays. Batches of tensors, on a GPU too, are drawn by
`mesh_batch.rasterize_meshes`, which has the same conventions and, on a CPU, these kernels.

Conventions are the project's: camera space with OpenCV axes, metres; pixels with the centre of the top-left one at
(0.5, 0.5). There is no anti-aliasing: a caller that needs it rasterises a larger image and averages it down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import EffigyError
from .jit import kernel

NEAR = 1e-3
"""Metres. Triangles with a vertex nearer than this are skipped; heads never come that close to a lens."""
_ROUNDING = 1e-7
"""Pixels"""


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

    `vertices_camera` (V, 3) in the camera's space, `faces` (F, 3), `intrinsics` (3, 3) in pixels of the image.
    """
    raster = MeshRaster(
        np.empty((height, width), np.int32),
        np.empty((height, width, 3), np.float32),
        np.empty((height, width), np.float32),
    )
    draw_into(raster, *_checked(vertices_camera, faces, intrinsics), False)
    return raster


def draw_into(
    raster: MeshRaster, vertices_camera: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray, front_only: bool
) -> None:
    """Fill the contiguous arrays of `raster` as `rasterize_mesh` does.

    The inputs are contiguous float64, int32 and float64 arrays that have been checked. `front_only` is that of
    `nearest_faces`.
    """
    _nearest(vertices_camera, faces, intrinsics, front_only, raster.face_index, raster.depth)
    _landing(vertices_camera, faces, intrinsics, raster.face_index, raster.barycentric, raster.depth)


def nearest_faces(
    vertices_camera: np.ndarray,
    faces: np.ndarray,
    intrinsics: np.ndarray,
    width: int,
    height: int,
    front_only: bool = False,
) -> np.ndarray:
    """(H, W) int32: the `face_index` of `rasterize_mesh` without the other results; -1 where there is no triangle.

    `front_only` skips triangles whose corners are clockwise in the image. If a mesh's triangles are counter-clockwise
    seen from outside, the skipped ones are those whose inner side faces the camera.
    """
    face_index, inverse_depth = np.empty((height, width), np.int32), np.empty((height, width), np.float32)
    _nearest(*_checked(vertices_camera, faces, intrinsics), front_only, face_index, inverse_depth)
    return face_index


def _checked(
    vertices_camera: np.ndarray, faces: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    vertices_camera = np.ascontiguousarray(vertices_camera, np.float64)
    faces = np.ascontiguousarray(faces, np.int32)
    intrinsics = np.ascontiguousarray(intrinsics, np.float64)
    if vertices_camera.ndim != 2 or vertices_camera.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise EffigyError(
            f"A mesh needs vertices (V, 3) and triangles (F, 3), not {vertices_camera.shape} and {faces.shape}."
        )
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices_camera)):
        raise EffigyError(f"A triangle names a vertex that the mesh of {len(vertices_camera)} vertices does not have.")
    return vertices_camera, faces, intrinsics


def interpolate(raster: MeshRaster, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Vertex `values` (V, C) interpolated at each pixel: (H, W, C) float32, zeros where there is no triangle."""
    values = np.asarray(values, np.float32)
    interpolated = np.zeros((*raster.face_index.shape, values.shape[1]), np.float32)
    covered = raster.covered
    corners, weights = np.asarray(faces)[raster.face_index[covered]], raster.barycentric[covered]
    interpolated[covered] = sum(values[corners[:, k]] * weights[:, k, None] for k in range(3))
    return interpolated


@kernel()
def _on_screen(vertices, intrinsics):
    """(V, 2) pixels; undefined for vertices nearer than NEAR."""
    pixels = np.empty((len(vertices), 2))
    for i in range(len(vertices)):
        z = vertices[i, 2]
        if z > NEAR:
            x = vertices[i, 0] / z
            y = vertices[i, 1] / z
            pixels[i, 0] = intrinsics[0, 0] * x + intrinsics[0, 1] * y + intrinsics[0, 2]
            pixels[i, 1] = intrinsics[1, 1] * y + intrinsics[1, 2]
    return pixels


@kernel()
def _nearest(vertices, faces, intrinsics, front_only, face_index, inverse_depth):
    """Fill face_index (H, W) int32 and inverse depth (H, W) float32, which is zero where there is no triangle."""
    height, width = face_index.shape
    face_index[:] = -1
    inverse_depth[:] = 0.0
    pixels = _on_screen(vertices, intrinsics)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = vertices[a, 2], vertices[b, 2], vertices[c, 2]
        if not (za > NEAR and zb > NEAR and zc > NEAR):
            continue
        ax, ay, bx, by, cx, cy = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1], pixels[c, 0], pixels[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        # Image rows count downwards, so a triangle that is counter-clockwise in the image has a negative area.
        # Written so that NaN is skipped as well.
        if not (area < 0.0 or (area > 0.0 and not front_only)):
            continue
        # Clamped as floats first: a vertex far outside the image must not overflow an integer.
        left = int(min(max(np.ceil(min(ax, bx, cx) - 0.5), 0.0), float(width)))
        right = int(max(min(np.floor(max(ax, bx, cx) - 0.5), width - 1.0), -1.0))
        top = int(min(max(np.ceil(min(ay, by, cy) - 0.5), 0.0), float(height)))
        bottom = int(max(min(np.floor(max(ay, by, cy) - 0.5), height - 1.0), -1.0))
        if left > right or top > bottom:
            continue
        # Image-space barycentric coordinates divided by depth are linear in the image; their sum is the inverse depth
        # of the pixel, and dividing by it makes them perspective-correct.
        ia, ib, ic = 1.0 / (area * za), 1.0 / (area * zb), 1.0 / (area * zc)
        # Their change from one pixel to the next, and its inverse.
        da, db, dc = (by - cy) * ia, (cy - ay) * ib, (ay - by) * ic
        pa, pb, pc = (
            (1.0 / da if da != 0.0 else 0.0),
            (1.0 / db if db != 0.0 else 0.0),
            (1.0 / dc if dc != 0.0 else 0.0),
        )
        px = left + 0.5
        for y in range(top, bottom + 1):
            py = y + 0.5
            wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * ia
            wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * ib
            wc = ((ax - px) * (by - py) - (ay - py) * (bx - px)) * ic
            # The interval of pixels, counted from `left`, in which all three are positive. Testing every pixel instead
            # would take twice the time.
            first, last = 0.0, float(right - left)
            for weight, change, pixels_for_one in ((wa, da, pa), (wb, db, pb), (wc, dc, pc)):
                if change > 0.0:
                    first = max(first, -weight * pixels_for_one)
                elif change < 0.0:
                    last = min(last, -weight * pixels_for_one)
                elif weight < 0.0:
                    last = -1.0
            # Enlarged by the rounding error, so that no gap remains between two triangles.
            first, last = first - _ROUNDING, last + _ROUNDING
            if first > last:
                continue
            inverse, change = wa + wb + wc, da + db + dc
            for k in range(int(np.ceil(first)), int(np.floor(last)) + 1):
                here = np.float32(inverse + k * change)
                if here > inverse_depth[y, left + k]:
                    inverse_depth[y, left + k] = here
                    face_index[y, left + k] = f


@kernel()
def _landing(vertices, faces, intrinsics, face_index, barycentric, depth):
    """Fill in the barycentric coordinates (H, W, 3) of each pixel in its triangle, and replace its inverse depth (H, W)
    by its depth.
    """
    height, width = face_index.shape
    pixels = _on_screen(vertices, intrinsics)
    for y in range(height):
        py = y + 0.5
        for x in range(width):
            f = face_index[y, x]
            depth[y, x] = np.float32(1.0) / depth[y, x]
            if f < 0:
                barycentric[y, x] = 0.0
                continue
            px = x + 0.5
            a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
            ax, ay, bx, by, cx, cy = pixels[a, 0], pixels[a, 1], pixels[b, 0], pixels[b, 1], pixels[c, 0], pixels[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / (area * vertices[a, 2])
            wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / (area * vertices[b, 2])
            wc = ((ax - px) * (by - py) - (ay - py) * (bx - px)) / (area * vertices[c, 2])
            inverse = wa + wb + wc
            barycentric[y, x, 0] = wa / inverse
            barycentric[y, x, 1] = wb / inverse
            barycentric[y, x, 2] = wc / inverse
