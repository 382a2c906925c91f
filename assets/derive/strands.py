"""Hair, brows and lashes of the demo's person, as strands: polylines that grow on the head at rest.

`cycles.render` poses them. Hair follows the skull as a whole, because its roots hardly move against each other; brows
and lashes follow the triangle that each of them grows on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.spatial import KDTree

from .appearance import LOWER_LIDS, UPPER_LIDS, Painted, brow_cover, hair_growth
from .noise import value_noise

HAIRS: Final = 24_000
LOCKS: Final = 420
"""Groups of hairs that lie together towards their tips."""
HAIR_POINTS: Final = 12
BROW_HAIRS: Final = 1_700
UPPER_LASHES, LOWER_LASHES = 120, 50
"""Of one eye."""


@dataclass(frozen=True)
class Strands:
    """S strands of K points each, on a head of N vertices at rest."""

    points: np.ndarray
    """(S, K, 3) metres, root first."""
    faces: np.ndarray
    """(S,) the triangle that each strand grows on."""
    radius: float
    """Metres, at the root; tips are thin."""


@dataclass(frozen=True)
class Scalp:
    """Random points on a head at rest, with what is needed to grow strands there."""

    faces: np.ndarray
    """(P,)"""
    template: np.ndarray
    """(P, 3) the same place on the model's template, on which the appearance is defined."""
    points: np.ndarray
    """(P, 3) on the person's own head."""
    normals: np.ndarray
    """(P, 3)"""


