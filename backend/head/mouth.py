"""What the inside of a mouth is made of: the vertices of teeth, tongue and the mouth's wall."""

from __future__ import annotations

import numpy as np

from .model import HeadModel
from .topology import connected_parts, mesh_edges


def mouth_parts(model: HeadModel) -> dict[str, np.ndarray]:
    """`teeth`, `tongue`, `wall` -> vertices, int. A part may be empty: FLAME has no teeth.

    The region names do not tell them apart, the mesh does: the wall is grown together with the skin, a row of teeth is a piece of
    its own, an arc with an empty middle, and the tongue is one that fills it.
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
        place = model.template[members]
        behind = place[:, 2] < np.quantile(place[:, 2], 0.6)
        middle = (np.abs(place[behind, 0]) < 0.008).mean()
        found["tongue" if middle > 0.2 else "teeth"].append(members)
    return {name: np.concatenate([np.empty(0, np.int64), *pieces]).astype(np.int64) for name, pieces in found.items()}
