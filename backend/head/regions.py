"""Transfer of named regions from the open head to a head model that has none.

The two heads are aligned, and every vertex gets the regions of the nearest vertex of the open head. Eyeballs, teeth and
the like are separate connected parts in every head mesh. Each of them gets its regions as a whole, by the majority of
its vertices, and vertices of the skin are compared with vertices of the skin only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from .model import EYE_L, EYE_R, REGION_NAMES, HeadModel
from .rigid_alignment import Similarity, fit_similarity
from .topology import connected_parts, mesh_edges, neck_ring

_MIN_LANDMARKS = 8
_MIN_EYE_DISTANCE = 0.02
"""Metres. Eye joints that are closer together than this are placeholders."""


def transfer_regions(named: HeadModel, unnamed: HeadModel) -> HeadModel:
    """`unnamed` with the regions of `named`; a vertex may be in several, as there."""
    scale, rotation, translation = align_heads(named, unnamed)
    source = scale * named.template @ rotation.T + translation
    membership = np.zeros((len(source), len(REGION_NAMES)), bool)
    for column, name in enumerate(REGION_NAMES):
        membership[named.regions[name], column] = True

    source_skin = _largest_part(named)
    parts = connected_parts(mesh_edges(unnamed.faces)[0], len(unnamed.template))
    skin = parts == np.bincount(parts).argmax()
    result = np.zeros((len(unnamed.template), len(REGION_NAMES)), bool)
    candidates = np.flatnonzero(source_skin)
    result[skin] = membership[candidates[KDTree(source[candidates]).query(unnamed.template[skin])[1]]]
    if not skin.all():
        # The back of an eyeball is nearer to the socket's skin than to the other head's eyeball, so separate parts are
        # compared with separate parts only.
        candidates = np.flatnonzero(~source_skin) if not source_skin.all() else candidates
        nearest = membership[candidates[KDTree(source[candidates]).query(unnamed.template)[1]]]
        for part in np.unique(parts[~skin]):
            result[parts == part] = nearest[parts == part].mean(0) > 0.5
    regions = {name: np.flatnonzero(result[:, column]).astype(np.int32) for column, name in enumerate(REGION_NAMES)}
    regions["boundary"] = neck_ring(unnamed.template, unnamed.faces)
    return replace(unnamed, regions=regions)


def align_heads(moving: HeadModel, fixed: HeadModel) -> Similarity:
    """The similarity transform that lays the template of `moving` over the template of `fixed`.

    It is fitted to the detector's landmarks that both heads have. Without these it comes from the eye joints alone,
    because all heads face +Z in head space; without eyes it comes from the tops of the heads and their widths.
    """
    shared = (moving.landmark_faces >= 0) & (fixed.landmark_faces >= 0)
    if shared.sum() >= _MIN_LANDMARKS:
        return fit_similarity(_points(moving, shared), _points(fixed, shared))
    ours, theirs = _eyes(moving), _eyes(fixed)
    gaps = np.linalg.norm(ours[0] - ours[1]), np.linalg.norm(theirs[0] - theirs[1])
    if min(gaps) > _MIN_EYE_DISTANCE:
        scale = float(gaps[1] / gaps[0])
        return Similarity(scale, np.eye(3), theirs.mean(0) - scale * ours.mean(0))
    widths = np.ptp(moving.template[:, 0]), np.ptp(fixed.template[:, 0])
    scale = float(widths[1] / widths[0])
    return Similarity(scale, np.eye(3), _top_front(fixed.template) - scale * _top_front(moving.template))


def _largest_part(model: HeadModel) -> np.ndarray:
    parts = connected_parts(mesh_edges(model.faces)[0], len(model.template))
    return parts == np.bincount(parts).argmax()


def _points(model: HeadModel, which: np.ndarray) -> np.ndarray:
    corners = model.template[model.faces[model.landmark_faces[which]]]
    return (corners * model.landmark_barycentric[which][..., None]).sum(1)


def _eyes(model: HeadModel) -> np.ndarray:
    return model.joint_regressor[[EYE_L, EYE_R]].astype(np.float64) @ model.template


def _top_front(vertices: np.ndarray) -> np.ndarray:
    low, high = vertices.min(0), vertices.max(0)
    return np.array([(low[0] + high[0]) / 2, high[1], high[2]])
