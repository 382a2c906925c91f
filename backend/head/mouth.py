"""The parts of a mouth's inside: the vertices of teeth, tongue and the mouth's wall."""

from __future__ import annotations

import numpy as np

from .model import HeadModel
from .topology import connected_parts, mesh_edges


def mouth_parts(model: HeadModel) -> dict[str, np.ndarray]:
    """`teeth`, `tongue`, `wall` -> vertices, int. A part may be empty: FLAME has no teeth.

    The region names do not distinguish them, so they are recognised by their geometry. The wall is connected to the
    skin; a row of teeth is a separate part, an arc that is empty in the middle; the tongue is a separate part that is
    not.
    """
    parts = connected_parts(mesh_edges(model.faces)[0], len(model.template))
    skin = np.bincount(parts).argmax()
    inside = model.regions["mouth_inside"]
    found: dict[str, list[np.ndarray]] = {"teeth": [], "tongue": [], "wall": []}
    for part in np.unique(parts[inside]):
        members = inside[parts[inside] == part]
        if part == skin:
            found["wall"].append(members)
            continue
        points = model.template[members]
        behind = points[:, 2] < np.quantile(points[:, 2], 0.6)
        middle = (np.abs(points[behind, 0]) < 0.008).mean()
        found["tongue" if middle > 0.2 else "teeth"].append(members)
    return {name: np.concatenate([np.empty(0, np.int64), *pieces]).astype(np.int64) for name, pieces in found.items()}