def scatter(painted: Painted, vertices: np.ndarray, count: int, random: np.random.Generator) -> Scalp:
    """`count` points, even over the surface `vertices` (N, 3)."""
    model = painted.model
    corners = vertices[model.faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    faces = random.choice(len(area), count, p=area / area.sum())
    weights = random.dirichlet((1, 1, 1), count)
    normals = vertex_normals(vertices, model.faces)

    def at(values: np.ndarray) -> np.ndarray:
        return np.einsum("pk,pkc->pc", weights, values[model.faces[faces]])

    return Scalp(faces, at(model.template.astype(np.float64)), at(vertices), unit(at(normals)))


def take(scalp: Scalp, chosen: np.ndarray) -> Scalp:
    return Scalp(scalp.faces[chosen], scalp.template[chosen], scalp.points[chosen], scalp.normals[chosen])


def grow_hair(painted: Painted, vertices: np.ndarray, seed: int) -> Strands:
    """Short at the sides and the nape, longer on top, brushed up and back from the forehead and to one side."""
    random = np.random.default_rng(seed)
    places = scatter(painted, vertices, 12 * HAIRS, random)
    cover, _ = hair_growth(painted, places.template)
    bald = painted.material[painted.model.faces[places.faces], 4].max(1)
    cover = np.clip(cover * 1.25 - 0.12, 0, 1) * (bald < 0.5)
    places = take(places, np.flatnonzero(random.random(len(cover)) < cover)[:HAIRS])
    cover, _ = hair_growth(painted, places.template)
    offset = places.template - painted.crown
    above = np.degrees(np.arctan2(offset[:, 1], np.hypot(offset[:, 0], offset[:, 2])))
    around = np.degrees(np.arctan2(np.abs(offset[:, 0]), offset[:, 2]))
    top = smooth((above - 30) / 30)
    front = smooth((75 - around) / 60) * top
    length = 0.009 + 0.010 * smooth((above + 10) / 40) + 0.026 * top + 0.016 * front
    length *= (0.45 + 0.55 * np.clip(cover * 1.6, 0, 1)) * random.uniform(0.75, 1.1, len(length))

    # Direction in which the hair is brushed: sides down and back, the top back and aside.
    side = np.where(places.template[:, :1] + 0.012 > 0, 1.0, -1.0)
    brushed = np.concatenate([0.12 * side, np.full_like(side, -1.0), np.full_like(side, -0.42)], 1)
    swept = np.concatenate([np.full_like(side, 0.62), np.full_like(side, 0.05), np.full_like(side, -0.8)], 1)
    flow = unit(brushed * (1 - top)[:, None] + swept * top[:, None])
    wander = np.stack([value_noise(places.template / 0.022, seed + axis) for axis in range(3)], 1)
    flow = unit(flow + 0.28 * wander)

    locks = random.choice(len(flow), LOCKS, replace=False)
    lock = np.asarray(KDTree(places.points[locks]).query(places.points)[1])
    lift = (0.30 + 0.45 * top + 0.75 * front) * random.uniform(0.8, 1.2, LOCKS)[lock]
    twist = random.normal(0, 0.22, (LOCKS, 3))[lock] + random.normal(0, 0.07, (len(lock), 3))
    stray = random.random(len(lock)) < 0.05
    twist[stray] += random.normal(0, 0.35, (stray.sum(), 3))
    surface = scatter(painted, vertices, 40_000, random)
    skull = take(surface, np.flatnonzero(hair_growth(painted, surface.template)[0] > 0.0))
    tree = KDTree(skull.points)
    phase, wave = random.uniform(0, 2 * np.pi, LOCKS)[lock], random.uniform(0.5, 1.0, LOCKS)[lock]
    points = [places.points - 0.001 * places.normals]
    layer = random.uniform(0.0006, 0.007, len(lock)) * (0.35 + 0.65 * top + 0.4 * front)
    for step in range(1, HAIR_POINTS):
        along = step / (HAIR_POINTS - 1)
        here = points[-1]
        _, nearest = tree.query(here)
        normal = skull.normals[nearest]
        rises = (lift * (1 - along) ** 1.3)[:, None]
        aside = np.cross(normal, flow)
        curl = (0.32 * wave * np.sin(phase + 5.5 * along))[:, None] * aside
        falls = np.array([0, -0.35, 0]) * along * (0.4 + 0.6 * top[:, None])
        direction = unit(tangent(flow + twist + curl, normal) + (rises + 0.10) * normal + falls)
        ahead = here + direction * (length / (HAIR_POINTS - 1))[:, None]
        distance, nearest = tree.query(ahead)
        height = ((ahead - skull.points[nearest]) * skull.normals[nearest]).sum(1)
        least = layer * min(1.0, 1.6 * along)
        push = np.where(distance < 0.02, np.clip(least - height, 0, 0.003), 0)
        points.append(ahead + push[:, None] * skull.normals[nearest])
    grown = np.stack(points, 1)
    # Towards their tips the hairs of a lock come together.
    along = np.linspace(0, 1, HAIR_POINTS)
    guide = grown[locks][lock]
    draw = (0.55 * smooth(along * 1.15) ** 1.2)[None] * random.uniform(0.5, 1.15, len(lock))[:, None]
    draw[stray] *= 0.25
    near = np.linalg.norm(guide[:, 0] - grown[:, 0], axis=1) < 0.012
    grown += (draw * near[:, None])[..., None] * (guide - grown)
    return Strands(grown.astype(np.float32), places.faces, 0.000085)


def grow_brows(painted: Painted, vertices: np.ndarray, seed: int) -> Strands:
    """Upright at the nose, then along the brow towards the temple."""
    random = np.random.default_rng(seed)
    places = scatter(painted, vertices, 400_000, random)
    cover = brow_cover(painted, places.template) * (places.normals[:, 2] > 0.2)
    kept = np.flatnonzero(random.random(len(cover)) < np.clip(cover * 1.5 - 0.1, 0, 1))
    places = take(places, kept[:BROW_HAIRS])
    x = places.template[:, 0]
    outwards = np.sign(x)
    share = np.clip((np.abs(x) - 0.014) / 0.036, 0, 1)
    middle = np.interp(np.abs(x), *_brow_line(painted))
    above = np.clip((places.template[:, 1] - middle) / 0.003, -1, 1)
    flow = np.stack([outwards * (0.25 + 1.1 * share), 1.0 - 1.25 * share - 0.55 * above * share, 0 * x], 1)
    flow = unit(flow + random.normal(0, 0.14, flow.shape))
    length = 0.0058 + 0.0030 * np.sin(np.pi * np.clip(share, 0, 1)) + random.normal(0, 0.0009, len(x))
    return _laid(places, flow, length, 5, 0.16, 0.000065)


def _brow_line(painted: Painted) -> tuple[np.ndarray, np.ndarray]:
    """Height of the brow's middle by the distance from the face's middle: (P,) each, of the detector's landmarks."""
    upper, lower = painted.points[[336, 296, 334, 293, 300]], painted.points[[285, 295, 282, 283, 276]]
    middle = (upper + lower) / 2
    order = np.argsort(np.abs(middle[:, 0]))
    return np.abs(middle[order, 0]), middle[order, 1]


def _laid(places: Scalp, flow: np.ndarray, length: np.ndarray, count: int, rise: float, radius: float) -> Strands:
    """Strands that leave the skin by `rise` and lie down along `flow` (P, 3)."""
    points = [places.points - 0.0003 * places.normals]
    for step in range(1, count):
        along = step / (count - 1)
        direction = unit(tangent(flow, places.normals) + rise * (1.4 - 1.5 * along) * places.normals)
        points.append(points[-1] + direction * (length / (count - 1))[:, None])
    return Strands(np.stack(points, 1).astype(np.float32), places.faces, radius)


def grow_lashes(painted: Painted, vertices: np.ndarray, seed: int) -> Strands:
    """Curved away from the eye at the edges of both lids."""
    random = np.random.default_rng(seed)
    model = painted.model
    places = np.einsum(
        "lk,lkc->lc", model.landmark_barycentric, vertices[model.faces[np.maximum(model.landmark_faces, 0)]]
    )
    centroids = vertices[model.faces].mean(1)
    lids = np.flatnonzero(np.isin(model.faces, model.regions["lids"]).all(1))
    tree = KDTree(centroids[lids])
    strands, faces = [], []
    for edges, number, size, turn in (
        (UPPER_LIDS, UPPER_LASHES, 0.0085, 1.0),
        (LOWER_LIDS, LOWER_LASHES, 0.0048, -1.0),
    ):
        for edge in edges:
            line = places[edge][np.argsort(places[edge][:, 0])]
            length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
            at = random.uniform(0.10, 0.84, number)
            # None grow in the inner corner.
            at = (at if line[0, 0] < 0 else 1 - at) * length[-1]
            root = np.stack([np.interp(at, length, line[:, axis]) for axis in range(3)], 1)
            middle = line.mean(0)
            aside = (root[:, 0] - middle[0]) / np.ptp(line[:, 0])
            outer = np.clip(aside * np.sign(middle[0]) + 0.5, 0, 1)
            long = (
                size
                * (0.35 + 0.65 * np.sin(np.pi * np.clip(0.15 + 0.75 * outer, 0, 1)))
                * random.uniform(0.75, 1.1, number)
            )
            fan = np.stack([1.1 * aside + random.normal(0, 0.16, number), np.zeros(number), np.zeros(number)], 1)
            points = [root + np.array([0, 0.0002 * turn, -0.0002])]
            for step in range(1, 7):
                bend = step / 6
                way = unit(np.array([0, turn * (-0.28 + 1.25 * bend), 1.0 - 0.45 * bend]) + fan)
                points.append(points[-1] + way * (long / 6)[:, None])
            strands.append(np.stack(points, 1))
            faces.append(lids[tree.query(root)[1]])
    return Strands(np.concatenate(strands).astype(np.float32), np.concatenate(faces), 0.000065)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices, np.float64)
    for corner in range(3):
        np.add.at(total, faces[:, corner], cross)
    return unit(total)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)


def tangent(vectors: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """The unit vectors nearest to `vectors` (P, 3) that are perpendicular to `normals` (P, 3)."""
    return unit(vectors - (vectors * normals).sum(-1, keepdims=True) * normals)


def smooth(share: np.ndarray) -> np.ndarray:
    """Smoothstep of a share, which is clipped to [0, 1]."""
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)
