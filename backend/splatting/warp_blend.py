"""Tiles, front-to-back blending and its backward pass on NVIDIA Warp.

The copies of Gaussians, one for each tile that they touch, are sorted by (image, tile, depth). One thread blends one
pixel. Constants and formulas are those of `reference`.
"""

from __future__ import annotations

# The annotations of kernels are read by Warp, not by a type checker.
# pyright: reportInvalidTypeForm=false
import math
from typing import Final

from . import reference
from .warp_project import TILE_SIZE
from .warp_setup import wp

wp.set_module_options({"enable_backward": False, "fast_math": False})

TILE = wp.constant(TILE_SIZE)
THREADS_PER_TILE: Final = TILE_SIZE * TILE_SIZE
"""One for each pixel; also the number of threads in a block of a GPU, so that a block has one list of Gaussians."""
AREA = wp.constant(THREADS_PER_TILE)
ALPHA_MAX = wp.constant(reference.ALPHA_MAX)
TRANSMITTANCE_MIN = wp.constant(reference.TRANSMITTANCE_MIN)
LOG_ALPHA_MIN = wp.constant(math.log(reference.ALPHA_MIN))

SUMS: Final = 10
"""Numbers that the backward pass of blending returns for each Gaussian. With s the derivative by the exponent |W d|² at
a pixel and (u, v) = W d, d = mean - pixel: Σs, Σsu, Σsv, Σsuu, Σsuv, Σsvv, then the derivatives by red, green, blue and
depth."""


