"""The arrays of the scene that Cycles renders as the demo's clip: the posed head, its maps, strands and clothes."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import torch

from backend.formats.track import Track
from backend.head.eye_size import IRIS_RADIUS
from backend.head.formats import load_head
from backend.head.forward import Head
from backend.head.mouth import mouth_parts
from backend.head.rigid_alignment import fit_similarity
from backend.splatting.mesh import interpolate, rasterize_mesh

from .appearance import (
    Appearance,
    Painted,
    bare_skin,
    beard_cover,
    brow_cover,
    eye_colour,
    hair_growth,
    paint_head,
    with_mouth,
)
from .clothes import sweater
from .noise import fractal_noise, value_noise
from .strands import Strands, grow_brows, grow_hair, grow_lashes, vertex_normals

MAP_SIZE: Final = 2048
EYE_MAP_SIZE: Final = 1024
PERSON: Final = Appearance(
    skin=(0.80, 0.61, 0.51),
    hair=(0.20, 0.13, 0.09),
    lips=(0.67, 0.40, 0.38),
    iris=(0.30, 0.40, 0.40),
    stubble=0.6,
    seed=11,
)


def scene_arrays(truth: Track) -> dict[str, np.ndarray]:
    """What `cycles.render` reads: in head space what is at rest, in OpenCV's camera what is posed."""
    model = load_head()
    painted = paint_head(model, PERSON)
    head = Head(model)
    with torch.no_grad():
        still = np.zeros((1, truth.expression.shape[1]), np.float32), np.zeros((1, 5, 3), np.float32)
        rest, posed = (
            head(*(torch.as_tensor(part) for part in (truth.identity[None], *pose))).vertices.numpy()
            for pose in (still, (truth.expression, truth.rotations))
        )
    rest = rest[0].astype(np.float64)
    camera = truth.head_to_camera.astype(np.float64)
    posed = np.einsum("fij,fnj->fni", camera[:, :3, :3], posed) + camera[:, None, :3, 3]
    skull = np.setdiff1d(model.regions["scalp"], model.regions["neck"])
    skull = skull[model.template[skull, 1] > 0.02]
    arrays: dict[str, np.ndarray] = {
        "size": np.array(truth.size),
        "focal": truth.intrinsics[0, 0],
        "faces": model.faces,
        "template": model.template,
        "rest": rest,
        "vertices": posed.astype(np.float32),
        "skull": rigid_motion(rest[skull], posed[:, skull]),
    }
    arrays |= _eyes(painted, rest, posed)
    arrays |= _maps(painted)
    for name, grow in (("hair", grow_hair), ("brows", grow_brows), ("lashes", grow_lashes)):
        strands: Strands = grow(painted, rest, PERSON.seed)
        arrays |= {name: strands.points, f"{name}_faces": strands.faces, f"{name}_radius": np.array(strands.radius)}
    # The body follows the head's sway and stands still otherwise.
    body, faces, weave = sweater(rest[model.regions["boundary"]])
    arrays["body"] = (body @ camera[0, :3, :3].T + camera[0, :3, 3]).astype(np.float32)
    arrays |= {"body_faces": faces, "body_weave": weave, "sway": camera[:, :3, 3] - camera[0, :3, 3]}
    arrays["cloth"] = np.array((0.020, 0.045, 0.060))
    return arrays


def rigid_motion(rest: np.ndarray, posed: np.ndarray) -> np.ndarray:
    """(F, 4, 4): how points (P, 3) move as a whole to (F, P, 3)."""
    _, rotation, translation = fit_similarity(np.broadcast_to(rest, posed.shape), posed, with_scale=False)
    matrices = np.tile(np.eye(4), (len(posed), 1, 1))
    matrices[:, :3, :3], matrices[:, :3, 3] = rotation, translation
    return matrices


