"""Pictures of a derived person: z-buffered, textured, lit by a key, a fill and a rim light with shadows, hair in shells.

Not the product's renderer: it exists to make a clip whose truth is known and that passes for a person to the detector.
"""

from __future__ import annotations

import cv2
import numpy as np

from backend.splatting.mesh import MeshRaster, interpolate, rasterize_mesh

from .appearance import Painted, albedo
from .noise import value_noise

OVERSAMPLING = 2
HAIR_SHELLS = 14
_KEY = np.array([-0.45, -0.55, -0.70])
_FILL = np.array([0.75, -0.10, -0.65])
_RIM = np.array([0.55, -0.45, 0.70])
_SHADOW_SIZE = 512
_SHADOW_DISTANCE = 4.0


def render_person(painted: Painted, vertices_camera: np.ndarray, body: tuple[np.ndarray, np.ndarray], intrinsics: np.ndarray,
                  size: int, background: np.ndarray) -> np.ndarray:
    """(size, size, 3) uint8 sRGB. `vertices_camera` (N, 3), `body` vertices (camera) and triangles, `background`
    (size, size, 3) sRGB in [0, 1]."""
    large = size * OVERSAMPLING
    scale = intrinsics.copy()
    scale[:2] *= OVERSAMPLING
    model = painted.model
    canvas = _linear(cv2.resize(background, (large, large), interpolation=cv2.INTER_LINEAR))
    nearest = np.full((large, large), np.inf, np.float32)

    shadow = _Shadow(np.concatenate([vertices_camera, body[0]]), np.concatenate([model.faces, body[1] + len(vertices_camera)]))
    cloth = rasterize_mesh(body[0], body[1], scale, large, large)
    where = np.nonzero(cloth.covered)
    seen = _seen(cloth, where, body[1], np.concatenate([body[0], _normals(*body)], 1))
    position, normal = seen[:, :3], _facing(seen[:, 3:], seen[:, :3])
    weave = 1 + 0.10 * value_noise(position / 0.0022, 21)[:, None] + 0.05 * value_noise(position / 0.02, 22)[:, None]
    canvas[where] = _light(_linear(np.array([0.16, 0.25, 0.32]) * weave), normal, position, np.full(len(seen), 0.05), shadow)
    nearest[where] = cloth.depth[where]

    raster = rasterize_mesh(vertices_camera, model.faces, scale, large, large)
    normals = _normals(vertices_camera, model.faces)
    rest_normals = _normals(model.template, model.faces)
    where = np.nonzero(raster.covered & (raster.depth < nearest))
    seen = _seen(raster, where, model.faces, np.concatenate(
        [normals, vertices_camera, model.template, rest_normals[:, 2:], painted.material], 1))
    position, rest, material = seen[:, 3:6], seen[:, 6:9].astype(np.float64), seen[:, 10:]
    colour, gloss = albedo(painted, rest, seen[:, 9], material)
    hollow = _mouth_darkness(painted, rest, material)
    canvas[where] = _light(_linear(colour) * hollow[:, None], _facing(seen[:, :3], position), position, gloss * hollow, shadow)
    nearest[where] = raster.depth[where]
    _grow_hair(painted, vertices_camera, normals, scale, canvas, nearest, shadow)
    return (_srgb(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)) * 255).round().astype(np.uint8)


def _grow_hair(painted: Painted, vertices: np.ndarray, normals: np.ndarray, intrinsics: np.ndarray, canvas: np.ndarray,
               nearest: np.ndarray, shadow: "_Shadow") -> None:
    """Shells outside the scalp, each keeping only the strands that are as long as it is high; drawn from the inside out."""
    model, look = painted.model, painted.look
    cover = painted.material[:, 4]
    faces = model.faces[(cover[model.faces] > 0.05).any(1)]
    large = len(canvas)
    centre = model.template.mean(0)
    for shell in range(1, HAIR_SHELLS + 1):
        height = shell / HAIR_SHELLS
        # Strands lie back and fall as they grow.
        lift = look.hair_length * height * np.clip(cover * 1.5, 0, 1)[:, None]
        shape = vertices + normals * lift + np.array([0, 0.35, 0]) * lift * height
        raster = rasterize_mesh(shape, faces, intrinsics, large, large)
        where = np.nonzero(raster.covered & (raster.depth < nearest))
        if not len(where[0]):
            continue
        seen = _seen(raster, where, faces, np.concatenate([model.template, cover[:, None], shape, normals], 1))
        rest = (seen[:, :3] - centre).astype(np.float64)
        around = np.arctan2(rest[:, 0], rest[:, 2] + 0.02)
        fall = rest[:, 1] + 0.3 * rest[:, 2]
        wave = 0.12 * value_noise(np.stack([around * 6, fall / 0.03], -1), look.seed + 31)
        strands = value_noise(np.stack([(around + wave) * 95, fall / 0.03 + height * 0.7], -1), look.seed + 32)
        locks = value_noise(np.stack([(around + wave) * 14, fall / 0.05], -1), look.seed + 33)
        length = (0.55 + 0.30 * strands + 0.30 * locks) * np.clip(_ragged(seen[:, 3], strands) * 1.3, 0, 1)
        grows = length > height
        index = tuple(axis[grows] for axis in where)
        tone = (0.50 + 0.45 * height + 0.28 * strands[grows] + 0.15 * locks[grows])[:, None]
        normal = seen[grows, 7:] + 0.25 * strands[grows, None] * np.array([1.0, 0, 0])
        position = seen[grows, 4:7]
        base = _linear(np.array(look.hair) * tone)
        canvas[index] = _light(base, _facing(normal, position), position, np.full(len(base), 0.12), shadow)
        nearest[index] = raster.depth[index]


