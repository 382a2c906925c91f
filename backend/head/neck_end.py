"""Where the neck ends on a head model: at its open edge or, if the model goes on with shoulders or a chest, where the
open head's neck would end on it.

A tracked chest follows the neck and not the person's chest. What it covers is therefore cut away like any body.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from .formats import load_head
from .model import HeadModel
from .regions import align_heads

_LONGER = 0.05
"""Metres by which a neck may reach lower than the open head's. FLAME's reaches 2.5 cm lower."""


def neck_end(model: HeadModel) -> np.ndarray:
    """(R,) vertices of a ring around the lower end of the neck, sorted."""
    named, own = load_head(), model.regions["boundary"]
    scale, rotation, translation = align_heads(named, model)
    ring = scale * named.template[named.regions["boundary"]] @ rotation.T + translation
    if not len(own) or model.template[own, 1].mean() > ring[:, 1].mean() - _LONGER:
        return own
    return np.unique(KDTree(model.template).query(ring)[1]).astype(np.int32)
