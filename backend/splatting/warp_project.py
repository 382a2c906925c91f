"""Projection of Gaussians to ellipses in the image (EWA splatting) on NVIDIA Warp, forward and backward.

Formulas and constants are those of `reference`, and the arithmetic is float64, as in `cpu_project`: long thin Gaussians
need the precision, and there are few numbers compared with the pixels.

A projected shape is stored as the upper triangular W with WᵀW = ½ Σ'⁻¹, where Σ' is the image-space covariance.
|W (mean - pixel)|² is then the exponent of the falloff and, unlike the expanded quadratic form, cannot become negative
by rounding.
"""

from __future__ import annotations

# The annotations of kernels are read by Warp, not by a type checker.
# pyright: reportInvalidTypeForm=false
import math
from typing import Final

from . import reference
from .warp_setup import wp

wp.set_module_options({"enable_backward": False, "fast_math": False})

TILE_SIZE: Final = 16
"""Width and height of a tile, pixels."""
TILE = wp.constant(TILE_SIZE)
NEAR = wp.constant(wp.float64(reference.NEAR))
FAR = wp.constant(wp.float64(1e10))
LOW_PASS = wp.constant(wp.float64(reference.LOW_PASS))
MARGIN = wp.constant(wp.float64(reference.MARGIN))
ALPHA_MIN = wp.constant(reference.ALPHA_MIN)
LOG_ALPHA_MIN = wp.constant(wp.float64(math.log(reference.ALPHA_MIN)))
SQRT_HALF = wp.constant(wp.float64(math.sqrt(0.5)))

mat23d = wp.types.matrix(shape=(2, 3), dtype=wp.float64)


@wp.struct
class Projection:
    """What the forward and the backward pass need of a Gaussian, float64."""

    drawn: wp.bool
    center: wp.vec3d
    """In camera space, metres."""
    slope: wp.vec2d
    """x/z and y/z of the centre."""
    clamped: wp.vec2d
    """The slope at which the Jacobian is evaluated."""
    jacobian: mat23d
    rotation: wp.mat33d
    """The camera's rotation times the Gaussian's."""
    root: mat23d
    """P = J · rotation · diag(scale); Σ' = P Pᵀ + low pass."""
    covariance: wp.mat22d
    """Σ', px²."""


@wp.func
def rotation_of(q: wp.vec4d):
    w, x, y, z = q[0], q[1], q[2], q[3]
    one, two = wp.float64(1.0), wp.float64(2.0)
    return wp.mat33d(
        one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y),
        two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x),
        two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y),
    )  # fmt: skip


@wp.func
def length_of(q: wp.vec4f):
    return wp.max(
        wp.length(wp.vec4d(wp.float64(q[0]), wp.float64(q[1]), wp.float64(q[2]), wp.float64(q[3]))), wp.float64(1e-12)
    )


@wp.func
def normalized(q: wp.vec4f):
    return wp.vec4d(wp.float64(q[0]), wp.float64(q[1]), wp.float64(q[2]), wp.float64(q[3])) / length_of(q)


@wp.func
def rotation_part(view: wp.mat44f):
    return wp.mat33d(
        wp.float64(view[0, 0]), wp.float64(view[0, 1]), wp.float64(view[0, 2]),
        wp.float64(view[1, 0]), wp.float64(view[1, 1]), wp.float64(view[1, 2]),
        wp.float64(view[2, 0]), wp.float64(view[2, 1]), wp.float64(view[2, 2]),
    )  # fmt: skip


@wp.func
def vector(v: wp.vec3f):
    return wp.vec3d(wp.float64(v[0]), wp.float64(v[1]), wp.float64(v[2]))


@wp.func
def clamp_slope(slope: wp.float64, focal: wp.float64, center: wp.float64, size: int):
    spread = MARGIN * wp.float64(0.5) * wp.float64(size) / focal
    return wp.min(wp.max(slope, -(center / focal + spread)), (wp.float64(size) - center) / focal + spread)


@wp.func
def project_one(
    mean: wp.vec3f, quaternion: wp.vec4f, scale: wp.vec3f, opacity: float,
    intrinsics: wp.mat33f, view: wp.mat44f, width: int, height: int,
):  # fmt: skip
    p = Projection()
    camera = rotation_part(view)
    p.center = camera * vector(mean) + wp.vec3d(wp.float64(view[0, 3]), wp.float64(view[1, 3]), wp.float64(view[2, 3]))
    z = p.center[2]
    p.drawn = z >= NEAR and z < FAR and opacity >= ALPHA_MIN
    if p.drawn:
        fx, fy = wp.float64(intrinsics[0, 0]), wp.float64(intrinsics[1, 1])
        p.slope = wp.vec2d(p.center[0] / z, p.center[1] / z)
        p.clamped = wp.vec2d(
            clamp_slope(p.slope[0], fx, wp.float64(intrinsics[0, 2]), width),
            clamp_slope(p.slope[1], fy, wp.float64(intrinsics[1, 2]), height),
        )
        zero = wp.float64(0.0)
        p.jacobian = mat23d(fx / z, zero, -fx / z * p.clamped[0], zero, fy / z, -fy / z * p.clamped[1])
        p.rotation = camera * rotation_of(normalized(quaternion))
        p.root = p.jacobian * p.rotation * wp.diag(vector(scale))
        p.covariance = p.root * wp.transpose(p.root) + LOW_PASS * wp.identity(n=2, dtype=wp.float64)
        determinant = wp.determinant(p.covariance)
        p.drawn = determinant > zero and determinant < wp.float64(1e30)
    return p