@wp.kernel
def list_copies(
    table: wp.array2d[wp.vec4f],
    boxes: wp.array[wp.vec4i],
    touched: wp.array[int],
    ends: wp.array[wp.int64],
    count: int,
    columns: int,
    tiles: int,
    keys: wp.array[wp.int64],
    ids: wp.array[int],
):
    """One thread for each Gaussian: write a key and the Gaussian's index for each tile that it touches.

    `ends` is the running sum of `touched`. The bits of a positive float order as its value does, so that the lower half
    of a key is the depth; the upper half is the number of the tile, of `tiles` in each image.
    """
    n = wp.tid()
    if touched[n] > 0:
        box = boxes[n]
        at = int(ends[n]) - touched[n]
        depth = wp.int64(wp.cast(table[n, 1][2], wp.uint32))
        for row in range(box[2], box[3]):
            for column in range(box[0], box[1]):
                keys[at] = (wp.int64(n // count * tiles + row * columns + column) << wp.int64(32)) | depth
                ids[at] = n
                at += 1


@wp.kernel
def find_tiles(keys: wp.array[wp.int64], copies: int, start: wp.array[int], end: wp.array[int]):
    """One thread for each copy: note where each tile's copies start and end among the sorted keys."""
    i = wp.tid()
    tile = int(keys[i] >> wp.int64(32))
    if i == 0:
        start[tile] = 0
    else:
        before = int(keys[i - 1] >> wp.int64(32))
        if before != tile:
            start[tile] = i
            end[before] = i
    if i == copies - 1:
        end[tile] = copies


@wp.func
def falloff(row0: wp.vec4f, row1: wp.vec4f, x: float, y: float):
    """(u, v, log of alpha before it is clamped) of a Gaussian at a pixel."""
    dx, dy = row0[0] - x, row0[1] - y
    u = row0[2] * dx + row0[3] * dy
    v = row1[0] * dy
    return wp.vec3f(u, v, row1[1] - u * u - v * v)


@wp.kernel
def blend(
    table: wp.array2d[wp.vec4f],
    ids: wp.array[int],
    start: wp.array[int],
    end: wp.array[int],
    columns: int,
    tiles: int,
    width: int,
    height: int,
    color: wp.array[wp.vec3f],
    alpha: wp.array[float],
    depth: wp.array[float],
    stops: wp.array[int],
):
    """One thread for each pixel of each tile: blend the tile's Gaussians front to back (Kerbl et al. 2023, equation 3).

    `stops` gets the position in `ids` of the first Gaussian that is no longer blended.
    """
    thread = wp.tid()
    tile = thread // AREA
    lane = thread % AREA
    column = (tile % tiles) % columns * TILE + lane % TILE
    row = (tile % tiles) // columns * TILE + lane // TILE
    if column < width and row < height:
        x, y = float(column) + 0.5, float(row) + 0.5
        transmittance = float(1.0)
        blended = wp.vec3f(0.0, 0.0, 0.0)
        distance = float(0.0)
        stop = end[tile]
        for k in range(start[tile], end[tile]):
            n = ids[k]
            row1 = table[n, 1]
            f = falloff(table[n, 0], row1, x, y)
            if f[2] >= LOG_ALPHA_MIN:
                weight = transmittance * wp.min(wp.exp(f[2]), ALPHA_MAX)
                after = transmittance - weight
                if after <= TRANSMITTANCE_MIN:
                    stop = k
                    break
                row2 = table[n, 2]
                transmittance = after
                blended += weight * wp.vec3f(row1[3], row2[0], row2[1])
                distance += weight * row1[2]
        pixel = (tile // tiles * height + row) * width + column
        color[pixel] = blended
        alpha[pixel] = 1.0 - transmittance
        depth[pixel] = distance
        stops[pixel] = stop


# On a GPU the 32 threads of a hardware warp add their parts of a sum in registers before one of them adds to memory. On
# a CPU each thread is a group of its own.


@wp.func_native("""
#if defined(__CUDA_ARCH__)
    for (int offset = 16; offset > 0; offset >>= 1) x += __shfl_xor_sync(0xffffffffu, x, offset);
#endif
    return x;
""")
def group_sum(x: float) -> float: ...


@wp.func_native("""
#if defined(__CUDA_ARCH__)
    for (int offset = 16; offset > 0; offset >>= 1) x = max(x, __shfl_xor_sync(0xffffffffu, x, offset));
#endif
    return x;
""")
def group_max(x: int) -> int: ...


@wp.func_native("""
#if defined(__CUDA_ARCH__)
    return __any_sync(0xffffffffu, condition) != 0;
#else
    return condition;
#endif
""")
def group_any(condition: wp.bool) -> wp.bool: ...


@wp.func_native("""
#if defined(__CUDA_ARCH__)
    return (threadIdx.x & 31) == 0;
#else
    return true;
#endif
""")
def is_first_of_group() -> wp.bool: ...


@wp.kernel
def blend_backward(
    table: wp.array2d[wp.vec4f],
    ids: wp.array[int],
    start: wp.array[int],
    columns: int,
    tiles: int,
    width: int,
    height: int,
    color: wp.array[wp.vec3f],
    alpha: wp.array[float],
    depth: wp.array[float],
    stops: wp.array[int],
    by_color: wp.array[wp.vec3f],
    by_alpha: wp.array[float],
    by_depth: wp.array[float],
    sums: wp.array2d[float],
):
    """One thread for each pixel of each tile: blend again, and add each Gaussian's `SUMS` numbers to its row of `sums`.

    All threads of a group run the same loop to its end, because they add up their parts inside it.
    """
    thread = wp.tid()
    tile = thread // AREA
    lane = thread % AREA
    column = (tile % tiles) % columns * TILE + lane % TILE
    row = (tile % tiles) // columns * TILE + lane // TILE
    x, y = float(column) + 0.5, float(row) + 0.5
    g = wp.vec3f(0.0, 0.0, 0.0)
    g_depth = float(0.0)
    # What the Gaussians behind the current one contribute to the loss, including the background through alpha.
    behind = float(0.0)
    stop = int(0)
    if column < width and row < height:
        pixel = (tile // tiles * height + row) * width + column
        g = by_color[pixel]
        g_depth = by_depth[pixel]
        behind = wp.dot(g, color[pixel]) + g_depth * depth[pixel] - by_alpha[pixel] * (1.0 - alpha[pixel])
        stop = stops[pixel]
    transmittance = float(1.0)
    for k in range(start[tile], group_max(stop)):
        n = ids[k]
        row0, row1, row2 = table[n, 0], table[n, 1], table[n, 2]
        f = falloff(row0, row1, x, y)
        contributes = k < stop and f[2] >= LOG_ALPHA_MIN
        if group_any(contributes):
            s = float(0.0)
            weight = float(0.0)
            if contributes:
                unclamped = wp.exp(f[2])
                a = wp.min(unclamped, ALPHA_MAX)
                weight = transmittance * a
                transmittance -= weight
                value = wp.dot(g, wp.vec3f(row1[3], row2[0], row2[1])) + g_depth * row1[2]
                behind -= weight * value
                # A clamped alpha has no derivative by opacity and shape.
                if unclamped <= ALPHA_MAX:
                    s = a * behind / (1.0 - a) - weight * value
            u, v = f[0], f[1]
            s0, su, sv = group_sum(s), group_sum(s * u), group_sum(s * v)
            suu, suv, svv = group_sum(s * u * u), group_sum(s * u * v), group_sum(s * v * v)
            red, green, blue = group_sum(weight * g[0]), group_sum(weight * g[1]), group_sum(weight * g[2])
            far = group_sum(weight * g_depth)
            if is_first_of_group():
                wp.atomic_add(sums, n, 0, s0)
                wp.atomic_add(sums, n, 1, su)
                wp.atomic_add(sums, n, 2, sv)
                wp.atomic_add(sums, n, 3, suu)
                wp.atomic_add(sums, n, 4, suv)
                wp.atomic_add(sums, n, 5, svv)
                wp.atomic_add(sums, n, 6, red)
                wp.atomic_add(sums, n, 7, green)
                wp.atomic_add(sums, n, 8, blue)
                wp.atomic_add(sums, n, 9, far)
