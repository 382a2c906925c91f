"""The keyframes of an F-curve in bulk: read, replaced within a range, and left as they are outside of it."""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np

from .action import LINEAR

BEZIER: Final = 2
"""Interpolation, as the number that `foreach_set` takes."""
_FREE: Final = 0
_ALIGNED: Final = 3
_AUTO_CLAMPED: Final = 4

_NUMBERS: Final = {"co": 2, "handle_left": 2, "handle_right": 2, "amplitude": 1, "back": 1, "period": 1}
_KINDS: Final = ("interpolation", "easing", "type", "handle_left_type", "handle_right_type")
Keys = dict[str, np.ndarray]
"""By the name of a keyframe's property, (K, 2) or (K,): the keyframes in the order of their frames."""


def keys_of(fcurve: bpy.types.FCurve) -> Keys:
    points, keys = fcurve.keyframe_points, {}
    for name, size in _NUMBERS.items():
        keys[name] = np.empty(len(points) * size, np.float32)
        points.foreach_get(name, keys[name])
        if size > 1:
            keys[name] = keys[name].reshape(-1, size)
    for name in _KINDS:
        keys[name] = np.empty(len(points), np.int32)
        points.foreach_get(name, keys[name])
    return keys


def set_keys(fcurve: bpy.types.FCurve, keys: Keys) -> None:
    """Replaces all keyframes of a curve."""
    points = fcurve.keyframe_points
    points.clear()
    points.add(len(keys["co"]))
    # Setting a coordinate does not move the handles, and setting a handle does not change its type.
    for name in (*_KINDS, *_NUMBERS):
        points.foreach_set(name, np.ascontiguousarray(keys[name]).ravel())
    fcurve.update()


def linear_keys(frames: np.ndarray, values: np.ndarray) -> Keys:
    """Keyframes with straight lines between them, at `frames` (K,) with `values` (K,)."""
    count, co = len(frames), np.stack((frames, values), 1).astype(np.float32)
    keys: Keys = {"co": co, "handle_left": co.copy(), "handle_right": co.copy()}
    keys |= {"amplitude": np.full(count, 0.8, np.float32), "back": np.full(count, 1.70158, np.float32)}
    keys["period"] = np.full(count, 4.1, np.float32)
    kinds = {"interpolation": LINEAR, "handle_left_type": _AUTO_CLAMPED, "handle_right_type": _AUTO_CLAMPED}
    return keys | {name: np.full(count, kinds.get(name, 0), np.int32) for name in _KINDS}


def bezier_keys(frames: np.ndarray, values: np.ndarray, left: np.ndarray, right: np.ndarray) -> Keys:
    """Keyframes of a Bézier curve with aligned handles `left` (K, 2) and `right` (K, 2)."""
    keys = linear_keys(frames, values)
    count = len(frames)
    keys["handle_left"], keys["handle_right"] = left.astype(np.float32), right.astype(np.float32)
    keys["interpolation"] = np.full(count, BEZIER, np.int32)
    keys["handle_left_type"] = keys["handle_right_type"] = np.full(count, _ALIGNED, np.int32)
    return keys


def inside(keys: Keys, first: float, last: float) -> np.ndarray:
    """(K,) bool: the keyframes from `first` to `last`."""
    frames = keys["co"][:, 0]
    return (frames >= first - 1e-3) & (frames <= last + 1e-3)


def replace_between(fcurve: bpy.types.FCurve, first: float, last: float, new: Keys) -> None:
    """Replaces the keyframes from `first` to `last` by `new`, of which the outermost lie there; all others stay as they
    are, and so do the curve's tangents where it comes in and goes out.
    """
    old, new = keys_of(fcurve), {name: numbers.copy() for name, numbers in new.items()}
    before, after = old["co"][:, 0] < first - 1e-3, old["co"][:, 0] > last + 1e-3
    replaced = np.flatnonzero(~before & ~after)
    for end, side, others in ((0, "left", before), (-1, "right", after)):
        if not len(replaced) or not others.any() or abs(old["co"][replaced[end], 0] - new["co"][end, 0]) > 1e-3:
            continue
        handle = f"handle_{side}"
        new[handle][end] = old[handle][replaced[end]] + (new["co"][end] - old["co"][replaced[end]])
        # Blender moves a free handle whose other half is an automatic one.
        new["handle_left_type"][end] = new["handle_right_type"][end] = _FREE
        if side == "right":
            new["interpolation"][end] = old["interpolation"][replaced[end]]
    set_keys(fcurve, {name: np.concatenate((old[name][before], new[name], old[name][after])) for name in old})


def cut_at(fcurve: bpy.types.FCurve, frame: float) -> None:
    """Inserts a keyframe at `frame` that leaves the curve's shape as it is, if there are keyframes on both sides of it
    and none at it.

    Blender's own insertion gives the key automatic handles, which bend the curve.
    """
    keys = keys_of(fcurve)
    frames = keys["co"][:, 0]
    if len(frames) < 2 or not frames[0] < frame < frames[-1] or np.abs(frames - frame).min() <= 1e-3:
        return
    before = int(np.searchsorted(frames, frame)) - 1
    after = before + 1
    new = {name: numbers[before : before + 1].copy() for name, numbers in keys.items()}
    if keys["interpolation"][before] == BEZIER:
        polygon = np.stack([keys[name][at] for name, at in (("co", before), ("handle_right", before))])
        polygon = np.stack([*polygon, keys["handle_left"][after], keys["co"][after]]).astype(np.float64)
        left, right = _split(polygon, frame)
        new["co"][0], new["handle_left"][0], new["handle_right"][0] = left[3], left[2], right[1]
        keys["handle_right"][before], keys["handle_left"][after] = left[1], right[2]
        new["handle_left_type"][0] = new["handle_right_type"][0] = _FREE
        for side in ("handle_left_type", "handle_right_type"):
            # Automatic handles would be computed anew from the inserted key.
            for index in (before, after):
                keys[side][index] = _FREE
    else:
        new["co"][0] = new["handle_left"][0] = new["handle_right"][0] = frame, fcurve.evaluate(frame)
    set_keys(fcurve, {name: np.concatenate((keys[name][:after], new[name], keys[name][after:])) for name in keys})


def _split(polygon: np.ndarray, frame: float) -> tuple[np.ndarray, np.ndarray]:
    """(4, 2) and (4, 2): the parts of a Bézier curve (4, 2) before and after `frame`, by de Casteljau's algorithm."""
    low, high = 0.0, 1.0
    levels: list[np.ndarray] = [polygon]
    for _ in range(50):
        share = (low + high) / 2
        levels = [polygon]
        while len(levels[-1]) > 1:
            levels.append(levels[-1][:-1] + share * np.diff(levels[-1], axis=0))
        if levels[-1][0, 0] < frame:
            low = share
        else:
            high = share
    return np.array([level[0] for level in levels]), np.array([level[-1] for level in reversed(levels)])
