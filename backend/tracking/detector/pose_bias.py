"""The pose-dependent bias of the face detector, subtracted from its landmarks.

The detector gives every face the depth of a mean face. When the head is rotated, its landmarks therefore lie some
millimetres beside their true positions, in the same way for everybody. `assets/derive/landmark_bias.py` measures this
bias on rendered people. It is stored per landmark as a cubic polynomial in the viewing direction, in metres across and
along the head. Nothing is learned from the clip, so the correction cannot explain away anything that the clip shows.

The correction depends on the head pose, which is what the solver estimates, so the solver evaluates it anew in every
iteration. With the bias of the initial poses, whose pitch is degrees off, rendered heads nodded a degree too far.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ...assets import asset_path
from ...formats.track import Track

FEATURES = 10
"""Terms of a cubic polynomial in two variables."""
_CHUNK = 512
"""Frames at a time, so that a long clip needs no more memory than its landmarks."""
_CONSTANT_RIDGE, _VIEW_RIDGE = 2.0, 4.0
"""Ridge weights, in numbers of frames, that keep a person's own bias near zero: of its constant part, which is the same
in all views, and of its view-dependent part."""
_MEASURED = np.sin(np.radians((62.0, 24.0)))
"""How far the measured heads were turned and nodded. Beyond, the bias is taken to stay as it is there."""


def view_features(direction: Tensor) -> Tensor:
    """(F, FEATURES): the monomials of a cubic in the viewing direction (F, 3), given in head space."""
    x, y = (direction[:, axis].clamp(-limit, limit) for axis, limit in enumerate(_MEASURED))
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3), 1)


def view_frame(rotation: Tensor, translation: Tensor, focal: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """The view of heads with poses (F, 3, 3) and (F, 3).

    Returns:
        The direction to the viewer in head space (F, 3), the image axes across and along the head (F, 2, 2), and metres
        per pixel at the head (F,).

    """
    to_camera = -torch.nn.functional.normalize(translation, dim=1)
    direction = (to_camera.unsqueeze(1) @ rotation).squeeze(1)
    along = torch.nn.functional.normalize(rotation[:, :2, 1], dim=1, eps=1e-6)
    return direction, torch.stack((torch.stack((-along[:, 1], along[:, 0]), 1), along), 1), translation[:, 2] / focal


@cache
def _measured_coefficients() -> np.ndarray:
    """(FEATURES, 478, 2) metres."""
    with np.load(asset_path("models/landmark_bias.npz"), allow_pickle=False) as archive:
        return archive["metres"].astype(np.float64)


def bias_coefficients(points: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(FEATURES, L, 2) float32 metres: the measured bias of the detector's landmarks `points` (L,)."""
    return torch.as_tensor(_measured_coefficients()[:, points], dtype=torch.float32, device=device)


def bias_in_pixels(coefficients: Tensor, rotation: Tensor, translation: Tensor, focal: Tensor | float) -> Tensor:
    """(F, L, 2) pixels: the bias with `coefficients` (FEATURES, L, 2) on heads with poses (F, 3, 3) and (F, 3)."""
    direction, axes, scale = view_frame(rotation, translation, focal)
    metres = (view_features(direction) @ coefficients.flatten(1)).unflatten(1, (-1, 2))
    return metres @ (axes / scale[:, None, None])


def fit_person_bias(error: Tensor, weight: Tensor, rotation: Tensor, translation: Tensor, focal: Tensor) -> Tensor:
    """The detector's bias for one person beyond the bias for everybody, by ridge regression.

    Args:
        error: (F, L, 2) pixels by which landmarks lie beside the points of heads whose pose other terms determined.
        weight: (F, L).
        rotation: (F, 3, 3) head poses.
        translation: (F, 3).
        focal: (F,) pixels.

    Returns:
        (FEATURES, L, 2) metres. The constant part needs few frames, the view-dependent part more.

    """
    direction, axes, scale = view_frame(rotation, translation, focal)
    metres = error @ (axes * scale[:, None, None]).transpose(1, 2)
    features = view_features(direction)
    weighted = weight.T.unsqueeze(-1) * features
    ridge = torch.full((FEATURES,), _VIEW_RIDGE, device=error.device)
    ridge[0] = _CONSTANT_RIDGE
    gram = features.T @ weighted + torch.diag(ridge)
    return torch.linalg.solve(gram, weighted.transpose(1, 2) @ metres.transpose(0, 1)).transpose(0, 1)


def bias_of_poses(rotation: np.ndarray, translation: np.ndarray, focal: float) -> np.ndarray:
    """(F, 478, 2) float32 pixels: the measured bias of all landmarks on heads with poses (F, 3, 3) and (F, 3)."""
    rotations, translations = (torch.as_tensor(np.asarray(part, np.float64)) for part in (rotation, translation))
    coefficients = torch.as_tensor(_measured_coefficients())
    return bias_in_pixels(coefficients, rotations, translations, focal).numpy().astype(np.float32)


def without_bias(landmarks: np.ndarray, rotation: np.ndarray, translation: np.ndarray, focal: float) -> np.ndarray:
    """Landmarks (F, 478, 3) in pixels with the bias for these head poses subtracted; their depth is kept."""
    corrected = landmarks.copy()
    for start in range(0, len(corrected), _CHUNK):
        part = slice(start, start + _CHUNK)
        corrected[part, :, :2] -= bias_of_poses(rotation[part], translation[part], focal)
    return corrected


def unbiased_landmarks(track: Track, landmarks: np.ndarray) -> np.ndarray:
    """Landmarks (F, 478, 3) in pixels with the bias for the track's head poses subtracted."""
    neck = Rotation.from_rotvec(track.rotations[:, 1]).as_matrix()
    pose = track.head_to_camera.astype(np.float64)
    return without_bias(landmarks, pose[:, :3, :3] @ neck, pose[:, :3, 3], float(track.intrinsics[0, 0]))
