"""Where the detector's 478 points lie on a head model's surface, found by letting the detector look at renders of it.

A landmark tracker compares points that the detector sees with points of the rig, so it must know which point of the rig
the detector means by "number 61". For FLAME somebody placed 105 of them by hand; for any other head nobody did. Here
the head is rendered under known cameras, identities and lights, the detector is run on the pictures, and each point is
carried back through its pixel to the triangle that the pixel shows. Over many pictures the places on the surface are
averaged robustly. What stays is the detector's own habit on this very surface, which is just what a tracker wants.

Positions are averaged on one reference surface: the template with its mouth slightly open, where it can be opened,
since on a closed mouth the inner edges of both lips coincide and could not be told apart.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from ..assets import asset_path
from ..footage.detector import FaceDetector
from ..head.forward import Head
from ..head.model import JAW, LANDMARK_COUNT, HeadModel
from ..progress import SILENT, Progress
from ..splatting.mesh import interpolate, rasterize_mesh
from .landmark_render import FacePaint, shade

SURFACE_COUNT = 468
"""The first 468 points lie on the skin; five for each iris follow."""

FACE_OVAL = np.array(
    [
        10,
        338,
        297,
        332,
        284,
        251,
        389,
        356,
        454,
        323,
        361,
        288,
        397,
        365,
        379,
        378,
        400,
        377,
        152,
        148,
        176,
        149,
        150,
        136,
        172,
        58,
        132,
        93,
        234,
        127,
        162,
        21,
        54,
        103,
        67,
        109,
    ]
)
"""The face's contour. The detector draws it along the silhouette, wherever that lies on the skin: such a point has a
place on the surface only as seen from the front."""

INNER_LIPS = np.array([78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95])

IRIS_MIRROR = {468: 473, 469: 476, 470: 475, 471: 474, 472: 477}

SIZE = 512
_DISTANCE = 0.7
_FOCAL = 830.0
_REACH = 8
"""Pixels (about 0.8 mm each) within which a point that misses the skin may be put back on it: lid edges over the
eyeball, lip edges over the open mouth."""
_CONTOUR_YAW = np.radians(8)
_MOUTH_OPENING = 0.16
"""Radians of the jaw in half of the pictures and in the reference surface."""
_LARGEST_SPREAD = 0.006
"""Metres. Half of a point's detections must lie within this of their mean, or the point has no place on the surface."""


@dataclass(frozen=True)
class _View:
    vertices: np.ndarray
    """(N, 3) camera space."""
    yaw: float
    opened: bool
    light: np.ndarray
    """(3,) towards the key light, camera space."""
    skin: np.ndarray
    """(3,) sRGB."""


