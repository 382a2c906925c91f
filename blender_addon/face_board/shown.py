"""What sliders and handles show together in any frame, read from their keys without evaluating the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..rig.action import bone_path, curves_of, keyed_curves, strips_of, value_path
from ..rig.handle_strips import handles_in_strips
from ..rig.performance import CONTROLS, layer_of
from ..rig.rig_properties import Rig
from .build import reach_of
from .values import Board, board_of


def shown_with_handles(rig: Rig, names: Sequence[str]) -> Callable[[np.ndarray], np.ndarray] | None:
    """A function from the scene's frames (F,) to the values (F, N) that the sliders `names` have together with the
    performance on the handles; None where handles have no performance.
    """
    if not handles_in_strips(rig):
        return None
    board = board_of(rig)
    if not set(names) <= set(board.sliders):
        return None
    columns = [board.sliders.index(name) for name in names]

    def shown(frames: np.ndarray) -> np.ndarray:
        frames = np.asarray(frames, np.float64)
        key = rig.mesh.data.shape_keys
        own = np.stack([_sampled(key, value_path(name), 0, frames) for name in board.sliders], 1)
        pull = board.pull(_places(rig, board, frames))
        largest = np.array([rig.key_blocks[name].slider_max for name in board.sliders])
        return board.total(own, pull, largest)[:, columns]

    return shown


def _places(rig: Rig, board: Board, frames: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """How far the handles are from rest, as `values.own_places`, at frames (F,)."""
    bones, places = rig.handle_bones(), {}
    by_hand = {(curve.data_path, curve.array_index): curve for curve in keyed_curves(rig.armature)}
    for handle in board.handles:
        path, reach = f"{bone_path(bones[handle.name].name)}.location", reach_of(rig, handle)
        for axis in handle.axes:
            index = "xyz".index(axis)
            place = _sampled(rig.armature, path, index, frames)
            if (curve := by_hand.get((path, index))) is not None and not curve.mute:
                # Above the strips, keys of the handles that are set by hand add to them.
                place = place + [curve.evaluate(frame) for frame in frames.tolist()]
            places[handle.name, axis] = np.clip(place / board.travel, -reach, reach)
    return places


def _sampled(target: object, path: str, index: int, frames: np.ndarray) -> np.ndarray:
    """(F,) a property as the strips of *Controls from Sliders* have it at frames (F,); 0 without a key."""
    for _, strip in strips_of(target):
        if layer_of(strip) != CONTROLS or strip.mute:
            continue
        for curve in curves_of(strip.action):
            if curve.data_path == path and curve.array_index == index and len(curve.keyframe_points):
                times = strip.action_frame_start + (frames - strip.frame_start) / strip.scale
                return np.array([curve.evaluate(time) for time in times.tolist()])
    return np.zeros(len(frames))