def _eyes(painted: Painted, rest: np.ndarray, posed: np.ndarray) -> dict[str, np.ndarray]:
    """Matrices (F, 2, 4, 4) of the eyeballs, their radius, and their colours as seen from the front."""
    model, matrices, radii = painted.model, [], []
    for side in (1, -1):
        members = model.regions["eyes"]
        members = members[np.sign(rest[members, 0]) == side]
        points = rest[members]
        solved = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
        centre = solved[:3]
        radii.append(np.sqrt(solved[3] + centre @ centre))
        to_centre = np.eye(4)
        to_centre[:3, 3] = centre
        matrices.append(rigid_motion(points, posed[:, members]) @ to_centre)
    radius = float(np.mean(radii))
    y, x = (np.mgrid[0:EYE_MAP_SIZE, 0:EYE_MAP_SIZE] + 0.5) / EYE_MAP_SIZE * 2 - 1
    flat = np.stack([x, -y], -1).reshape(-1, 2) * radius
    depth = np.sqrt(np.clip(radius**2 - (flat**2).sum(1), 1e-9, None))
    place = np.c_[flat, depth]
    colour = eye_surface(painted, place)
    return {
        "eyes": np.stack(matrices, 1),
        "eye_radius": np.array(radius),
        "iris_radius": np.array(IRIS_RADIUS),
        "eye_map": _bytes(colour.reshape(EYE_MAP_SIZE, EYE_MAP_SIZE, 3)),
    }


def eye_surface(painted: Painted, place: np.ndarray) -> np.ndarray:
    """(P, 3) sRGB at places on an eyeball (P, 3): `eye_colour` without its painted shadow, and with veins."""
    colour = eye_colour(painted, place + painted.eye_centres[0], shaded=False)
    radius = np.hypot(place[:, 0], place[:, 1])
    angle = np.arctan2(place[:, 1], place[:, 0])
    wander = 0.25 * value_noise(place / 0.002, 61)
    veins = np.abs(value_noise(np.stack([(angle + wander) * 9, radius / 0.006], -1), 62))
    veins = np.clip(1 - veins / 0.07, 0, 1) * np.clip((radius - 0.0068) / 0.004, 0, 1)
    fine = np.clip(1 - np.abs(value_noise(np.stack([(angle + wander) * 23, radius / 0.003], -1), 63)) / 0.08, 0, 1)
    colour = colour * (0.80 - 0.12 * np.clip((radius - 0.007) / 0.004, 0, 1))[:, None]
    redness = (0.20 * veins + 0.10 * fine * np.clip((radius - 0.0075) / 0.004, 0, 1))[:, None]
    return colour * (1 - redness * np.array([0.25, 1.0, 0.95]))


def _maps(painted: Painted) -> dict[str, np.ndarray]:
    """The skin's maps over the atlas, the corners of its triangles there (3F, 2), and each triangle's material."""
    model = painted.model
    corners = model.uv[model.uv_faces].reshape(-1, 2).astype(np.float64)
    flat = np.c_[corners[:, 0], 1 - corners[:, 1], np.ones(len(corners))]
    triangles = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    raster = rasterize_mesh(flat, triangles, np.diag([MAP_SIZE, MAP_SIZE, 1.0]), MAP_SIZE, MAP_SIZE)
    normals = vertex_normals(model.template.astype(np.float64), model.faces)
    values = np.concatenate([model.template, normals[:, 2:], painted.material], 1)[model.faces].reshape(-1, 9)
    sampled = interpolate(raster, triangles, values)
    covered = raster.covered
    place, front, material = (part.astype(np.float64) for part in np.split(sampled[covered], [3, 4], axis=1))
    colour, gloss = skin_surface(painted, place, front[:, 0], material)
    maps = {}
    for name, part in (("skin_map", colour), ("gloss_map", gloss)):
        whole = np.zeros((MAP_SIZE, MAP_SIZE, 3), np.uint8)
        whole[covered] = _bytes(part)
        maps[name] = _bled(whole, covered)
    parts = np.zeros(len(model.faces), np.int32)
    inside = mouth_parts(model)
    for number, name in ((1, "teeth"), (2, "tongue"), (3, "wall")):
        parts[np.isin(model.faces, inside[name]).all(1)] = number
    parts[np.isin(model.faces, model.regions["eyes"]).all(1)] = 4
    return maps | {"uv": corners, "parts": parts}


