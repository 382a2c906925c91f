"""Procedural appearance of a person on the open head: skin, brows, lips, eyes, teeth and hair.

All of it is a function of the position on the head at rest (metres), so that it follows the surface when the head is
posed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import PchipInterpolator

from backend.correspondence.landmark_render import FacePaint
from backend.head.eye_size import IRIS_RADIUS, PUPIL_RADIUS
from backend.head.model import HeadModel
from backend.head.mouth import mouth_parts
from backend.head.topology import mesh_edges

from .noise import fractal_noise, value_noise

EYE_GLOSS = 1.6
"""Gloss of wet surfaces, which have small hard highlights."""
UPPER_LIDS = ([246, 161, 160, 159, 158, 157, 173], [466, 388, 387, 386, 385, 384, 398])
LOWER_LIDS = ([33, 7, 163, 144, 145, 153, 154, 155, 133], [263, 249, 390, 373, 374, 380, 381, 382, 362])
_HAIRLINE = PchipInterpolator(
    [0, 22, 42, 56, 66, 74, 82, 96, 108, 122, 150, 180], [35, 36, 38, 30, 12, -8, -8, 12, 2, -20, -27, -28]
)
"""Degrees above the crown point at which hair begins, by degrees from the front: brow, temple, sideburn, ear, nape."""


@dataclass(frozen=True)
class Appearance:
    """A person's colours, sRGB in [0, 1]."""

    skin: tuple[float, float, float] = (0.82, 0.62, 0.52)
    hair: tuple[float, float, float] = (0.20, 0.13, 0.09)
    lips: tuple[float, float, float] = (0.68, 0.38, 0.36)
    iris: tuple[float, float, float] = (0.30, 0.38, 0.36)
    cloth: tuple[float, float, float] = (0.20, 0.27, 0.33)
    hair_length: float = 0.022
    """Thickness of the hair on top of the head, metres; at the sides it is a third of this."""
    stubble: float = 0.5
    """Visibility of beard stubble, 0 to 1."""
    hairline: float = 0.0
    """Degrees by which the hairline is raised above the average."""
    seed: int = 0


@dataclass(frozen=True)
class Painted:
    """A head model with precomputed data for painting it."""

    model: HeadModel
    paint: FacePaint
    appearance: Appearance
    points: np.ndarray
    """(478, 3) positions of the detector's landmarks on the template; NaN for landmarks without a position."""
    material: np.ndarray
    """(N, 5) weights of eye, tooth, tongue, mouth wall and hairless skin."""
    lashes: np.ndarray
    """A canvas of `paint`: the edges of the upper lids, more faintly of the lower ones."""
    crown: np.ndarray
    """(3,) the point inside the head around which the hairline is drawn."""
    eye_centres: np.ndarray
    """(2, 3) of the left and the right eyeball."""


def paint_head(model: HeadModel, appearance: Appearance) -> Painted:
    points = np.full((len(model.landmark_faces), 3), np.nan)
    valid = model.landmark_faces >= 0
    corners = model.template[model.faces[model.landmark_faces[valid]]]
    points[valid] = np.einsum("lk,lkc->lc", model.landmark_barycentric[valid], corners)
    paint = FacePaint.plain(model).with_features(points)
    material = np.zeros((len(model.template), 5), np.float32)
    material[model.regions["eyes"], 0] = 1
    for column, part in ((1, "teeth"), (2, "tongue"), (3, "wall")):
        material[mouth_parts(model)[part], column] = 1
    for name in ("eyes", "mouth_inside", "lips", "lids"):
        material[model.regions[name], 4] = 1
    material[_pinnae(model, mesh_edges(model.faces)[0]), 4] = 1
    eyes = np.array(
        [
            model.template[model.regions["eyes"]][side].mean(0)
            for side in (model.template[model.regions["eyes"], 0] > 0, model.template[model.regions["eyes"], 0] <= 0)
        ]
    )
    ears = model.template[model.regions["ears"]]
    crown = np.array([0.0, eyes[:, 1].mean() + 0.005, np.median(ears[:, 2]) + 0.005])
    return Painted(model, paint, appearance, points, material, _lash_canvas(paint, points), crown, eyes)


def _pinnae(model: HeadModel, edges: np.ndarray) -> np.ndarray:
    """Vertices of the ears without the skin around them: three edges or more inside the region."""
    inside = np.zeros(len(model.template), bool)
    inside[model.regions["ears"]] = True
    for _ in range(3):
        rim = edges[inside[edges[:, 0]] != inside[edges[:, 1]]]
        inside[rim.ravel()] = False
    return np.flatnonzero(inside)


