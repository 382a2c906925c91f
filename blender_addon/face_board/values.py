"""Places of handles <-> values of sliders, by the formula of the drivers (`build`).

A face is what sliders and handles show together. It can be divided between the two in many ways; `divide` puts as much
as possible on the handles, and what they cannot hold stays on the sliders: two opposite sliders that are both in use
share one handle, which holds their difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import bpy
import numpy as np

from ..rig.rig_properties import Rig, handles_name
from ..rig.sliders import GAZE_HANDLES, refresh
from .build import reach_of, travel_of
from .layout import Handle, handles_of, opposite
from .own_expressions import given_by_channels, taken_by_channels

Places = Mapping[tuple[str, str], np.ndarray]
"""Handle's name and axis -> how far it is from rest (...), in values of its sliders."""


@dataclass(frozen=True)
class Board:
    """The handles of one rig and the K sliders that they move."""

    sliders: tuple[str, ...]
    handles: tuple[Handle, ...]
    travel: float

    def pull(self, places: Places) -> np.ndarray:
        """How far handles are moved towards each slider (..., K)."""
        shape = np.broadcast_shapes(*(np.shape(place) for place in places.values()))
        result = np.zeros((*shape, len(self.sliders)))
        for handle in self.handles:
            for way, names in handle.drives.items():
                for name in names:
                    sign = -1.0 if way[0] == "-" else 1.0
                    result[..., self.sliders.index(name)] += sign * places.get((handle.name, way[1]), np.zeros(shape))
        return result

    def total(self, own: np.ndarray, pull: np.ndarray, largest: np.ndarray) -> np.ndarray:
        """What sliders and handles show together (..., K). `own`: the sliders' values; `largest`: their limits (K,)."""
        net = own - self._opposites(own)
        added = np.maximum(net + pull, 0) - np.maximum(net, 0)
        return own + np.minimum(added, np.maximum(largest - own, 0))

    def divide(
        self, total: np.ndarray, fixed: np.ndarray, share: float = 1.0, *, lids_follow: bool = False
    ) -> tuple[Places, np.ndarray]:
        """The places of the handles and the values of the sliders (..., K) that together show `total` (..., K).

        The handles of the gaze, which turn the eyes too, stay: they pull by `fixed` (..., K). `share`: 1 gives as much
        as possible to the handles, 0 everything to the sliders. `lids_follow`: what the lids do with the gaze is left
        to the sliders, as the gaze is to its bones.
        """
        places: dict[tuple[str, str], np.ndarray] = {}
        pull, net = np.array(fixed), total - self._opposites(total)
        for handle in self.handles:
            for axis in () if handle.turns else handle.axes:
                ways = [handle.drives.get(sign + axis, ()) for sign in "+-"]
                sign, name = (1.0, ways[0][0]) if ways[0] else (-1.0, ways[1][0])
                index = self.sliders.index(name)
                low = -handle.reach if all(ways) else 0.0
                part = 0.0 if lids_follow and handle.name.startswith(GAZE_HANDLES) else share
                held = part * np.clip(net[..., index] - fixed[..., index], low, handle.reach)
                places[handle.name, axis] = sign * held
                for way, names in zip((1.0, -1.0), ways, strict=True):
                    for each in names:
                        pull[..., self.sliders.index(each)] += way * sign * held
        left = net - pull
        return places, np.minimum(total, self._opposites(total)) + np.maximum(left, 0)

    def _opposites(self, values: np.ndarray) -> np.ndarray:
        """The values of each slider's opposite (..., K); zero for those without one."""
        result = np.zeros_like(values)
        for index, name in enumerate(self.sliders):
            if (other := opposite(name)) in self.sliders:
                result[..., index] = values[..., self.sliders.index(other)]
        return result


def board_of(rig: Rig) -> Board:
    """The board of a rig, without what was deleted from it. Raises an `EffigyError` if it has none."""
    travel, blocks, bones = travel_of(rig), rig.key_blocks, rig.handle_bones()
    sliders = tuple(name for name in rig.slider_names if name in blocks and handles_name(name) in blocks)
    handles = tuple(handle for handle in handles_of(sliders) if handle.name in bones)
    driven = {name for handle in handles for names in handle.drives.values() for name in names}
    return Board(tuple(name for name in sliders if name in driven), handles, travel)


def own_values(rig: Rig, board: Board) -> tuple[np.ndarray, np.ndarray]:
    """The sliders' values and their largest ones, (K,) each."""
    blocks = [rig.key_blocks[name] for name in board.sliders]
    return np.array([block.value for block in blocks]), np.array([block.slider_max for block in blocks])


def own_places(rig: Rig, board: Board, only_gaze: bool = False) -> Places:
    """Where the handles are, at most as far from rest as they reach."""
    return places_of(rig, board, rig.handle_bones(), only_gaze)


def places_of(rig: Rig, board: Board, bones: Mapping[str, bpy.types.PoseBone], only_gaze: bool = False) -> Places:
    """`own_places` of the rig's bones, or of evaluated copies of them, by the handles' names."""
    places = {}
    for handle in board.handles:
        if handle.turns or not only_gaze:
            reach, location = reach_of(rig, handle), bones[handle.name].location
            for axis in handle.axes:
                places[handle.name, axis] = np.clip(np.float64(getattr(location, axis)) / board.travel, -reach, reach)
    return places


def move(rig: Rig, share: float) -> None:
    """Moves the face that is shown to the handles (`share` 1) or to the sliders (0), in the current frame."""
    board = board_of(rig)
    own, largest = own_values(rig, board)
    total = board.total(own, board.pull(own_places(rig, board)), largest)
    if share and rig.arkit_names:
        blocks = rig.expression_keys()
        coefficients = np.array([block.value for block in blocks])
        taken = taken_by_channels(rig, board.sliders, coefficients, largest - total)
        total = total + taken
        left = coefficients - given_by_channels(rig, board.sliders, taken)
        for block, value in zip(blocks, left.tolist(), strict=True):
            block.value = value
    places, left = board.divide(total, board.pull(own_places(rig, board, only_gaze=True)), share)
    put(rig, board, places)
    for name, value in zip(board.sliders, left.tolist(), strict=True):
        rig.key_blocks[name].value = value
    refresh(rig)


def put(rig: Rig, board: Board, places: Places) -> None:
    """Moves handles; those that `places` does not name stay."""
    bones = rig.handle_bones()
    for (name, axis), place in places.items():
        setattr(bones[name].location, axis, float(place) * board.travel)
