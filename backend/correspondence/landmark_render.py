"""Simple renders of a head model for the detector: lit skin with dark irises, lips and brows, nothing more.

The detector works on plain shaded geometry already, but it finds eyelids, irises, lips and brows by their colour, so
these are painted. The paint is projected onto the template from the front (x, y), which for a face is as good as a uv
map and exists for every head model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from ..head.eye_size import IRIS_RADIUS, PUPIL_RADIUS
from ..head.forward import vertex_normals
from ..head.model import HeadModel
from ..splatting.mesh import MeshRaster, interpolate
from .landmark_sets import BROW_EDGES, OUTER_LIPS

_STEP = 0.0005
_CANVAS = 480
"""Cells of half a millimetre along each side of the paint's image, which is centred on the template."""

_LIPS = np.array([0.66, 0.34, 0.33])
_BROWS = np.array([0.25, 0.17, 0.12])
_EYE_WHITE = np.array([0.88, 0.87, 0.86])
_IRIS = np.array([0.28, 0.19, 0.12])
_MOUTH_INSIDE = np.array([0.24, 0.10, 0.10])
_PUPIL = np.array([0.03, 0.03, 0.03])


@dataclass(frozen=True)
class FacePaint:
    centre: np.ndarray
    """(2,) metres: x, y of the canvas' centre on the template."""
    eye_centres: np.ndarray
    """(E, 2) x, y of the eyeballs."""
    eye_vertices: np.ndarray
    """(N,) bool."""
    mouth_vertices: np.ndarray
    """(N,) bool: the inside of the mouth, which is dark."""
    lips: np.ndarray
    """(_CANVAS, _CANVAS) coverage in [0, 1]; rows run upwards in y."""
    brows: np.ndarray

    @staticmethod
    def plain(model: HeadModel) -> FacePaint:
        """Irises and a dark mouth, where the head model has these regions."""
        eyes, mouth = np.zeros((2, len(model.template)), bool)
        eyes[model.regions["eyes"]] = True
        mouth[model.regions["mouth_inside"]] = True
        sides = [eyes & side for side in (model.template[:, 0] > 0, model.template[:, 0] <= 0)]
        centres = [(model.template[s, :2].min(0) + model.template[s, :2].max(0)) / 2 for s in sides if s.any()]
        whole = (model.template.min(0) + model.template.max(0))[:2] / 2
        centre = np.mean(centres, 0) + [0, -0.03] if centres else whole
        blank = np.zeros((_CANVAS, _CANVAS), np.float32)
        return FacePaint(centre, np.array(centres).reshape(-1, 2), eyes, mouth, blank, blank)

    def with_features(self, points: np.ndarray) -> FacePaint:
        """The paint with lips and brows added at landmarks (478, 3) on the template; NaN landmarks are left out."""
        lips = self._polygon(points[OUTER_LIPS])
        brows = sum(
            self._polygon(np.concatenate([points[upper], points[lower][::-1]])) for upper, lower in BROW_EDGES.values()
        )
        return replace(self, lips=lips, brows=np.minimum(brows, 1))

    def _polygon(self, points: np.ndarray) -> np.ndarray:
        canvas = np.zeros((_CANVAS, _CANVAS), np.float32)
        points = points[~np.isnan(points).any(1), :2]
        if len(points) >= 3:
            cv2.fillPoly(canvas, [np.round(self.cells(points) * 16).astype(np.int32)], 1.0, cv2.LINE_AA, 4)
        return cv2.GaussianBlur(canvas, (0, 0), 1.2)

    def cells(self, positions: np.ndarray) -> np.ndarray:
        """Positions (..., 2) in metres on the template -> cells of a canvas."""
        return (positions - self.centre) / _STEP + _CANVAS / 2

    def sample(self, canvas: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Coverage at positions (H, W, 2), in metres on the template."""
        cells = (self.cells(positions) - 0.5).astype(np.float32)
        return cv2.remap(canvas, cells[..., 0], cells[..., 1], cv2.INTER_LINEAR)


def shade(
    model: HeadModel,
    vertices_camera: np.ndarray,
    raster: MeshRaster,
    paint: FacePaint,
    light: np.ndarray,
    skin: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Shade a rasterised head with a key light.

    Returns the image (H, W, 3) uint8, and the cosine between each pixel's surface normal and the viewing direction (H,
    W), zero where there is no surface. `light` (3,) points to the key light in camera space, `skin` (3,) is sRGB.
    """
    normals = _vertex_normals(vertices_camera, model.faces)
    rest_normals = _vertex_normals(model.template, model.faces)
    attributes = np.concatenate(
        [
            normals,
            model.template,
            vertices_camera,
            rest_normals[:, 2:],
            paint.eye_vertices[:, None],
            paint.mouth_vertices[:, None],
        ],
        1,
    )
    values = interpolate(raster, model.faces, attributes)
    normal, rest, position = values[..., :3], values[..., 3:6], values[..., 6:9]
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-9
    view = -position / (np.linalg.norm(position, axis=-1, keepdims=True) + 1e-9)
    facing = (normal * view).sum(-1)

    colour = np.broadcast_to(skin, normal.shape).astype(np.float32)
    front = np.clip(values[..., 9] * 4, 0, 1)
    for canvas, pigment in ((paint.lips, _LIPS), (paint.brows, _BROWS)):
        cover = (paint.sample(canvas, rest[..., :2]) * front)[..., None]
        colour = colour * (1 - cover) + pigment * cover
    eye = values[..., 10] > 0.99
    colour[values[..., 11] > 0.99] = _MOUTH_INSIDE
    if len(paint.eye_centres):
        radius = np.min([np.linalg.norm(rest[..., :2] - centre, axis=-1) for centre in paint.eye_centres], 0)
        colour[eye] = _EYE_WHITE
        at_front = eye & (values[..., 9] > 0)
        colour[at_front & (radius < IRIS_RADIUS)] = _IRIS
        colour[at_front & (radius < PUPIL_RADIUS)] = _PUPIL

    lambert = np.clip((normal * light).sum(-1), 0, None)
    intensity = 0.38 + 0.22 * np.clip(facing, 0, None) + 0.5 * lambert
    height = raster.face_index.shape[0]
    background = np.linspace(0.62, 0.45, height)[:, None, None] * np.ones((1, raster.face_index.shape[1], 3))
    image = np.where(raster.covered[..., None], colour * intensity[..., None], background)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), facing


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`vertex_normals` of one mesh in numpy, (N, 3) float64. Camera space is a rotation of head space, so they point
    outwards there as well.
    """
    return vertex_normals(torch.from_numpy(vertices)[None].double(), torch.from_numpy(faces))[0].numpy()