def _lash_canvas(paint: FacePaint, points: np.ndarray) -> np.ndarray:
    canvas = np.zeros(paint.lips.shape, np.float32)
    for edges, strength, width in ((UPPER_LIDS, 1.0, 2), (LOWER_LIDS, 0.2, 2)):
        for edge in edges:
            cells = paint.cells(points[edge][~np.isnan(points[edge]).any(1), :2])
            cv2.polylines(canvas, [np.round(cells * 16).astype(np.int32)], False, strength, width, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(canvas, (0, 0), 0.8)


def hair_growth(painted: Painted, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hair coverage in [0, 1] and hair length in metres at positions at rest (P, 3)."""
    offset = rest - painted.crown
    around = np.degrees(np.arctan2(np.abs(offset[:, 0]), offset[:, 2]))
    above = np.degrees(np.arctan2(offset[:, 1], np.hypot(offset[:, 0], offset[:, 2])))
    line = _HAIRLINE(around) + painted.appearance.hairline * np.clip(1 - around / 80, 0, 1)
    seed = painted.appearance.seed
    line = line + 2.2 * value_noise(rest / 0.012, seed + 41) + 1.2 * value_noise(rest / 0.004, seed + 42)
    cover = np.clip((above - line) / 9 + 0.35, 0, 1)
    top = np.clip((above - 25) / 35, 0, 1)
    return cover, painted.appearance.hair_length * (0.33 + 0.67 * top * top * (3 - 2 * top))


def albedo(
    painted: Painted, rest: np.ndarray, front: np.ndarray, material: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (..., 3) sRGB and gloss (...) at positions at rest (..., 3); `front` (...) is the rest normal's z."""
    appearance, paint = painted.appearance, painted.paint
    facing = np.clip(front * 4, 0, 1)
    skin, lips, near_nose = bare_skin(painted, rest, facing)
    skin *= 1 - appearance.stubble * beard_cover(painted, rest, facing)[..., None] * np.array([0.16, 0.13, 0.10])
    brows = np.clip(brow_cover(painted, rest), 0, 0.85)
    brows = (brows * facing)[..., None]
    skin = skin * (1 - brows) + np.array(appearance.hair) * brows
    lashes = (_cover(paint, painted.lashes, rest) * facing)[..., None].clip(0, 0.9)
    skin = skin * (1 - lashes) + np.array(appearance.hair) * 0.45 * lashes
    growth, _ = hair_growth(painted, rest)
    grain = 0.75 + 0.25 * value_noise(rest / 0.0015, 6)
    roots = (0.9 * growth * (1 - material[..., 4]) * grain)[..., None].clip(0, 1)
    skin = skin * (1 - roots) + np.array(appearance.hair) * 0.8 * roots
    colour, gloss = with_mouth(skin, 0.22 + 0.35 * lips + 0.12 * near_nose, rest, material)
    eye = material[..., 0] > 0.5
    if eye.any():
        colour[eye] = eye_colour(painted, rest[eye])
        gloss = np.where(eye, EYE_GLOSS, gloss)
    return colour.clip(0, 1), gloss


def bare_skin(painted: Painted, rest: np.ndarray, facing: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour (..., 3) sRGB of the skin without any hair, and the shares in [0, 1] (...) of lips and of the nose's
    surroundings; `facing` (...) is 1 on the front of the head.
    """
    appearance, paint = painted.appearance, painted.paint
    skin = np.broadcast_to(np.array(appearance.skin), rest.shape).copy()
    blotches = fractal_noise(rest / 0.018, 4, appearance.seed)[..., None]
    skin *= 1 + 0.035 * blotches * np.array([0.6, 1.0, 1.1])
    pores = value_noise(rest / 0.0009, appearance.seed + 7)[..., None]
    skin *= 1 + 0.03 * pores
    freckles = np.clip(value_noise(rest / 0.0032, appearance.seed + 9) - 0.72, 0, 1)[..., None] * 3
    near_nose = np.exp(-np.square(np.linalg.norm(rest - painted.points[4], axis=-1) / 0.045))[..., None]
    skin *= 1 - 0.35 * freckles * near_nose * np.array([0.4, 0.8, 1.0])
    for index, reach, strength in ((50, 0.020, 0.10), (280, 0.020, 0.10), (4, 0.011, 0.12)):
        blush = np.exp(-np.square(np.linalg.norm(rest - painted.points[index], axis=-1) / reach))[..., None]
        skin *= 1 - strength * blush * np.array([0.0, 1.0, 0.9])
    for centre in painted.eye_centres:
        offset = rest - centre - np.array([0, -0.012, 0.012])
        hollow = np.exp(-np.square(offset[..., 0] / 0.014) - np.square(offset[..., 1] / 0.007))[..., None]
        skin *= 1 - 0.10 * hollow * np.array([0.7, 1.0, 0.9])
    lips = (_cover(paint, paint.lips, rest) * facing)[..., None]
    creases = value_noise(np.stack([rest[..., 0] / 0.0013, rest[..., 1] / 0.006], -1), 3)[..., None]
    skin = skin * (1 - 0.85 * lips) + np.array(appearance.lips) * (1 + 0.06 * creases) * 0.85 * lips
    return skin, lips[..., 0], near_nose[..., 0]


def with_mouth(
    skin: np.ndarray, gloss: np.ndarray, rest: np.ndarray, material: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colour (..., 3) and gloss (...) where teeth, tongue and the mouth's wall take the place of the skin."""
    tongue, wall = np.array([0.66, 0.33, 0.33]), np.array([0.34, 0.12, 0.12])
    for column, paint_of, shine in ((1, _tooth(rest), 0.5), (2, tongue, 0.35), (3, wall, 0.2)):
        share = material[..., column : column + 1]
        skin = skin * (1 - share) + paint_of * share
        gloss = gloss * (1 - share[..., 0]) + shine * share[..., 0]
    return skin, gloss


def brow_cover(painted: Painted, rest: np.ndarray) -> np.ndarray:
    """(P,) from 0: how much of the skin at positions at rest (P, 3) the brows hide."""
    hairs = value_noise(np.stack([(rest[..., 0] + 0.8 * np.abs(rest[..., 1])) / 0.0009, rest[..., 1] / 0.0035], -1), 5)
    return np.clip((_cover(painted.paint, _soft(painted.paint.brows), rest) - 0.26 + 0.26 * hairs) * 1.7, 0, None)


def _soft(canvas: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(canvas, (0, 0), 2.0)


def beard_cover(painted: Painted, rest: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """(P,) in [0, 1]: around the mouth, on the chin and along the jaw."""
    mouth = painted.points[13]
    down = (mouth[1] + 0.006 - rest[:, 1]) / 0.012 + 0.5 * value_noise(rest / 0.010, 51)
    aside = (np.abs(rest[:, 0]) - 0.020) / 0.030
    beard = np.clip(down - 0.9 * np.clip(aside, 0, 1), 0, 1) * np.clip((rest[:, 1] - mouth[1] + 0.085) / 0.02, 0, 1)
    lip = np.exp(-np.square(rest[:, 0] / 0.026) - np.square((rest[:, 1] - mouth[1] - 0.012) / 0.006))
    return np.clip(beard + lip, 0, 1) * np.clip(facing + 0.4, 0, 1)


def _cover(paint: FacePaint, canvas: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(P,) coverage at positions (P, 3): `FacePaint.sample` in rows, because OpenCV limits the width of a map."""
    count, width = len(rest), 1024
    positions = np.zeros((-(-count // width) * width, 2))
    positions[:count] = rest[:, :2]
    return paint.sample(canvas, positions.reshape(-1, width, 2)).reshape(-1)[:count]


def _tooth(rest: np.ndarray) -> np.ndarray:
    gap = np.abs(np.sin(rest[..., 0] / 0.0078 * np.pi))[..., None]
    return np.array([0.88, 0.85, 0.78]) * (1 - 0.25 * (1 - gap) ** 8)


def eye_colour(painted: Painted, rest: np.ndarray, shaded: bool = True) -> np.ndarray:
    """(P, 3) sRGB at positions of the eyeballs at rest (P, 3): sclera with a warm corner, iris with fibres, a dark
    limbal ring and a soft pupil; `shaded` by the upper lid and its lashes.
    """
    offsets = rest[:, None] - painted.eye_centres
    nearest = np.linalg.norm(offsets, axis=-1).argmin(1)
    offset = offsets[np.arange(len(rest)), nearest]
    radius = np.hypot(offset[:, 0], offset[:, 1])
    radius = np.where(offset[:, 2] > 0, radius, 1.0)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    corner = np.clip((radius - 0.008) / 0.004, 0, 1)[:, None]
    sclera = np.array([0.90, 0.88, 0.86]) * (1 - 0.10 * corner * np.array([0.3, 1, 1]))
    fibres = value_noise(np.stack([angle * 14, radius / 0.003], -1), 11)[:, None]
    inner = np.exp(-np.square((radius - 0.003) / 0.0014))[:, None]
    iris = np.array(painted.appearance.iris) * (1 + 0.30 * fibres) + 0.10 * inner * np.array([1.0, 0.8, 0.3])
    limbus = np.clip((radius - 0.0046) / 0.0012, 0, 1)[:, None]
    iris = iris * (1 - 0.65 * limbus)
    pupil = np.clip((PUPIL_RADIUS + 0.0002 - radius) / 0.0004, 0, 1)[:, None]
    iris = iris * (1 - pupil) + 0.02 * pupil
    if shaded:
        lid = np.clip((offset[:, 1] - 0.0005) / 0.006, 0, 1)[:, None]
        sclera, iris = sclera * (1 - 0.45 * lid), iris * (1 - 0.55 * lid)
    is_iris = np.clip((IRIS_RADIUS - radius) / 0.0005, 0, 1)[:, None]
    return sclera * (1 - is_iris) + iris * is_iris
