"""The light on a tracked head, estimated from its capture (`observe.light_fit`).

It is computed when it is asked for and stored nowhere, so that captures and tracks of any version have one. One light
holds for a whole clip, fixed to the camera: in footage of a standing camera, to the room.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ...errors import EffigyError
from ...formats.capture import Capture, read_frame, read_matte
from ...formats.image_files import srgb_to_linear
from ...formats.track import Track
from ...head.forward import Head, vertex_normals
from ...head.model import NECK, HeadModel
from ...progress import SILENT, Progress
from ...splatting.mesh import rasterize_mesh
from ..observe.light_fit import HeadLight, SkinBrightness, fit_light
from ..observe.skin_samples import make_skin
from .camera_vertices import camera_vertices

MOST_FRAMES: Final = 12
"""Frames that are looked at, with head poses as different as possible."""
_SIDE: Final = 256
"""Pixels of the images."""
_EVERY: Final = 4
"""Of the tracker's samples of the skin."""
_BLUR: Final = 1.5
"""Pixels, so that pores and noise do not count."""
_FACING: Final = 0.25, 0.6
"""Cosine between normal and viewing direction up to which a sample has no weight, and from which on it has all."""
_TOLERANCE: Final = 0.006
"""Metres that a sample may lie behind the z-buffer's surface."""
_CLIPPED: Final = 250
"""Values of 255 that are as bright as the camera could record."""
_ALIKE: Final = np.radians(8.0)
"""Head poses that differ by less tell the same of the light."""
_FEWEST: Final = 200
"""Samples that must be visible."""


def estimate_light(capture: Capture, track: Track, model: HeadModel, progress: Progress = SILENT) -> HeadLight:
    """The light on the tracked head. Raises an `EffigyError` where its skin is not seen."""
    good = np.flatnonzero(track.flags == 0)
    if not len(good):
        raise EffigyError(f"No frame of {capture.folder} is tracked reliably, so its light cannot be found.")
    turns = Rotation.from_matrix(track.head_to_camera[good, :3, :3]) * Rotation.from_rotvec(track.rotations[good, NECK])
    chosen = _different(turns)
    angles = np.array([(turns[int(one)].inv() * turns).magnitude()[chosen] for one in chosen])
    shares = 1 / np.exp(-((angles / _ALIKE) ** 2)).sum(1)
    head, skin = Head(model), make_skin(model)
    corners, barycentric = skin.corners[::_EVERY], skin.barycentric[::_EVERY]
    colors, normals, weights = [], [], []
    for done, (index, share) in enumerate(zip(good[chosen], shares, strict=True)):
        progress.update("head light", done, len(chosen))
        progress.raise_if_cancelled()
        vertices = camera_vertices(head, track, range(int(index), int(index) + 1))[0]
        color, normal, weight = _sampled(capture, int(index), track, vertices, model.faces, corners, barycentric)
        colors.append(color)
        normals.append(normal)
        weights.append(weight * share)
    seen = SkinBrightness(np.stack(colors), np.stack(normals), np.stack(weights))
    if (seen.weight > 0).sum() < _FEWEST:
        raise EffigyError(
            f"Too little of the face is seen in {capture.folder} to find its light: it is too small, too dark or "
            "overexposed."
        )
    return fit_light(seen)


def _different(turns: Rotation) -> np.ndarray:
    """Indices of at most `MOST_FRAMES` rotations, by farthest-point sampling."""
    chosen = [0]
    distance = np.full(len(turns), np.inf)
    while len(chosen) < min(MOST_FRAMES, len(turns)):
        distance = np.minimum(distance, (turns[chosen[-1]].inv() * turns).magnitude())
        chosen.append(int(distance.argmax()))
    return np.array(chosen)


def _sampled(
    capture: Capture,
    index: int,
    track: Track,
    vertices: np.ndarray,
    faces: np.ndarray,
    corners: np.ndarray,
    barycentric: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Linear colours (D, 3), normals (D, 3) and weights (D,) of the samples in frame `index`, where the head has these
    vertices (N, 3) in camera space.
    """
    scale = _SIDE / track.size
    intrinsics = track.intrinsics.astype(np.float64) * np.array([[scale], [scale], [1.0]])
    across = vertex_normals(torch.as_tensor(vertices)[None], torch.as_tensor(faces.astype(np.int64)))[0].numpy()
    points, normals = (np.einsum("dk,dkc->dc", barycentric, values[corners]) for values in (vertices, across))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-6)
    facing = -(normals * points).sum(1) / np.linalg.norm(points, axis=1)
    pixels = points @ intrinsics.T
    pixels = pixels[:, :2] / np.maximum(pixels[:, 2:], 0.05)
    cell = pixels.astype(int).clip(0, _SIDE - 1)
    depth = rasterize_mesh(vertices, faces, intrinsics, _SIDE, _SIDE).depth
    weight = ((facing - _FACING[0]) / (_FACING[1] - _FACING[0])).clip(0, 1)
    weight *= ((pixels > 0) & (pixels < _SIDE)).all(1)
    weight *= points[:, 2] < depth[cell[:, 1], cell[:, 0]] + _TOLERANCE
    weight *= read_matte(capture, index, _SIDE)[cell[:, 1], cell[:, 0]] > 200
    image = read_frame(capture, index, _SIDE)
    weight *= image.max(-1)[cell[:, 1], cell[:, 0]] < _CLIPPED
    light = cv2.GaussianBlur(srgb_to_linear(image.astype(np.float32) / 255), (0, 0), _BLUR)
    return light[cell[:, 1], cell[:, 0]], normals, weight
