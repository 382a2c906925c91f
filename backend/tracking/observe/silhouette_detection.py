"""The head's silhouette in the images: the edge of the person's matte, sampled along rays from the centre of the skull.

Where the edge belongs to a shoulder, to long hair or to the border of the image, it gives no information about the
head. So only rays within a limited angle of the crown's direction are used, and only edges that run across the ray.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from ...cores import core_count
from ...formats.capture import Capture, read_matte
from ..model.camera import Camera
from ..model.frame_state import FrameState

RAYS = 96
"""Image directions in which the edge is searched."""
RAY_ANGLE = 2 * np.pi / RAYS
"""Radians between rays."""
_MAX_RADIUS = 0.2
"""Metres from the centre of the skull within which the edge is searched."""
_MIN_RADIUS = 0.05
"""Metres from the centre of the skull that always belong to the head, so that holes in the matte there are ignored."""
_MAX_ANGLE_FROM_CROWN = np.deg2rad(112.0)
"""Rays farther from the crown's direction meet jaw, neck and shoulders."""
_MAX_SLOPE = 1.5
"""Tangent of the angle between silhouette and circle beyond which the edge jumps between neighbouring rays."""
_MATTE_SIZE = 256
"""Pixels of the side at which the matte is read."""
_RADIAL_SAMPLES = 192
"""Samples of the matte along a ray, from the centre to _MAX_RADIUS."""
_SKULL_CENTRE = np.array((0.0, 0.02, -0.08), np.float32)
"""Metres from the pivot to the centre of the skull."""


@dataclass(frozen=True)
class Silhouette:
    """The detected silhouette of F frames along K rays."""

    points: Tensor
    """(F, K, 2) pixels; zero where none was found."""
    normals: Tensor
    """(F, K, 2) unit vectors across the silhouette, outwards."""
    centres: Tensor
    """(F, 2) pixels: the projected centre of the skull, from which ray k points at the angle k RAY_ANGLE."""
    weights: Tensor
    """(F, K): 1 where the silhouette is used, else 0."""

    def __getitem__(self, index: slice | Tensor) -> Silhouette:
        return Silhouette(*(value[index] for value in vars(self).values()))


def detect_silhouette(capture: Capture, state: FrameState, camera: Camera, face_found: Tensor) -> Silhouette:
    """Search the silhouette along rays from the centre of the skull, whose position comes from `state`. In frames
    without a face (`face_found` (F,) bool) all weights are 0.
    """
    device = state.face.device
    skull = state.rotation @ torch.as_tensor(_SKULL_CENTRE, device=device) + state.translation
    above = state.rotation[:, :, 1] * 0.1 + skull
    centres = camera.project(skull).cpu().numpy()
    crown = camera.project(above).cpu().numpy() - centres
    pixels_per_metre = (camera.focal / skull[:, 2]).cpu().numpy()
    found = face_found.cpu().numpy()
    angles = RAY_ANGLE * np.arange(RAYS)
    radii = np.zeros((len(state), RAYS), np.float32)

    def search(frame: int) -> None:
        if not found[frame]:
            return
        matte = read_matte(capture, frame, _MATTE_SIZE)
        factor = _MATTE_SIZE / capture.size
        # OpenCV's pixel coordinates are 0 at the centre of the first pixel, ours at its corner.
        centre = tuple(float(value) for value in centres[frame] * factor - 0.5)
        max_radius = _MAX_RADIUS * pixels_per_metre[frame] * factor
        polar = cv2.warpPolar(
            matte, (_RADIAL_SAMPLES, RAYS), centre, float(max_radius), cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS
        )
        polar = polar.astype(np.float32) / 255
        polar[:, : int(_RADIAL_SAMPLES * _MIN_RADIUS / _MAX_RADIUS)] = 1
        outside = polar < 0.5
        crossing = outside.argmax(1)
        before, after = polar[np.arange(RAYS), crossing - 1], polar[np.arange(RAYS), crossing]
        sample = crossing - 1 + (before - 0.5) / np.maximum(before - after, 1e-3)
        # warpPolar samples bin k at radius k / _RADIAL_SAMPLES of the largest radius.
        radii[frame] = np.where(outside.any(1), sample / _RADIAL_SAMPLES * max_radius / factor, 0)

    with ThreadPoolExecutor(min(4, core_count())) as pool:
        list(pool.map(search, range(len(state))))
    directions = np.stack((np.cos(angles), np.sin(angles)), -1).astype(np.float32)
    points = centres[:, None] + radii[..., None] * directions
    tangent = np.roll(points, -1, 1) - np.roll(points, 1, 1)
    normals = np.stack((tangent[..., 1], -tangent[..., 0]), -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-6)
    steepness = (normals * directions).sum(-1)
    crown_angle = np.arctan2(crown[:, 1], crown[:, 0])
    from_crown = np.abs((angles[None] - crown_angle[:, None] + np.pi) % (2 * np.pi) - np.pi)
    inside = ((points > 0.012 * capture.size) & (points < 0.988 * capture.size)).all(-1)
    complete = (radii > 0) & (np.roll(radii, 1, 1) > 0) & (np.roll(radii, -1, 1) > 0)
    weights = complete & inside & (from_crown < _MAX_ANGLE_FROM_CROWN) & (steepness > 1 / np.hypot(1, _MAX_SLOPE))
    arrays = (np.nan_to_num(points), np.nan_to_num(normals), centres, weights)
    return Silhouette(*(torch.as_tensor(array, dtype=torch.float32, device=device) for array in arrays))
