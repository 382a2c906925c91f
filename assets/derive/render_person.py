"""Renders images of a procedural person: z-buffered, textured, lit by a key, a fill and a rim light with shadows, hair
in shells.

This is not the product's renderer. It makes a clip with known ground truth in which the detector finds a person.
"""

from __future__ import annotations

import cv2
import numpy as np

from backend.splatting.mesh import MeshRaster, interpolate, rasterize_mesh

from .appearance import Painted, albedo, hair_growth
from .noise import value_noise

OVERSAMPLING = 2
HAIR_SHELLS = 16
_KEY = np.array([-0.45, -0.55, -0.70])
_FILL = np.array([0.75, -0.10, -0.65])
_RIM = np.array([0.55, -0.45, 0.70])
_SHADOW_SIZE = 640
_SHADOW_DISTANCE = 4.0


def render_person(
    painted: Painted,
    vertices_camera: np.ndarray,
    body: tuple[np.ndarray, np.ndarray],
    intrinsics: np.ndarray,
    size: int,
    background: np.ndarray,
) -> np.ndarray:
    """(size, size, 3) uint8 sRGB. `vertices_camera` (N, 3), `body` vertices (camera) and triangles, `background`
    (size, size, 3) sRGB in [0, 1].
    """
    large = size * OVERSAMPLING
    scale = intrinsics.copy()
    scale[:2] *= OVERSAMPLING
    model = painted.model
    canvas = cv2.resize(_linear(background.astype(np.float32)), (large, large), interpolation=cv2.INTER_LINEAR)
    everything = np.concatenate([model.faces, body[1] + len(vertices_camera)])
    shadow = _Shadow(np.concatenate([vertices_camera, body[0]]), everything)

    cloth = rasterize_mesh(body[0], body[1], scale, large, large)
    head = rasterize_mesh(vertices_camera, model.faces, scale, large, large)
    nearest = np.minimum(cloth.depth, head.depth)

    where = np.nonzero(cloth.covered & (cloth.depth <= head.depth))
    sampled = _at(cloth, where, body[1], np.concatenate([body[0], _normals(*body), body[0] - body[0].mean(0)], 1))
    position, weave = sampled[:, :3], sampled[:, 6:]
    tone = 1 + 0.08 * value_noise(weave / 0.0022, 21) + 0.06 * value_noise(weave / 0.03, 22)
    colour, gloss = _linear(np.array(painted.appearance.cloth) * tone[:, None]), np.full(len(sampled), 0.04)
    canvas[where] = _light(colour, _facing(sampled[:, 3:6], position), position, gloss, shadow)

    normals = _normals(vertices_camera, model.faces)
    rest_normals = _normals(model.template, model.faces)
    where = np.nonzero(head.covered & (head.depth < cloth.depth))
    sampled = _at(
        head,
        where,
        model.faces,
        np.concatenate([normals, vertices_camera, model.template, rest_normals[:, 2:], painted.material], 1),
    )
    position, rest, material = sampled[:, 3:6], sampled[:, 6:9].astype(np.float64), sampled[:, 10:]
    colour, gloss = albedo(painted, rest, sampled[:, 9], material)
    hollow = _mouth_darkness(painted, rest, material)
    normal = _facing(sampled[:, :3], position)
    canvas[where] = _light(_linear(colour) * hollow[:, None], normal, position, gloss * hollow, shadow)
    _grow_hair(painted, vertices_camera, normals, scale, canvas, nearest, shadow)
    return (_srgb(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)) * 255).round().astype(np.uint8)


