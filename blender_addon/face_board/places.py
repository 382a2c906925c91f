"""Where the handles lie on a head. Nothing is known of its vertices but how far the sliders move them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import bpy
import numpy as np

from ..rig.conventions import points_to_blender
from ..rig.data import JOINT_NAMES
from ..rig.placement import head_place, nearest_similarity
from ..rig.rig_properties import Rig
from .layout import Group, Handle

EYES_APART: Final = 0.063
"""Metres between the eyes of the head for which the handles are measured."""
_MOST_MOVED: Final = 0.85
"""Vertices that a slider moves by this share of its largest movement say where it acts."""
_GAP: Final = 0.004
"""Metres by which a handle lies before the skin."""
_BOARD_COLUMNS: Final = 6
_BESIDE: Final = 0.035
"""Metres between the head and the board."""


@dataclass(frozen=True)
class Places:
    """Where the handles of a rig lie in the armature's space at rest."""

    heads: dict[str, np.ndarray]
    """Handle's name -> (3,)."""
    frame: np.ndarray
    """(4, 4) similarity from Blender's head at rest to the armature's space."""
    unit: float
    """What a metre of the head for which the handles are measured is in the armature's space."""


def find_places(rig: Rig, handles: list[Handle], depsgraph: bpy.types.Depsgraph) -> Places:
    """The places of handles on the rig's head, whose mesh or armature may have been moved or scaled and that
    applied.
    """
    place = head_place(rig, depsgraph)
    frame = nearest_similarity(place.mesh)
    to_rest = np.linalg.inv(place.vertices)
    basis = _moved(to_rest, _points(rig.key_blocks[0]))
    joints = points_to_blender(rig.joints)
    eyes = joints[[JOINT_NAMES.index("eye_L"), JOINT_NAMES.index("eye_R")]]
    size = float(np.linalg.norm(eyes[0] - eyes[1])) / EYES_APART
    middle = float(eyes[:, 0].mean())
    centers = {
        name: _center(basis, _moved(to_rest, _points(rig.key_blocks[name])))
        for name in dict.fromkeys(name for handle in handles for name in handle.near)
        if name in rig.key_blocks
    }
    heads: dict[str, np.ndarray] = {}
    for handle in handles:
        if handle.group is Group.BOARD:
            continue
        found = [centers[name] for name in handle.near if name in centers]
        point = np.mean(found, axis=0) if found else eyes.mean(0)
        if handle.turns:
            of_eyes = [joints[JOINT_NAMES.index(joint)] for joint in handle.turns]
            point = np.array((np.mean(of_eyes, axis=0)[0], point[1], np.mean(of_eyes, axis=0)[2]))
        heads[handle.name] = point + np.array((handle.shift[0], 0, handle.shift[1])) * size / 1000
    _make_symmetric(heads, middle)
    for point in heads.values():
        point[1] -= _GAP * size
    edge = float(basis[:, 0].max()) + _BESIDE * size
    heads |= _board(handles, np.array((edge, _front_of(heads), eyes[0, 2])), size)
    return Places(
        {name: _moved(frame, point) for name, point in heads.items()},
        frame,
        size * float(np.cbrt(np.linalg.det(frame[:3, :3]))),
    )


def _front_of(heads: dict[str, np.ndarray]) -> float:
    """The y coordinate of the foremost handle: Blender's characters face -Y."""
    return min((float(point[1]) for point in heads.values()), default=0.0)


def _center(basis: np.ndarray, moved: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(moved - basis, axis=1)
    if distance.max() == 0:
        return basis.mean(0)
    return basis[distance >= _MOST_MOVED * distance.max()].mean(0)


def _make_symmetric(heads: dict[str, np.ndarray], middle: float) -> None:
    """Handles of both sides lie at the same distance from the middle, and those of the middle in it."""
    for name, left in heads.items():
        if name.endswith(".L"):
            right = heads.get(name.removesuffix(".L") + ".R")
            if right is not None:
                mean = (left + right * (-1, 1, 1) + (2 * middle, 0, 0)) / 2
                left[:], right[:] = mean, mean * (-1, 1, 1) + (2 * middle, 0, 0)
        elif not name.endswith(".R"):
            left[0] = middle


def _board(handles: list[Handle], corner: np.ndarray, size: float) -> dict[str, np.ndarray]:
    """Sliders in rows above the pads, to the right of the face as the artist sees it."""
    sliders = [handle for handle in handles if handle.group is Group.BOARD and handle.shape == "slider"]
    pads = [handle for handle in handles if handle.group is Group.BOARD and handle.shape == "pad"]
    made = {}
    for index, handle in enumerate(sliders):
        row, column = divmod(index, _BOARD_COLUMNS)
        made[handle.name] = corner + np.array((0.02 * column + 0.005, 0, -0.06 * row)) * size
    below = -0.06 * -(-len(sliders) // _BOARD_COLUMNS)
    # The right eye's pad is the left one to who looks at the face.
    for index, handle in enumerate(sorted(pads, key=lambda pad: pad.name, reverse=True)):
        made[handle.name] = corner + np.array((0.025 + 0.06 * index, 0, below)) * size
    return made


def _points(block: bpy.types.ShapeKey) -> np.ndarray:
    points = np.empty(3 * len(block.data), np.float32)
    block.data.foreach_get("co", points)
    return points.reshape(-1, 3).astype(np.float64)


def _moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:3, :3].T + matrix[:3, 3]
