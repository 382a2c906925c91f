"""The parts of a mouth's inside, the vertices of teeth, tongue and the mouth's wall; and the rows of vertices around
a mouth.
"""

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


def mouth_rows(model: HeadModel) -> np.ndarray:
    """(N,) int: rows of vertices around the mouth. Those of the lips are 1, 2 and so on outwards from where lips and
    inside meet, those of the mouth's wall -1, -2 and so on inwards; 0 elsewhere.
    """
    edges = mesh_edges(model.faces)[0]
    both = np.concatenate((edges, edges[:, ::-1]))
    lips, inside = np.zeros((2, len(model.template)), bool)
    lips[model.regions["lips"]] = True
    inside[model.regions["mouth_inside"]] = True
    inside &= ~lips
    rows = np.zeros(len(lips), int)
    for part, other, sign in ((lips, inside, 1), (inside, lips, -1)):
        reached, row = other.copy(), 0
        while True:
            row += 1
            new = both[reached[both[:, 0]] & part[both[:, 1]] & ~reached[both[:, 1]], 1]
            if not len(new):
                break
            reached[new], rows[new] = True, sign * row
    return rows
