"""Mesh rasterisation on NVIDIA Warp: one source, compiled for CUDA devices and, for the tests, for the CPU.

Conventions, formulas and rounding are those of `mesh.py`, in float64 as there. Triangles are drawn in parallel, so the
z-buffer is updated by an atomic maximum of 64-bit keys: the upper half holds the bits of the float32 inverse depth,
which are ordered as the numbers are because these are positive; the lower half counts the triangles backwards, so that
of two triangles at equal depth the first one is kept, as in `mesh.py`.
"""

from __future__ import annotations

# The annotations of kernels are read by Warp, not by a type checker.
# pyright: reportInvalidTypeForm=false
import torch

from .warp_setup import launching, wp

wp.set_module_options({"enable_backward": False, "fast_math": False})

_NEAR = wp.constant(wp.float64(1e-3))
"""`mesh.NEAR`, metres."""
_ROUNDING = wp.constant(wp.float64(1e-7))
"""`mesh._ROUNDING`, pixels."""
_LAST_FACE = wp.constant(wp.int64(0x7FFFFFFF))
_ZERO = wp.constant(wp.float64(0.0))
_HALF = wp.constant(wp.float64(0.5))

CUDA_LANES = 8
"""Threads that share the rows of one triangle on a GPU, so that none waits long for a triangle that fills the image."""


@wp.kernel
def project(
    vertices: wp.array2d[wp.vec3d],
    intrinsics: wp.array[wp.mat33d],
    pixels: wp.array2d[wp.vec2d],
):
    """Pixels of all vertices; undefined for vertices nearer than the limit."""
    image, i = wp.tid()
    point = vertices[image, i]
    if point[2] > _NEAR:
        lens = intrinsics[image]
        x = point[0] / point[2]
        y = point[1] / point[2]
        pixels[image, i] = wp.vec2d(lens[0, 0] * x + lens[0, 1] * y + lens[0, 2], lens[1, 1] * y + lens[1, 2])


@wp.func
def edge(a: wp.vec2d, b: wp.vec2d, x: wp.float64, y: wp.float64):
    """Twice the signed area of the triangle a, b, (x, y)."""
    return (a[0] - x) * (b[1] - y) - (a[1] - y) * (b[0] - x)


@wp.func
def first_pixel(least: wp.float64, size: int):
    """The first pixel whose centre is not before `least`; clamped as a float, so that no integer overflows."""
    return int(wp.min(wp.max(wp.ceil(least - _HALF), _ZERO), wp.float64(size)))


@wp.func
def last_pixel(greatest: wp.float64, size: int):
    """The last pixel whose centre is not beyond `greatest`."""
    return int(wp.max(wp.min(wp.floor(greatest - _HALF), wp.float64(size - 1)), wp.float64(-1.0)))


@wp.kernel
def cover(
    vertices: wp.array2d[wp.vec3d],
    pixels: wp.array2d[wp.vec2d],
    faces: wp.array[wp.vec3i],
    front_only: bool,
    lanes: int,
    width: int,
    height: int,
    nearest: wp.array3d[wp.int64],
):
    """Every thread draws each `lanes`-th row of one triangle into the keys `nearest`; see `mesh._nearest`."""
    image, f, lane = wp.tid()
    face = faces[f]
    za, zb, zc = vertices[image, face[0]][2], vertices[image, face[1]][2], vertices[image, face[2]][2]
    if not (za > _NEAR and zb > _NEAR and zc > _NEAR):
        return
    a, b, c = pixels[image, face[0]], pixels[image, face[1]], pixels[image, face[2]]
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    if not (area < _ZERO or (area > _ZERO and not front_only)):
        return
    left = first_pixel(wp.min(wp.min(a[0], b[0]), c[0]), width)
    right = last_pixel(wp.max(wp.max(a[0], b[0]), c[0]), width)
    top = first_pixel(wp.min(wp.min(a[1], b[1]), c[1]), height)
    bottom = last_pixel(wp.max(wp.max(a[1], b[1]), c[1]), height)
    one = wp.float64(1.0)
    ia, ib, ic = one / (area * za), one / (area * zb), one / (area * zc)
    change = wp.vec3d((b[1] - c[1]) * ia, (c[1] - a[1]) * ib, (a[1] - b[1]) * ic)
    px = wp.float64(left) + _HALF
    for y in range(top + lane, bottom + 1, lanes):
        py = wp.float64(y) + _HALF
        weight = wp.vec3d(edge(b, c, px, py) * ia, edge(c, a, px, py) * ib, edge(a, b, px, py) * ic)
        first = _ZERO
        last = wp.float64(right - left)
        for k in range(3):
            if change[k] > _ZERO:
                first = wp.max(first, -weight[k] / change[k])
            elif change[k] < _ZERO:
                last = wp.min(last, -weight[k] / change[k])
            elif weight[k] < _ZERO:
                last = -one
        first = first - _ROUNDING
        last = last + _ROUNDING
        if first <= last:
            inverse = weight[0] + weight[1] + weight[2]
            slope = change[0] + change[1] + change[2]
            for k in range(int(wp.ceil(first)), int(wp.floor(last)) + 1):
                here = wp.float32(inverse + wp.float64(k) * slope)
                if here > wp.float32(0.0):
                    key = (wp.int64(wp.cast(here, wp.uint32)) << wp.int64(32)) + (_LAST_FACE - wp.int64(f))
                    wp.atomic_max(nearest, image, y, left + k, key)