def _ragged(cover: np.ndarray, strands: np.ndarray) -> np.ndarray:
    """Hair cover whose edge follows the strands and not the mesh."""
    return np.clip(cover + 1.6 * strands * cover * (1 - cover), 0, 1)


class _Shadow:
    """What the key light sees: a depth map, looked up with a soft filter."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        towards = _KEY / np.linalg.norm(_KEY)
        side = np.cross([0.0, 1.0, 0.0], towards)
        side /= np.linalg.norm(side)
        self.rotation = np.stack([side, np.cross(towards, side), -towards])
        self.centre = vertices.mean(0)
        focal = _SHADOW_DISTANCE * _SHADOW_SIZE / 0.62
        self.intrinsics = np.array([[focal, 0, _SHADOW_SIZE / 2], [0, focal, _SHADOW_SIZE / 2], [0, 0, 1]])
        raster = rasterize_mesh(self._turned(vertices), faces, self.intrinsics, _SHADOW_SIZE, _SHADOW_SIZE)
        self.depth = np.where(np.isfinite(raster.depth), raster.depth, 100).astype(np.float32)

    def _turned(self, points: np.ndarray) -> np.ndarray:
        return (points - self.centre) @ self.rotation.T + [0, 0, _SHADOW_DISTANCE]

    def lit(self, points: np.ndarray) -> np.ndarray:
        """(...) in [0, 1]."""
        turned = self._turned(points.reshape(-1, 3))
        pixel = turned[:, :2] / turned[:, 2:] * self.intrinsics[0, 0] + _SHADOW_SIZE / 2
        total = np.zeros(len(turned), np.float32)
        taps = [(x, y) for x in (-2.2, 0, 2.2) for y in (-2.2, 0, 2.2)]
        for x, y in taps:
            column, row = (pixel + (x, y)).astype(np.int64).clip(0, _SHADOW_SIZE - 1).T
            total += np.clip((self.depth[row, column] - turned[:, 2] + 0.006) / 0.003, 0, 1)
        return (total / len(taps)).reshape(points.shape[:-1])


def _light(colour: np.ndarray, normal: np.ndarray, position: np.ndarray, gloss: np.ndarray, shadow: _Shadow) -> np.ndarray:
    """Linear colours (..., 3) lit. Light wraps around the terminator in red first, as it does under skin."""
    view = -position / (np.linalg.norm(position, axis=-1, keepdims=True) + 1e-9)
    seen = shadow.lit(position)[..., None]
    total = 0.30 * colour * (0.75 - 0.25 * normal[..., 1:2])
    for light, strength, tint, visible in (
        (_KEY, 0.95, (1.0, 0.96, 0.90), seen), (_FILL, 0.28, (0.86, 0.93, 1.0), 1.0), (_RIM, 0.40, (1.0, 0.98, 0.95), 1.0),
    ):
        towards = light / np.linalg.norm(light)
        cosine = (normal * towards).sum(-1, keepdims=True)
        wrap = np.array([0.22, 0.12, 0.08])
        diffuse = np.clip((cosine + wrap) / (1 + wrap), 0, None)
        half = towards + view
        half /= np.linalg.norm(half, axis=-1, keepdims=True) + 1e-9
        shine = np.clip((normal * half).sum(-1), 0, 1)
        sharp = np.where(gloss > 1, shine**160 * 0.9, shine**22 * 0.22)
        total = total + strength * visible * np.array(tint) * (colour * diffuse + (gloss * sharp)[..., None] * (cosine > 0))
    return total


def _seen(raster: MeshRaster, where: tuple[np.ndarray, ...], faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Vertex `values` (V, C) at the chosen pixels -> (P, C)."""
    part = MeshRaster(raster.face_index[where][None], raster.barycentric[where][None], raster.depth[where][None])
    return interpolate(part, faces, values)[0]


def _mouth_darkness(painted: Painted, rest: np.ndarray, material: np.ndarray) -> np.ndarray:
    """(P,) in [0, 1]: the mouth's inside is lit only near the lips."""
    inside = material[:, 1:4].sum(-1)
    lips = painted.points[13, 2]
    return 1 - inside * np.clip((lips - rest[:, 2]) / 0.030, 0.15, 0.92)


def _facing(normal: np.ndarray, position: np.ndarray) -> np.ndarray:
    unit = normal / (np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9)
    return np.where((unit * position).sum(-1, keepdims=True) > 0, -unit, unit)


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    face_normals = np.cross(b - a, c - a)
    total = np.stack([np.bincount(faces.ravel(), np.repeat(face_normals[:, axis], 3), len(vertices)) for axis in range(3)], 1)
    return total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-20)


def _linear(srgb: np.ndarray) -> np.ndarray:
    srgb = np.clip(srgb, 0, 1)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _srgb(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
