"""Landmark embedding: the positions of the detector's 478 landmarks on a head model's surface, from renders of it.

A tracker compares detected landmarks with points of the rig, so it must know which point of the rig landmark 61 is. For
FLAME 105 landmarks were embedded by hand; other heads have no embedding. Here the head is rendered with known cameras,
identities and lights, the detector runs on the images, and each landmark is carried back through its pixel to the
triangle that the pixel shows. Over many images the positions on the surface are averaged robustly. The result includes
the detector's systematic error on this very surface, which is what a tracker needs.

Positions are averaged on one reference surface: the template with its mouth slightly open, if it can be opened, because
on a closed mouth the inner edges of both lips coincide and cannot be distinguished.
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
from ..head.closest_point import closest_on_mesh
from ..head.forward import Head
from ..head.model import JAW, LANDMARK_COUNT, HeadModel
from ..progress import SILENT, Progress
from ..splatting.mesh import interpolate, rasterize_mesh
from .landmark_render import FacePaint, shade
from .landmark_sets import FACE_OVAL, INNER_LIPS, IRIS_MIRROR, SURFACE_COUNT

IMAGE_SIZE = 512
_DISTANCE = 0.7
_FOCAL = 830.0
_MAX_PIXELS = 8
"""Pixels (about 0.8 mm each) within which a landmark beside the skin is moved onto it: eyelid edges over the eyeball,
lip edges over the open mouth."""
_CONTOUR_YAW = np.radians(8)
_MOUTH_OPENING = 0.16
"""Radians of the jaw in half of the images and on the reference surface."""
_MAX_SPREAD = 0.006
"""Metres. Unless half of a landmark's detections lie within this distance of their mean, it has no position on the
surface."""


@dataclass(frozen=True)
class _View:
    """One image to render."""

    vertices: np.ndarray
    """(N, 3) camera space."""
    yaw: float
    opened: bool
    light: np.ndarray
    """(3,) towards the key light, camera space."""
    skin: np.ndarray
    """(3,) sRGB."""


def embed_landmarks(
    model: HeadModel, images: int = 72, seed: int = 0, progress: Progress = SILENT
) -> tuple[np.ndarray, np.ndarray]:
    """The triangles (478,) int32 (-1 for no consistent position) and barycentric coordinates (478, 3) float32 of
    landmarks.

    It takes about 40 ms per image. A first round on a plain face roughly locates lips and brows; the second round
    paints them and gives the result. The result is made symmetric if the template is.
    """
    surface = _Surface(model)
    paint = FacePaint.plain(model)
    detector = FaceDetector()
    try:
        rounds = ((max(8, images // 6), 0.0), (images, 0.7))
        total, done = sum(count for count, _ in rounds), 0
        for count, deviation in rounds:
            detections = _Detections()
            for view in _views(surface, count, deviation, np.random.default_rng(seed)):
                _detect(surface, view, paint, detector, detections)
                done += 1
                progress.update("landmarks", done, total)
                progress.raise_if_cancelled()
            points = surface.symmetrised(_aggregate(detections))
            paint = paint.with_features(surface.to_rest(points))
    finally:
        detector.close()
    return surface.nearest(points)


class _Surface:
    """The reference surface, and queries on it."""

    def __init__(self, model: HeadModel) -> None:
        self.model = model
        self.head = Head(model)
        self.can_open = bool((model.skinning[:, JAW] > 0.5).any())
        self.opening = _MOUTH_OPENING if self.can_open else 0.0
        self.reference = self.posed(np.zeros(model.shape_basis.shape[2]), self.opening)
        self.is_eye = _faces_within(model, "eyes")
        self.is_skin = ~self.is_eye & ~_faces_within(model, "mouth_inside")
        self.was_visible = np.zeros(len(model.faces), bool)
        """(F,) bool: triangles that some image showed."""
        eyes = model.regions["eyes"]
        central = model.template[eyes] if len(eyes) else model.template
        low, high = central.min(0), central.max(0)
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
        """Points near the reference surface -> the same surface points on the template."""
        faces, barycentric = self.nearest(points)
        corners = self.model.template[self.model.faces[np.maximum(faces, 0)]]
        return np.where(faces[:, None] >= 0, (corners * barycentric[..., None]).sum(1), np.nan)

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The triangle (478,) and barycentric coordinates (478, 3) closest to each landmark (478, 3).

        Landmarks of the skin are embedded in skin that some image showed, those of the irises in the eyeballs.
        """
        result = np.full(LANDMARK_COUNT, -1, np.int32)
        barycentric = np.zeros((LANDMARK_COUNT, 3), np.float32)
        irises = np.arange(LANDMARK_COUNT) >= SURFACE_COUNT
        for wanted, allowed in ((~irises, self.is_skin & self.was_visible), (irises, self.is_eye)):
            candidates = np.flatnonzero(allowed)
            found = np.flatnonzero(wanted & ~np.isnan(points).any(1))
            if len(candidates) and len(found):
                triangles = self.reference[self.model.faces[candidates]]
                best, coordinates = closest_on_mesh(points[found], triangles)
                result[found], barycentric[found] = candidates[best], coordinates
        return result, barycentric


class _Detections:
    """Positions of landmarks on the reference surface, and their weights, one entry per image."""

    def __init__(self) -> None:
        self.positions: list[np.ndarray] = []
        self.weights: list[np.ndarray] = []

    def add(self, positions: np.ndarray, weights: np.ndarray) -> None:
        self.positions.append(positions)
        self.weights.append(weights)