def skin_surface(
    painted: Painted, place: np.ndarray, front: np.ndarray, material: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Colours (P, 3) sRGB, and (P, 3) of roughness, strength of the reflection and 0, at places of the template."""
    facing = np.clip(front * 4, 0, 1)
    skin, lips, near_nose = bare_skin(painted, place, facing)
    skin *= 1 + 0.055 * fractal_noise(place / 0.009, 3, 71)[:, None] * np.array([0.3, 1.0, 0.9])
    skin *= 1 + 0.030 * value_noise(place / 0.0022, 72)[:, None] * np.array([0.5, 1.0, 1.0])
    # The forehead is yellower, the lower face cooler, as blood and beard make them.
    height = np.clip((place[:, 1] - 0.045) / 0.03, 0, 1)[:, None]
    skin *= 1 + height * np.array([0.01, 0.02, -0.04])
    ears = np.clip((np.abs(place[:, 0]) - 0.072) / 0.012, 0, 1) * np.clip(1 - np.abs(place[:, 1]) / 0.04, 0, 1)
    skin *= 1 - 0.16 * ears[:, None] * np.array([0.0, 1.0, 0.8])
    for centre in painted.eye_centres:
        lids = np.exp(-np.square(np.linalg.norm(place[:, :2] - centre[:2], axis=1) / 0.017))[:, None]
        skin *= 1 - 0.06 * lids * (place[:, 2:] > 0) * np.array([0.5, 1.0, 0.75])
    random = np.random.default_rng(painted.appearance.seed)
    for x, y, size, dark in zip(
        random.uniform(-0.06, 0.06, 7),
        random.uniform(-0.09, 0.09, 7),
        random.uniform(0.0006, 0.0012, 7),
        random.uniform(0.15, 0.45, 7),
        strict=True,
    ):
        mole = np.exp(-((place[:, 0] - x) ** 2 + (place[:, 1] - y) ** 2) / size**2) * facing
        skin *= 1 - dark * mole[:, None] * np.array([0.7, 1.0, 1.0])
    beard = beard_cover(painted, place, facing)[:, None]
    skin *= 1 - painted.appearance.stubble * 1.0 * beard * np.array([0.20, 0.13, 0.08])
    roots = np.clip(0.75 * hair_growth(painted, place)[0] * (1 - material[:, 4]), 0, 1)[:, None]
    roots = np.maximum(roots, 0.30 * np.clip(brow_cover(painted, place) * facing, 0, 1)[:, None])
    skin = skin * (1 - roots) + np.array(painted.appearance.hair) * 1.1 * roots
    colour, _ = with_mouth(skin, lips, place, material)
    rough = 0.50 + 0.05 * value_noise(place / 0.006, 73) - 0.13 * near_nose - 0.14 * lips
    shine = 0.42 + 0.10 * near_nose + 0.12 * lips - 0.20 * beard[:, 0]
    return colour.clip(0, 1), np.stack([rough, shine, np.zeros_like(rough)], 1).clip(0, 1)


def _bled(pixels: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """The map with its colours carried over the edges of the atlas's islands."""
    known = covered.astype(np.float32)
    blurred = cv2.GaussianBlur(pixels.astype(np.float32) * known[..., None], (0, 0), 4)
    weight = cv2.GaussianBlur(known, (0, 0), 4)[..., None]
    return np.where(covered[..., None], pixels, (blurred / np.maximum(weight, 1e-6)).clip(0, 255).astype(np.uint8))


def _bytes(colour: np.ndarray) -> np.ndarray:
    return (colour.clip(0, 1) * 255).round().astype(np.uint8)