@wp.kernel
def resolve(
    vertices: wp.array2d[wp.vec3d],
    pixels: wp.array2d[wp.vec2d],
    faces: wp.array[wp.vec3i],
    nearest: wp.array3d[wp.int64],
    face_index: wp.array3d[wp.int32],
    barycentric: wp.array3d[wp.vec3f],
    depth: wp.array3d[wp.float32],
):
    """Triangle, perspective-correct coordinates and depth of every pixel from its key; see `mesh._landing`."""
    image, y, x = wp.tid()
    key = nearest[image, y, x]
    if key == wp.int64(0):
        face_index[image, y, x] = -1
        depth[image, y, x] = wp.inf
        return
    f = int(_LAST_FACE - (key & _LAST_FACE))
    face = faces[f]
    a, b, c = pixels[image, face[0]], pixels[image, face[1]], pixels[image, face[2]]
    px, py = wp.float64(x) + _HALF, wp.float64(y) + _HALF
    weight = wp.vec3d(
        edge(b, c, px, py) / vertices[image, face[0]][2],
        edge(c, a, px, py) / vertices[image, face[1]][2],
        edge(a, b, px, py) / vertices[image, face[2]][2],
    )
    weight = weight / (weight[0] + weight[1] + weight[2])
    face_index[image, y, x] = f
    barycentric[image, y, x] = wp.vec3f(weight)
    depth[image, y, x] = wp.float32(1.0) / wp.cast(wp.uint32(key >> wp.int64(32)), wp.float32)


def rasterize_meshes_warp(
    vertices: torch.Tensor, faces: torch.Tensor, intrinsics: torch.Tensor, width: int, height: int, front_only: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Face indices (B, H, W), barycentric coordinates (B, H, W, 3) and depths (B, H, W) of `vertices` (B, V, 3)
    float64, `faces` (F, 3) int32 and `intrinsics` (B, 3, 3) float64, all contiguous and on one device.
    """
    images, count = vertices.shape[:2]
    device, lanes = vertices.device, CUDA_LANES if vertices.is_cuda else 1
    pixels = torch.empty(images, count, 2, dtype=torch.float64, device=device)
    nearest = torch.zeros(images, height, width, dtype=torch.int64, device=device)
    face_index = torch.empty(images, height, width, dtype=torch.int32, device=device)
    barycentric = torch.zeros(images, height, width, 3, device=device)
    depth = torch.empty(images, height, width, device=device)
    with launching(device) as on:
        corners = wp.from_torch(vertices, dtype=wp.vec3d)
        lenses, spots = wp.from_torch(intrinsics, dtype=wp.mat33d), wp.from_torch(pixels, dtype=wp.vec2d)
        triangles, keys = wp.from_torch(faces, dtype=wp.vec3i), wp.from_torch(nearest)
        rasters = [wp.from_torch(face_index), wp.from_torch(barycentric, dtype=wp.vec3f), wp.from_torch(depth)]
        wp.launch(project, (images, count), [corners, lenses], [spots], device=on)
        sizes = [front_only, lanes, width, height]
        wp.launch(cover, (images, len(faces), lanes), [corners, spots, triangles, *sizes], [keys], device=on)
        wp.launch(resolve, (images, height, width), [corners, spots, triangles, keys], rasters, device=on)
    return face_index, barycentric, depth