def _views(surface: _Surface, count: int, deviation: float, random: np.random.Generator) -> Iterator[_View]:
    """Random identities, angles and lights; every third image is near-frontal, in every second the mouth is open."""
    to_camera = np.diag([1.0, -1.0, -1.0])
    components = surface.model.shape_basis.shape[2]
    for index in range(count):
        frontal = index % 3 == 0
        yaw = random.uniform(-1, 1) * (_CONTOUR_YAW if frontal else np.radians(35))
        pitch = random.uniform(-1, 1) * np.radians(6 if frontal else 16)
        opened = surface.can_open and index % 2 == 1
        identity = random.normal(0, deviation, components) if deviation and index % 4 else np.zeros(components)
        vertices = surface.posed(identity, surface.opening if opened else 0.0) - surface.centre
        rotation = Rotation.from_euler("YX", [yaw, pitch]).as_matrix()
        light = np.array([random.uniform(-0.7, 0.7), random.uniform(-0.9, -0.1), -1.0])
        skin = np.array([0.80, 0.62, 0.53]) * random.uniform(0.75, 1.1)
        in_camera = vertices @ (to_camera @ rotation).T + np.array([0, 0, _DISTANCE])
        yield _View(in_camera, yaw, opened, light / np.linalg.norm(light), skin)


def _detect(surface: _Surface, view: _View, paint: FacePaint, detector: FaceDetector, detections: _Detections) -> None:
    """Render, detect, and carry each detected landmark to the reference surface."""
    model = surface.model
    intrinsics = np.array([[_FOCAL, 0, IMAGE_SIZE / 2], [0, _FOCAL, IMAGE_SIZE / 2], [0, 0, 1]])
    raster = rasterize_mesh(view.vertices, model.faces, intrinsics, IMAGE_SIZE, IMAGE_SIZE)
    image, facing = shade(model, view.vertices, raster, paint, view.light, view.skin)
    found = detector.detect(image)
    if not found:
        return
    visible = np.where(raster.covered, raster.face_index, 0)
    surface.was_visible[np.unique(visible[raster.covered])] = True
    skin = raster.covered & surface.is_skin[visible]
    reference = interpolate(raster, model.faces, surface.reference)
    pixels = found[0].landmarks[:SURFACE_COUNT, :2]
    x, y, hit = _nearest_pixel(pixels, skin)
    positions = np.full((LANDMARK_COUNT, 3), np.nan)
    weights = np.zeros(LANDMARK_COUNT)
    positions[:SURFACE_COUNT] = reference[y, x]
    weights[:SURFACE_COUNT] = hit * np.clip(facing[y, x] - 0.2, 0, None)
    # Landmarks of the face oval lie on the silhouette, so they count in frontal views only.
    weights[FACE_OVAL] = hit[FACE_OVAL] * (abs(view.yaw) < _CONTOUR_YAW)
    if surface.can_open and not view.opened:
        weights[INNER_LIPS] = 0
    if surface.is_eye.any():
        # Irises are looked up on the eyeballs alone, since eyelids may cover part of them.
        eye_faces = model.faces[surface.is_eye]
        eyes = rasterize_mesh(view.vertices, eye_faces, intrinsics, IMAGE_SIZE, IMAGE_SIZE)
        x, y, hit = _nearest_pixel(found[0].landmarks[SURFACE_COUNT:, :2], eyes.covered)
        positions[SURFACE_COUNT:] = interpolate(eyes, eye_faces, surface.reference)[y, x]
        weights[SURFACE_COUNT:] = hit
    detections.add(positions, weights)


def _nearest_pixel(points: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X and y of the pixel of `mask` nearest to each point (P, 2), and whether there is one within _MAX_PIXELS."""
    around = np.stack(np.meshgrid(*[np.arange(-_MAX_PIXELS, _MAX_PIXELS + 1)] * 2), -1).reshape(-1, 2)
    around = around[np.argsort((around**2).sum(1), kind="stable")]
    candidates = np.floor(points).astype(int)[:, None] + around
    inside = ((candidates >= 0) & (candidates < IMAGE_SIZE)).all(-1)
    candidates = candidates.clip(0, IMAGE_SIZE - 1)
    allowed = mask[candidates[..., 1], candidates[..., 0]] & inside
    chosen = candidates[np.arange(len(points)), allowed.argmax(1)]
    return chosen[:, 0], chosen[:, 1], np.any(allowed, axis=1)


def _aggregate(detections: _Detections) -> np.ndarray:
    """(478, 3) positions on the reference surface; NaN where detections are too scattered.

    The result is the weighted mean of the detections near their weighted median.
    """
    result = np.full((LANDMARK_COUNT, 3), np.nan)
    if not detections.positions:
        return result
    positions, weights = np.stack(detections.positions), np.stack(detections.weights)
    for point in range(LANDMARK_COUNT):
        use = weights[:, point] > 0
        if use.sum() < 3:
            continue
        position, weight = positions[use, point], weights[use, point]
        median = np.array([_weighted_median(position[:, axis], weight) for axis in range(3)])
        distance = np.linalg.norm(position - median, axis=1)
        spread = _weighted_median(distance, weight)
        if spread > _MAX_SPREAD:
            continue
        near = distance <= max(2.5 * spread, 0.001)
        result[point] = np.average(position[near], axis=0, weights=weight[near])
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


def mirror_landmarks() -> np.ndarray:
    """(478,): each landmark's mirror image across the plane of symmetry, from the detector's own canonical face."""
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