@wp.func
def whitening(covariance: wp.mat22d):
    """W of a covariance, see the module's docstring."""
    root = wp.sqrt(wp.determinant(covariance))
    high = wp.sqrt(covariance[1, 1])
    return wp.mat22d(
        SQRT_HALF * high / root, -SQRT_HALF * covariance[0, 1] / (root * high), wp.float64(0.0), SQRT_HALF / high
    )


@wp.func
def first_pixel(edge: wp.float64):
    """The first pixel whose centre lies at or behind `edge`, at least 0."""
    return int(wp.ceil(wp.max(edge - wp.float64(0.5), wp.float64(0.0))))


@wp.func
def last_pixel(edge: wp.float64, size: int):
    """The last pixel whose centre lies at or before `edge`, at most `size` - 1; -1 if there is none."""
    return int(wp.floor(wp.min(wp.max(edge - wp.float64(0.5), wp.float64(-1.0)), wp.float64(size - 1))))


@wp.kernel
def project(
    means: wp.array[wp.vec3f],
    quaternions: wp.array[wp.vec4f],
    scales: wp.array[wp.vec3f],
    opacities: wp.array[float],
    colors: wp.array[wp.vec3f],
    intrinsics: wp.array[wp.mat33f],
    views: wp.array[wp.mat44f],
    count: int,
    width: int,
    height: int,
    table: wp.array2d[wp.vec4f],
    boxes: wp.array[wp.vec4i],
    touched: wp.array[int],
):
    """One thread for each of the B · `count` Gaussians: fill its row of `table` and of `boxes`, and `touched`.

    A row of `table` is (x, y, W00, W01), (W11, log of opacity, camera z, red), (green, blue, 0, 0). A box is the range
    of tile columns and of tile rows, ends excluded; `touched` is their number.
    """
    n = wp.tid()
    b = n // count
    touched[n] = 0
    p = project_one(means[n], quaternions[n], scales[n], opacities[n], intrinsics[b], views[b], width, height)
    if p.drawn:
        w = whitening(p.covariance)
        x = wp.float64(intrinsics[b][0, 0]) * p.slope[0] + wp.float64(intrinsics[b][0, 2])
        y = wp.float64(intrinsics[b][1, 1]) * p.slope[1] + wp.float64(intrinsics[b][1, 2])
        log_opacity = wp.log(wp.float64(opacities[n]))
        table[n, 0] = wp.vec4f(float(x), float(y), float(w[0, 0]), float(w[0, 1]))
        table[n, 1] = wp.vec4f(float(w[1, 1]), float(log_opacity), float(p.center[2]), colors[n][0])
        table[n, 2] = wp.vec4f(colors[n][1], colors[n][2], 0.0, 0.0)
        # Extent at which opacity · exp(-d²/2) falls below ALPHA_MIN (Radl et al. 2024, arXiv 2402.00525, B.2), plus a
        # small tolerance.
        reach = wp.sqrt(wp.float64(2.0) * wp.max(log_opacity - LOG_ALPHA_MIN, wp.float64(0.0)))
        half_width = reach * wp.sqrt(p.covariance[0, 0]) + wp.float64(1e-3)
        half_height = reach * wp.sqrt(p.covariance[1, 1]) + wp.float64(1e-3)
        left, right = first_pixel(x - half_width), last_pixel(x + half_width, width)
        top, bottom = first_pixel(y - half_height), last_pixel(y + half_height, height)
        if right >= left and bottom >= top:
            box = wp.vec4i(left // TILE, right // TILE + 1, top // TILE, bottom // TILE + 1)
            boxes[n] = box
            touched[n] = (box[1] - box[0]) * (box[3] - box[2])


@wp.func
def by_quaternion(r: wp.mat33d, q: wp.vec4d):
    """Derivative by a unit quaternion (w, x, y, z), given the derivative `r` by its rotation matrix."""
    w, x, y, z = q[0], q[1], q[2], q[3]
    two = wp.float64(2.0)
    return two * wp.vec4d(
        x * (r[2, 1] - r[1, 2]) + y * (r[0, 2] - r[2, 0]) + z * (r[1, 0] - r[0, 1]),
        -two * x * (r[1, 1] + r[2, 2]) + y * (r[0, 1] + r[1, 0]) + z * (r[0, 2] + r[2, 0]) + w * (r[2, 1] - r[1, 2]),
        x * (r[0, 1] + r[1, 0]) - two * y * (r[0, 0] + r[2, 2]) + z * (r[1, 2] + r[2, 1]) + w * (r[0, 2] - r[2, 0]),
        x * (r[0, 2] + r[2, 0]) + y * (r[1, 2] + r[2, 1]) - two * z * (r[0, 0] + r[1, 1]) + w * (r[1, 0] - r[0, 1]),
    )


@wp.kernel
def project_backward(
    means: wp.array[wp.vec3f],
    quaternions: wp.array[wp.vec4f],
    scales: wp.array[wp.vec3f],
    opacities: wp.array[float],
    intrinsics: wp.array[wp.mat33f],
    views: wp.array[wp.mat44f],
    count: int,
    width: int,
    height: int,
    touched: wp.array[int],
    sums: wp.array2d[float],
    to_means: wp.array[wp.vec3f],
    to_quaternions: wp.array[wp.vec4f],
    to_scales: wp.array[wp.vec3f],
    to_opacities: wp.array[float],
    to_colors: wp.array[wp.vec3f],
):
    """One thread for each Gaussian: backpropagate its row of `sums` (see `warp_blend`) to its parameters.

    The gradients of Gaussians that are not drawn are left as they are, at zero.
    """
    n = wp.tid()
    b = n // count
    if touched[n] == 0:
        return
    p = project_one(means[n], quaternions[n], scales[n], opacities[n], intrinsics[b], views[b], width, height)
    w = whitening(p.covariance)
    two, z = wp.float64(2.0), p.center[2]
    # Exponent = |W d|², d = mean - pixel: by the mean it is 2 Wᵀ (W d), by Σ' it is -2 Wᵀ (W d) (W d)ᵀ W, because
    # WᵀW = ½ Σ'⁻¹.
    by_xy = two * (wp.transpose(w) * wp.vec2d(wp.float64(sums[n, 1]), wp.float64(sums[n, 2])))
    outer = wp.mat22d(wp.float64(sums[n, 3]), wp.float64(sums[n, 4]), wp.float64(sums[n, 4]), wp.float64(sums[n, 5]))
    by_covariance = -two * (wp.transpose(w) * outer * w)
    by_root = two * (by_covariance * p.root)
    diagonal = wp.diag(vector(scales[n]))
    by_jacobian = by_root * wp.transpose(p.rotation * diagonal)
    # By rotation · diag(scale).
    by_axes = wp.transpose(p.jacobian) * by_root
    to_scales[n] = wp.vec3f(
        float(wp.dot(by_axes[:, 0], p.rotation[:, 0])),
        float(wp.dot(by_axes[:, 1], p.rotation[:, 1])),
        float(wp.dot(by_axes[:, 2], p.rotation[:, 2])),
    )
    camera = rotation_part(views[b])
    q = normalized(quaternions[n])
    by_q = by_quaternion(wp.transpose(camera) * by_axes * diagonal, q)
    # Only the part across the unit quaternion changes the rotation.
    by_q = (by_q - wp.dot(by_q, q) * q) / length_of(quaternions[n])
    to_quaternions[n] = wp.vec4f(float(by_q[0]), float(by_q[1]), float(by_q[2]), float(by_q[3]))
    # The centre in camera space, through the ellipse's centre, the Jacobian and the depth. Where the slope is clamped,
    # the Jacobian's last column depends on z alone.
    j = p.jacobian
    by_x, by_y = j[0, 0] * by_xy[0], j[1, 1] * by_xy[1]
    by_z = (
        wp.float64(sums[n, 9])
        - p.slope[0] * by_x
        - p.slope[1] * by_y
        - (j[0, 0] * by_jacobian[0, 0] + j[1, 1] * by_jacobian[1, 1]) / z
        - (j[0, 2] * by_jacobian[0, 2] + j[1, 2] * by_jacobian[1, 2]) / z
    )
    if p.clamped[0] == p.slope[0]:
        by_x = by_x - j[0, 0] / z * by_jacobian[0, 2]
        by_z = by_z - j[0, 2] / z * by_jacobian[0, 2]
    if p.clamped[1] == p.slope[1]:
        by_y = by_y - j[1, 1] / z * by_jacobian[1, 2]
        by_z = by_z - j[1, 2] / z * by_jacobian[1, 2]
    by_mean = wp.transpose(camera) * wp.vec3d(by_x, by_y, by_z)
    to_means[n] = wp.vec3f(float(by_mean[0]), float(by_mean[1]), float(by_mean[2]))
    to_opacities[n] = -sums[n, 0] / opacities[n]
    to_colors[n] = wp.vec3f(sums[n, 6], sums[n, 7], sums[n, 8])
