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
    found = []
    for joint in (EYE_L, EYE_R):
        eyeball = np.flatnonzero(model.skinning[:, joint] > 0.5)
        offset = model.template[eyeball] - model.joint_regressor[joint].astype(np.float64) @ model.template
        from_axis = np.hypot(offset[:, 0], offset[:, 1])
        found.append(eyeball[(from_axis > WHITE_FROM * IRIS_RADIUS) | (offset[:, 2] < 0)])
    return np.concatenate(found)
