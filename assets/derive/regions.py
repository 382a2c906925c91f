"""Named regions of the open head, derived from MakeHuman's data: parts, texture islands, bone weights, targets.

`face`, `scalp`, `ears`, `neck`, `eyes` and `mouth_inside` are disjoint and cover the head; `lips` and `lids` are
parts of the face, `boundary` is the lowest ring of the neck.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .cut import NECK_BONES, Cut
from .mpfb import MakeHuman

HAIRLINE_AZIMUTH = (0, 25, 50, 70, 82, 100, 115, 140, 180)
HAIRLINE_HEIGHT = (0.072, 0.073, 0.062, 0.030, 0.000, -0.002, -0.030, -0.055, -0.060)
"""Metres above the eyes at which hair begins, going round from the middle of the forehead (0 degrees) over the temple
and before the ear (82) to the nape (180)."""

LIP_RINGS = 6
"""Rings of vertices from the mouth's inner wall to the edge of the lips' red."""
LID_RINGS = 6
"""Rings from the edge of a lid to where the lower lid ends; the upper lid is what blinking moves."""


def find_regions(human: MakeHuman, cut: Cut) -> dict[str, np.ndarray]:
    base = cut.kept(human.mesh.vertices)
    eyes = np.concatenate([cut.parts["helper-l-eye"], cut.parts["helper-r-eye"]])
    teeth_and_tongue = [cut.parts[f"helper-{part}"] for part in ("upper-teeth", "lower-teeth", "tongue")]
    mouth_inside = np.concatenate([cut.islands["mouth"], *teeth_and_tongue])
    skin = np.setdiff1d(cut.parts["body"], mouth_inside)

    ears = _vertices_moved_by(human, cut, skin, ("ears/l-ear-wing-incr", "ears/r-ear-wing-incr"), 0.2)
    bones = {name: cut.kept(weight) for name, weight in human.bone_weights.items()}
    of_neck: Any = sum(weight for name, weight in bones.items() if name.startswith(NECK_BONES))
    neck = np.setdiff1d(skin[of_neck[skin] > 0.5], ears)
    upper = np.setdiff1d(skin, np.concatenate([ears, neck]))

    level = base[eyes, 1].mean()
    middle = (base[upper, 2].min() + base[upper, 2].max()) / 2
    azimuth = np.degrees(np.arctan2(np.abs(base[upper, 0]), base[upper, 2] - middle))
    hairy = base[upper, 1] - level > np.interp(azimuth, HAIRLINE_AZIMUTH, HAIRLINE_HEIGHT)
    scalp, face = upper[hairy], upper[~hairy]

    lips = np.intersect1d(_around(cut, "mouth", LIP_RINGS), face)
    upper_lids = _vertices_moved_by(human, cut, face, ("eyeBlinkLeft", "eyeBlinkRight"), 0.22)
    lids = np.union1d(upper_lids, np.intersect1d(_around(cut, "sockets", LID_RINGS), face))
    regions = {
        "face": face,
        "scalp": scalp,
        "lips": lips,
        "eyes": eyes,
        "lids": lids,
        "ears": ears,
        "neck": neck,
        "mouth_inside": mouth_inside,
        "boundary": cut.ring,
    }
    return {name: np.unique(vertices).astype(np.int32) for name, vertices in regions.items()}


def _vertices_moved_by(
    human: MakeHuman, cut: Cut, among: np.ndarray, targets: tuple[str, ...], share: float
) -> np.ndarray:
    """Vertices that a target or expression moves by more than `share` of its greatest offset."""
    offsets = [human.target(name) if "/" in name else human.expression(name) for name in targets]
    length = np.max([np.linalg.norm(cut.kept(offset), axis=1) for offset in offsets], 0)
    return among[length[among] > share * length[among].max()]


def _around(cut: Cut, island: str, rings: int) -> np.ndarray:
    """The vertices of a pouch and those within `rings` edges of it."""
    reached = cut.islands[island]
    for _ in range(rings):
        reached = np.unique(cut.faces[np.isin(cut.faces, reached).any(1)])
    return reached
