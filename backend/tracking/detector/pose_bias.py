"""The face detector's habits, taken out of its points before they are believed.

The detector draws a mean face's depth into every picture: with the head turned or nodded its points lie some millimetres
beside their places, the same way for everybody. `assets/derive/landmark_bias.py` measures that on rendered people; here it is
looked up for how the head is turned and subtracted. Nothing is learned from the clip, so nothing of the clip is explained away.

How the head is turned is what the points shall tell, so the solver looks the habits up anew in every iteration. With those of
its first guess, whose pitch errs by degrees, rendered heads nodded a degree too far.
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
_CHUNK = 512
"""Frames at a time: a long clip needs no more memory than its landmarks."""
_OWN_RIDGE = 2.0, 4.0
"""Frames' worth of belief that the detector has no habits with one person but everybody's: the same in all views, and else."""
_MEASURED = np.sin(np.radians((62.0, 24.0)))
"""How far the measured heads turned and nodded; beyond, the error is taken to stay as it is there."""


def features(direction: Tensor) -> Tensor:
    """(F, FEATURES): a cubic in the viewer's direction (F, 3) in head space."""
    x, y = (direction[:, axis].clamp(-limit, limit) for axis, limit in enumerate(_MEASURED))
    return torch.stack((torch.ones_like(x), x, y, x * x, x * y, y * y, x**3, x * x * y, x * y * y, y**3), 1)


def head_frame(rotation: Tensor, translation: Tensor, focal: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """Of poses (F, 3, 3), (F, 3): the viewer's direction in head space (F, 3), the picture's axes across and along the head
    (F, 2, 2), and metres per pixel at the head (F,)."""
    towards = -torch.nn.functional.normalize(translation, dim=1)
    direction = (towards.unsqueeze(1) @ rotation).squeeze(1)
    along = torch.nn.functional.normalize(rotation[:, :2, 1], dim=1, eps=1e-6)
    return direction, torch.stack((torch.stack((-along[:, 1], along[:, 0]), 1), along), 1), translation[:, 2] / focal


@cache
def _table() -> np.ndarray:
    with np.load(asset_path("models/landmark_bias.npz"), allow_pickle=False) as archive:
        return archive["metres"].astype(np.float64)


def habits_of(points: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(FEATURES, L, 2) float32 metres: what is known of these of the detector's points."""
    return torch.as_tensor(_table()[:, points], dtype=torch.float32, device=device)


def bias_at(habits: Tensor, rotation: Tensor, translation: Tensor, focal: Tensor | float) -> Tensor:
    """(F, L, 2) pixels by which points with these habits (FEATURES, L, 2) lie beside their places on heads with the poses
    (F, 3, 3), (F, 3)."""
    direction, axes, scale = head_frame(rotation, translation, focal)
    metres = (features(direction) @ habits.flatten(1)).unflatten(1, (-1, 2))
    return metres @ (axes / scale[:, None, None])


def own_habits(error: Tensor, weight: Tensor, rotation: Tensor, translation: Tensor, focal: Tensor) -> Tensor:
    """(FEATURES, L, 2) metres: what errors (F, L, 2) in pixels, trusted by `weight` (F, L), of heads that stand so and whose poses
    other evidence told, say of the detector's habits with one person. What is the same in all views is soon believed, what
    changes with the view late."""
    direction, axes, scale = head_frame(rotation, translation, focal)
    metres = error @ (axes * scale[:, None, None]).transpose(1, 2)
    seen = features(direction)
    weighted = weight.T.unsqueeze(-1) * seen
    ridge = torch.full((FEATURES,), _OWN_RIDGE[1], device=error.device)
    ridge[0] = _OWN_RIDGE[0]
    return torch.linalg.solve(
        seen.T @ weighted + torch.diag(ridge), weighted.transpose(1, 2) @ metres.transpose(0, 1)
    ).transpose(0, 1)


def without_bias(landmarks: np.ndarray, rotation: np.ndarray, translation: np.ndarray, focal: float) -> np.ndarray:
    """Points (F, 478, 3) in pixels as an unbiased detector would see them, for heads that stand about so."""
    corrected = landmarks.copy()
    for start in range(0, len(corrected), _CHUNK):
        part = slice(start, start + _CHUNK)
        corrected[part, :, :2] -= bias_of(rotation[part], translation[part], focal)
    return corrected


def bias_of(rotation: np.ndarray, translation: np.ndarray, focal: float) -> np.ndarray:
    """(F, 478, 2) float32 pixels by which the detector's points lie beside their places."""
    pose = (torch.as_tensor(np.asarray(part, np.float64)) for part in (rotation, translation))
    return bias_at(torch.as_tensor(_table()), *pose, focal).numpy().astype(np.float32)


def unbiased_landmarks(track: Track, landmarks: np.ndarray) -> np.ndarray:
    """The same for heads as a track has them."""
    neck = Rotation.from_rotvec(track.rotations[:, 1]).as_matrix()
    pose = track.head_to_camera.astype(np.float64)
    return without_bias(landmarks, pose[:, :3, :3] @ neck, pose[:, :3, 3], float(track.intrinsics[0, 0]))