def _at(raster: MeshRaster, where: tuple[np.ndarray, ...], faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(P, C) vertex values at chosen pixels."""
    part = MeshRaster(raster.face_index[where][None], raster.barycentric[where][None], raster.depth[where][None])
    return interpolate(part, faces, values)[0]


def _grow_hair(
    painted: Painted,
    vertices: np.ndarray,
    normals: np.ndarray,
    intrinsics: np.ndarray,
    canvas: np.ndarray,
    nearest: np.ndarray,
    shadow: _Shadow,
) -> None:
    """Draw hair as shells around the scalp; each shell shows the strands that are longer than its height.

    Shells are drawn from the outermost inwards, which keeps overdraw low.
    """
    model, appearance = painted.model, painted.appearance
    cover, length = hair_growth(painted, model.template.astype(np.float64))
    cover = cover * (1 - painted.material[:, 4])
    faces = model.faces[(cover[model.faces] > 0.02).any(1) & (painted.material[model.faces, 4] < 0.5).all(1)]
    large = len(canvas)
    attributes = np.concatenate([model.template, normals], 1)
    for shell in range(HAIR_SHELLS, 0, -1):
        height = shell / HAIR_SHELLS
        lift = (length * height * np.clip(cover * 2, 0, 1))[:, None]
        # Longer strands bend under their weight.
        shape = vertices + normals * lift + np.array([0, 0.25, 0]) * lift * height
        raster = rasterize_mesh(shape, faces, intrinsics, large, large)
        where = np.nonzero(raster.covered & (raster.depth < nearest))
        if not len(where[0]):
            continue
        sampled = _at(raster, where, faces, np.concatenate([attributes, shape], 1))
        rest = sampled[:, :3].astype(np.float64)
        grows_here, _ = hair_growth(painted, rest)
        offset = rest - painted.crown
        # Strands run from the whorl at the back of the crown outwards; noise is stretched along them.
        around = np.arctan2(offset[:, 0], offset[:, 2] + 0.055)
        along = np.arctan2(np.hypot(offset[:, 0], offset[:, 2] + 0.055), offset[:, 1])
        wave = 0.10 * value_noise(np.stack([around * 5, along / 0.5], -1), appearance.seed + 31)
        bent = around + wave + 0.12 * along * height
        strands = value_noise(np.stack([bent * 90, along / 0.25 + height * 0.5], -1), appearance.seed + 32)
        locks = value_noise(np.stack([bent * 15, along / 0.35], -1), appearance.seed + 33)
        density = np.clip(1.6 * grows_here + 0.5 * strands * (1 - grows_here), 0, 1)
        tips = (0.62 + 0.28 * strands + 0.28 * locks) * density
        grows = (tips > height) & (grows_here > 0.04)
        index = tuple(axis[grows] for axis in where)
        tone = (0.42 + 0.62 * height + 0.30 * strands[grows] + 0.18 * locks[grows])[:, None].clip(0.15, 1.6)
        sideways = np.cross(sampled[grows, 3:6], [0.0, 1.0, 0.0])
        normal = sampled[grows, 3:6] + (0.35 * strands + 0.45 * locks)[grows, None] * sideways
        position = sampled[grows, 6:9]
        base = _linear(np.array(appearance.hair) * tone)
        canvas[index] = _light(base, _facing(normal, position), position, np.full(len(base), 0.22), shadow)
        nearest[index] = raster.depth[index]


class _Shadow:
    """Shadow map of the key light, sampled with a soft filter."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        towards = _KEY / np.linalg.norm(_KEY)
        side = np.cross([0.0, 1.0, 0.0], towards)
        side /= np.linalg.norm(side)
        self.rotation = np.stack([side, np.cross(towards, side), -towards])
        self.centre = vertices.mean(0)
        focal = _SHADOW_DISTANCE * _SHADOW_SIZE / 0.62
        self.intrinsics = np.array([[focal, 0, _SHADOW_SIZE / 2], [0, focal, _SHADOW_SIZE / 2], [0, 0, 1]])
        raster = rasterize_mesh(self._to_light_space(vertices), faces, self.intrinsics, _SHADOW_SIZE, _SHADOW_SIZE)
        self.depth = np.where(np.isfinite(raster.depth), raster.depth, 100).astype(np.float32)

    def _to_light_space(self, points: np.ndarray) -> np.ndarray:
        return (points - self.centre) @ self.rotation.T + [0, 0, _SHADOW_DISTANCE]

    def lit(self, points: np.ndarray) -> np.ndarray:
        """(P,) visibility of the key light in [0, 1] at points (P, 3)."""
        in_light_space = self._to_light_space(points)
        pixel = in_light_space[:, :2] / in_light_space[:, 2:] * self.intrinsics[0, 0] + _SHADOW_SIZE / 2
        total = np.zeros(len(in_light_space), np.float32)
        taps = [(x, y) for x in (-3.5, 0, 3.5) for y in (-3.5, 0, 3.5)]
        for x, y in taps:
            column, row = (pixel + (x, y)).astype(np.int64).clip(0, _SHADOW_SIZE - 1).T
            # The wide ramp prevents striped self-shadowing at grazing angles.
            total += np.clip((self.depth[row, column] - in_light_space[:, 2] + 0.016) / 0.010, 0, 1)
        return total / len(taps)


def _light(
    colour: np.ndarray, normal: np.ndarray, position: np.ndarray, gloss: np.ndarray, shadow: _Shadow
) -> np.ndarray:
    """Linear colours (P, 3) lit. Red light wraps around the terminator farthest, which approximates subsurface
    scattering.
    """
    position = position.astype(np.float32)
    view = -position / (np.linalg.norm(position, axis=-1, keepdims=True) + 1e-9)
    key_visible = shadow.lit(position)[:, None]
    colour, normal, gloss, key_visible = (part.astype(np.float32) for part in (colour, normal, gloss, key_visible))
    wet = gloss[:, None] > 1
    total = 0.26 * colour * (0.75 - 0.25 * normal[:, 1:2])
    for light, strength, tint, visible in (
        (_KEY, 1.0, (1.0, 0.96, 0.90), key_visible),
        (_FILL, 0.30, (0.86, 0.93, 1.0), 1.0),
        (_RIM, 0.40, (1.0, 0.98, 0.95), 1.0),
    ):
        towards = (light / np.linalg.norm(light)).astype(np.float32)
        cosine = (normal * towards).sum(-1, keepdims=True)
        wrap = np.array([0.13, 0.10, 0.085], np.float32)
        diffuse = np.clip((cosine + wrap) / (1 + wrap), 0, None)
        # The cornea is more curved than the eyeball, so its highlight lies nearer to the iris's centre.
        half = towards + np.where(wet, 2.2, 1.0) * view
        half /= np.linalg.norm(half, axis=-1, keepdims=True) + 1e-9
        shine = np.clip((normal * half).sum(-1), 0, 1)
        sharp = np.where(gloss > 1, shine**420 * 0.9, shine**22 * 0.20)
        returned = colour * diffuse + (gloss * sharp)[:, None] * (cosine > 0)
        total = total + strength * visible * np.array(tint, np.float32) * returned
    return total


def _mouth_darkness(painted: Painted, rest: np.ndarray, material: np.ndarray) -> np.ndarray:
    """(P,) in [0, 1]: attenuation of light inside the mouth, which is lit only near the lips."""
    inside = material[:, 1:4].sum(-1)
    lips = painted.points[13, 2]
    return 1 - inside * np.clip((lips - rest[:, 2]) / 0.030, 0.15, 0.92)


def _facing(normal: np.ndarray, position: np.ndarray) -> np.ndarray:
    unit = normal / (np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9)
    return np.where((unit * position).sum(-1, keepdims=True) > 0, -unit, unit)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    face_normals = np.cross(b - a, c - a)
    corners = faces.ravel()
    sums = [np.bincount(corners, np.repeat(face_normals[:, axis], 3), len(vertices)) for axis in range(3)]
    total = np.stack(sums, 1)
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-20)


def _linear(srgb: np.ndarray) -> np.ndarray:
    srgb = np.clip(srgb, 0, 1)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
