"""Sizes of the human eye, which differ little between people, and the whites of a head's eyes."""

from __future__ import annotations

import numpy as np

from .model import EYE_L, EYE_R, HeadModel

IRIS_RADIUS = 0.0059
"""Metres."""
PUPIL_RADIUS = 0.0022
"""Metres, in ordinary light."""
WHITE_FROM = 1.35
"""Distance of a vertex from the axis of its eyeball at which white begins, in radii of the iris. At smaller ones a
Gaussian of the eyeball still shows some of the iris."""


def eye_whites(model: HeadModel) -> np.ndarray:
    """(W,) vertices of both eyeballs outside the irises; none for a head model without eyeballs."""
    eyes = np.asarray(model.regions["eyes"], dtype=int)
    centres = model.joint_regressor[[EYE_L, EYE_R]].astype(np.float64) @ model.template
    offsets = model.template[eyes] - centres[:, None]
    own = np.linalg.norm(offsets, axis=2).argmin(0)
    offset = offsets[own, np.arange(len(eyes))]
    return eyes[(np.hypot(offset[:, 0], offset[:, 1]) > WHITE_FROM * IRIS_RADIUS) | (offset[:, 2] < 0)]