def embed_landmarks(
    model: HeadModel, pictures: int = 72, seed: int = 0, progress: Progress = SILENT
) -> tuple[np.ndarray, np.ndarray]:
    """Triangles (478,) int32 (-1: no consistent place) and barycentric coordinates (478, 3) float32 of the detector's
    points.

    About 40 ms a picture. A first round on a plain face tells roughly where lips and brows are; the second paints them
    and decides. The result is made symmetric if the template is.
    """
    surface = _Surface(model)
    paint = FacePaint.plain(model)
    detector = FaceDetector()
    try:
        rounds = ((max(8, pictures // 6), 0.0), (pictures, 0.7))
        total, done = sum(count for count, _ in rounds), 0
        for count, deviation in rounds:
            hits = _Hits()
            for view in _views(surface, count, deviation, np.random.default_rng(seed)):
                _look(surface, view, paint, detector, hits)
                done += 1
                progress.update("landmarks", done, total)
                progress.raise_if_cancelled()
            points = surface.symmetrised(_aggregate(hits))
            paint = paint.with_features(surface.to_rest(points))
    finally:
        detector.close()
    return surface.nearest(points)


class _Surface:
    """The reference surface and what is asked of it."""

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        self.head = Head(model)
        self.can_open = bool((model.skinning[:, JAW] > 0.5).any())
        self.opening = _MOUTH_OPENING if self.can_open else 0.0
        self.reference = self.posed(np.zeros(model.shape_basis.shape[2]), self.opening)
        self.is_eye = _faces_within(model, "eyes")
        self.is_skin = ~self.is_eye & ~_faces_within(model, "mouth_inside")
        self.seen = np.zeros(len(model.faces), bool)
        eyes = model.regions["eyes"]
        middle = model.template[eyes] if len(eyes) else model.template
        low, high = middle.min(0), middle.max(0)
        self.centre = (low + high) / 2 + (np.array([0, -0.03, -0.03]) if len(eyes) else 0)

    def posed(self, identity: np.ndarray, jaw: float) -> np.ndarray:
        rotations = torch.zeros(1, 5, 3)
        rotations[0, JAW, 0] = jaw
        expression = torch.zeros(1, self.head.expression_size)
        with torch.no_grad():
            shape = torch.as_tensor(identity, dtype=torch.float32)[None]
            return self.head(shape, expression, rotations).vertices[0].numpy().astype(np.float64)

    def symmetrised(self, points: np.ndarray) -> np.ndarray:
        """(478, 3) averaged with their mirror image, if the template is its own mirror image."""
        mirror = np.array([-1.0, 1.0, 1.0])
        distance = KDTree(self.reference).query(self.reference * mirror)[0]
        if np.percentile(distance, 90) > 0.0015:
            return points
        mirrored = points[mirror_landmarks()] * mirror
        return np.where(np.isnan(points) | np.isnan(mirrored), np.nan, (points + mirrored) / 2)

    def to_rest(self, points: np.ndarray) -> np.ndarray:
        """Points near the reference surface -> the same places on the template."""
        faces, barycentric = self.nearest(points)
        corners = self.model.template[self.model.faces[np.maximum(faces, 0)]]
        return np.where(faces[:, None] >= 0, (corners * barycentric[..., None]).sum(1), np.nan)

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(478,) triangle and (478, 3) barycentric coordinates nearest to each point: skin that was ever seen for the
        skin's points, eyeballs for the irises.
        """
        result = np.full(LANDMARK_COUNT, -1, np.int32)
        barycentric = np.zeros((LANDMARK_COUNT, 3), np.float32)
        irises = np.arange(LANDMARK_COUNT) >= SURFACE_COUNT
        for wanted, allowed in ((~irises, self.is_skin & self.seen), (irises, self.is_eye)):
            candidates = np.flatnonzero(allowed)
            found = np.flatnonzero(wanted & ~np.isnan(points).any(1))
            if len(candidates) and len(found):
                triangles = self.reference[self.model.faces[candidates]]
                best, coordinates = nearest_on_triangles(points[found], triangles)
                result[found], barycentric[found] = candidates[best], coordinates
        return result, barycentric


class _Hits:
    """What was found on the reference surface for each point: positions and weights."""

    def __init__(self) -> None:
        self.positions: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []

    def add(self, positions: np.ndarray, weights: np.ndarray) -> None:
        self.positions.append(positions)
        self.weights.append(weights)


def _views(surface: _Surface, count: int, deviation: float, random: np.random.Generator) -> Iterator[_View]:
    """Random identities, angles and lights; every third picture is near-frontal, every second has its mouth open."""
    to_camera = np.diag([1.0, -1.0, -1.0])
    components = surface.model.shape_basis.shape[2]
    for index in range(count):
        frontal = index % 3 == 0
        yaw = random.uniform(-1, 1) * (_CONTOUR_YAW if frontal else np.radians(35))
        pitch = random.uniform(-1, 1) * np.radians(6 if frontal else 16)
        opened = surface.can_open and index % 2 == 1
        identity = random.normal(0, deviation, components) if deviation and index % 4 else np.zeros(components)
        vertices = surface.posed(identity, surface.opening if opened else 0.0) - surface.centre
        turn = Rotation.from_euler("YX", [yaw, pitch]).as_matrix()
        light = np.array([random.uniform(-0.7, 0.7), random.uniform(-0.9, -0.1), -1.0])
        skin = np.array([0.80, 0.62, 0.53]) * random.uniform(0.75, 1.1)
        placed = vertices @ (to_camera @ turn).T + np.array([0, 0, _DISTANCE])
        yield _View(placed, yaw, opened, light / np.linalg.norm(light), skin)


def _look(surface: _Surface, view: _View, paint: FacePaint, detector: FaceDetector, hits: _Hits) -> None:
    """Render, detect, and carry each detected point to the reference surface."""
    model = surface.model
    intrinsics = np.array([[_FOCAL, 0, SIZE / 2], [0, _FOCAL, SIZE / 2], [0, 0, 1]])
    raster = rasterize_mesh(view.vertices, model.faces, intrinsics, SIZE, SIZE)
    picture, facing = shade(model, view.vertices, raster, paint, view.light, view.skin)
    found = detector.detect(picture)
    if not found:
        return
    visible = np.where(raster.covered, raster.face_index, 0)
    surface.seen[np.unique(visible[raster.covered])] = True
    skin = raster.covered & surface.is_skin[visible]
    reference = interpolate(raster, model.faces, surface.reference)
    pixels = found[0].landmarks[:SURFACE_COUNT, :2]
    x, y, hit = _nearest_pixel(pixels, skin)
    positions = np.full((LANDMARK_COUNT, 3), np.nan)
    weights = np.zeros(LANDMARK_COUNT)
    positions[:SURFACE_COUNT] = reference[y, x]
    weights[:SURFACE_COUNT] = hit * np.clip(facing[y, x] - 0.2, 0, None)
    # A contour point lies where the surface turns away, and counts from the front only.
    weights[FACE_OVAL] = hit[FACE_OVAL] * (abs(view.yaw) < _CONTOUR_YAW)
    if surface.can_open and not view.opened:
        weights[INNER_LIPS] = 0
    if surface.is_eye.any():
        # Irises are looked up on the eyeballs alone, since a lid may cover a part of them.
        eye_faces = model.faces[surface.is_eye]
        eyes = rasterize_mesh(view.vertices, eye_faces, intrinsics, SIZE, SIZE)
        x, y, hit = _nearest_pixel(found[0].landmarks[SURFACE_COUNT:, :2], eyes.covered)
        positions[SURFACE_COUNT:] = interpolate(eyes, eye_faces, surface.reference)[y, x]
        weights[SURFACE_COUNT:] = hit
    hits.add(positions, weights)


def _nearest_pixel(points: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixel of `mask` nearest to each point (P, 2), x and y, and whether there is one within reach."""
    around = np.stack(np.meshgrid(*[np.arange(-_REACH, _REACH + 1)] * 2), -1).reshape(-1, 2)
    around = around[np.argsort((around**2).sum(1), kind="stable")]
    candidates = np.floor(points).astype(int)[:, None] + around
    inside = ((candidates >= 0) & (candidates < SIZE)).all(-1)
    candidates = candidates.clip(0, SIZE - 1)
    allowed = mask[candidates[..., 1], candidates[..., 0]] & inside
    chosen = candidates[np.arange(len(points)), allowed.argmax(1)]
    return chosen[:, 0], chosen[:, 1], np.any(allowed, axis=1)


def _aggregate(hits: _Hits) -> np.ndarray:
    """(478, 3) places in the reference's space: weighted mean of what lies near the weighted median; NaN if too
    scattered.
    """
    result = np.full((LANDMARK_COUNT, 3), np.nan)
    if not hits.positions:
        return result
    positions, weights = np.stack(hits.positions), np.stack(hits.weights)
    for point in range(LANDMARK_COUNT):
        use = weights[:, point] > 0
        if use.sum() < 3:
            continue
        place, weight = positions[use, point], weights[use, point]
        middle = np.array([_weighted_median(place[:, axis], weight) for axis in range(3)])
        distance = np.linalg.norm(place - middle, axis=1)
        spread = _weighted_median(distance, weight)
        if spread > _LARGEST_SPREAD:
            continue
        near = distance <= max(2.5 * spread, 0.001)
        result[point] = np.average(place[near], axis=0, weights=weight[near])
    return result


def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])


def _faces_within(model: HeadModel, region: str) -> np.ndarray:
    """(F,) bool: triangles with all corners in the region."""
    inside = np.zeros(len(model.template), bool)
    inside[model.regions[region]] = True
    return np.all(inside[model.faces], axis=1)


def nearest_on_triangles(points: np.ndarray, triangles: np.ndarray, among: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """For each of the points (P, 3) the nearest of the triangles (T, 3, 3), and its barycentric coordinates (P, 3).

    Only the `among` triangles with the nearest centroids are tried: enough where neighbouring triangles are of similar
    size.
    """
    among = min(among, len(triangles))
    near = KDTree(triangles.mean(1)).query(points, among)[1].reshape(len(points), among)
    a, b, c = (triangles[near, corner] for corner in range(3))
    coordinates = _closest_barycentric(points[:, None], a, b, c)
    closest = coordinates[..., :1] * a + coordinates[..., 1:2] * b + coordinates[..., 2:] * c
    best = np.linalg.norm(closest - points[:, None], axis=-1).argmin(1)
    row = np.arange(len(points))
    return near[row, best], coordinates[row, best].astype(np.float32)


def _closest_barycentric(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Barycentric coordinates of the point of each triangle nearest to p: the projection if inside, else the best
    edge.
    """
    ab, ac, ap = b - a, c - a, p - a
    dot = lambda u, v: (u * v).sum(-1)
    d00, d01, d11, d20, d21 = dot(ab, ab), dot(ab, ac), dot(ac, ac), dot(ap, ab), dot(ap, ac)
    determinant = np.maximum(d00 * d11 - d01 * d01, 1e-20)
    v, w = (d11 * d20 - d01 * d21) / determinant, (d00 * d21 - d01 * d20) / determinant
    best = np.stack([1 - v - w, v, w], -1)
    outside = (best < 0).any(-1)
    distance = np.where(outside, np.inf, 0.0)
    corners = (a, b, c)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        edge = corners[j] - corners[i]
        t = (dot(p - corners[i], edge) / np.maximum(dot(edge, edge), 1e-20)).clip(0, 1)
        away = np.linalg.norm(corners[i] + t[..., None] * edge - p, axis=-1)
        better = outside & (away < distance)
        on_edge = np.zeros_like(best)
        on_edge[..., i], on_edge[..., j] = 1 - t, t
        best = np.where(better[..., None], on_edge, best)
        distance = np.where(better, away, distance)
    return best


def mirror_landmarks() -> np.ndarray:
    """(478,): each point's mirror image across the face's middle, from the detector's own canonical face."""
    with zipfile.ZipFile(asset_path("models/face_landmarker.task")) as task:
        blob = task.read("geometry_pipeline_metadata_landmarks.binarypb")
    # The canonical mesh is stored as 468 x (x, y, z, u, v) protobuf floats: tag byte 0x1d (field 3), four bytes each.
    size = SURFACE_COUNT * 5 * 5
    for start in range(len(blob) - size):
        if blob[start] == 0x1D:
            records = np.frombuffer(blob, np.uint8, size, start).reshape(-1, 5)
            if (records[:, 0] == 0x1D).all():
                break
    else:
        raise ValueError("face_landmarker.task holds no canonical face: its format has changed")
    canonical = records[:, 1:].copy().view("<f4").reshape(SURFACE_COUNT, 5)[:, :3]
    pairs = np.arange(LANDMARK_COUNT)
    pairs[:SURFACE_COUNT] = KDTree(canonical).query(canonical * [-1, 1, 1])[1]
    for left, right in IRIS_MIRROR.items():
        pairs[left], pairs[right] = right, left
    return pairs
