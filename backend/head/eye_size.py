"""Sizes of the human eye, which differ little between people, and the whites of a head's eyes."""

from __future__ import annotations

import numpy as np

from .model import HeadModel

IRIS_RADIUS = 0.0059
"""Metres."""
PUPIL_RADIUS = 0.0022
"""Metres, in ordinary light."""
WHITE_FROM = 1.35
"""Distance of a vertex from the axis of its eyeball at which white begins, in radii of the iris. At smaller ones a
Gaussian of the eyeball still shows some of the iris."""


def eye_whites(model: HeadModel) -> np.ndarray:
    """(W,) vertices of both eyeballs outside the irises. None for a head model without eyeballs, or whose size leaves
    no iris in them. Joints are not asked: some files have none.
    """
    eyes = np.asarray(model.regions["eyes"], dtype=int)
    if not len(eyes):
        return eyes
    places = model.template[eyes]
    left = places[:, 0] > np.median(places[:, 0])
    offset = np.empty_like(places)
    for side in (left, ~left):
        if side.any():
            offset[side] = places[side] - (places[side].min(0) + places[side].max(0)) / 2
    white = (np.hypot(offset[:, 0], offset[:, 1]) > WHITE_FROM * IRIS_RADIUS) | (offset[:, 2] < 0)
    return eyes[white & ~white.all()]
