"""Blinks, small movements of the resting eyes, and breathing, as strips above the rig's performances.

Each is one strip whose keys are drawn from a seed (`life_motion`). It adds to what lies below it, its influence can be
keyed, and it is removed or made again without touching any other key. Its settings are kept on its action.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import partial
from math import isfinite, radians
from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError
from .action import (
    LINEAR,
    Curve,
    add_curve,
    bone_path,
    check_not_tweaked,
    curves_of,
    free_for_keys,
    keyed_curves,
    new_action,
    push_strip,
    remove_strip,
    strips_of,
    value_path,
)
from .face_angles import EYES, rotation_path
from .gaze_target import aim_of, eyes_of, target_of
from .keys import BEZIER, keys_of, set_keys
from .life_motion import blink_in_longest_gap, blink_keys, blink_times, breaths, gaze_jumps, saccades, shut_intervals
from .performance import EXPRESSIONS, layer_of
from .rig_properties import Rig
from .rotations import axis_angle_to_quaternion
from .takes import Channel, channels_of, takes_of

BLINKS: Final = "Blinks"
SACCADES: Final = "Eye movements"
BREATHING: Final = "Breathing"
KINDS: Final = (BLINKS, SACCADES, BREATHING)
LIFE_PROPERTY: Final = "effigy_life"
"""Custom property on the strips' actions: one of the three names."""
SETTINGS_PROPERTY: Final = "effigy_life_settings"
"""Custom property on the strips' actions: the numbers that it was made with, by their names."""
LIDS: Final = ("eyeBlinkLeft", "eyeBlinkRight")
_JUMP: Final = 10.0
"""Degrees by which the gaze has to jump for a blink."""
_CHEST: Final = (0.0, 0.0016, 0.0006)
"""Metres by which a full breath lifts the head, in the root bone's axes: to the person's left, up, and forwards."""
_NOD: Final = -0.5
"""Degrees by which it nods."""

Range = tuple[float, float]
"""First and last frame of the scene."""


def life_of(rig: Rig) -> dict[str, Any]:
    """The strips that there are, by `KINDS`."""
    found = {}
    for target in _targets(rig):
        for _, strip in strips_of(target):
            kind = None if strip.action is None else strip.action.get(LIFE_PROPERTY)
            if kind in KINDS:
                found[kind] = strip
    return found


def settings_of(strip: bpy.types.NlaStrip) -> dict[str, Any]:
    """What the strip was made with, by the names of its operator's properties; empty where that is damaged."""
    stored = strip.action.get(SETTINGS_PROPERTY)
    if not hasattr(stored, "to_dict"):
        return {}
    return {
        name: value for name, value in stored.to_dict().items() if isinstance(value, (int, float)) and isfinite(value)
    }


def keep_settings(rig: Rig, kind: str, settings: Mapping[str, float]) -> None:
    """Keeps what the strip of a kind was made with, for the next time."""
    life_of(rig)[kind].action[SETTINGS_PROPERTY] = dict(settings)


def remove_life(rig: Rig, kind: str) -> None:
    """Removes the strip of a kind, if there is one."""
    for target in _targets(rig):
        check_not_tweaked(target)
        for track, strip in list(strips_of(target)):
            if strip.action is not None and strip.action.get(LIFE_PROPERTY) == kind:
                remove_strip(target, track, strip)


def add_blinks(
    rig: Rig,
    frames: Range,
    rate: float,
    depsgraph: bpy.types.Depsgraph,
    *,
    blinks: float,
    doubles: float,
    jumps: bool,
    seed: int,
    shown: Callable[[np.ndarray], np.ndarray] | None = None,
) -> str:
    """Adds `blinks` a minute, of which the share `doubles` are double, and with `jumps` one wherever the gaze jumps;
    none where the performance itself blinks. `rate`: the scene's frames a second. `shown`: how far `LIDS` are shut
    (F, 2) at frames (F,), where something else than sliders shuts them too.

    Returns the name of the artist's action that became a strip below it, or nothing (`action.free_for_keys`).
    """
    if not all(name in rig.slider_names for name in LIDS):
        raise EffigyError(f"“{rig.head_name}” has no sliders {' and '.join(LIDS)}, which close the eyes.")
    first, last = frames[0] / rate, frames[1] / rate
    moments = np.arange(frames[0], frames[1] + 0.5)
    lids, eyes = _top_channels(rig, LIDS), _top_channels(rig, EYES)
    # How shut the performance has the lids: the strip adds what is missing.
    lids_at = shown or partial(_shown_by, lids)
    below = lids_at(moments).max(1)
    leaps = _gaze_jumps(rig, moments, rate, eyes, depsgraph) if jumps else None
    busy = shut_intervals(moments / rate, below)
    times = blink_times(first, last, blinks, doubles, seed, leaps, busy)
    if not len(times) and blinks > 0:
        # In a short clip all random moments may fall into blinks of the performance.
        times = blink_in_longest_gap(first, last, busy)
    if not len(times):
        raise EffigyError("No blink fits into these frames: choose a longer range, or more blinks a minute.")
    at, shut = blink_keys(times, rate)
    key = rig.mesh.data.shape_keys
    curves = []
    for name, own in zip(LIDS, lids_at(at).T, strict=True):
        curves.append(Curve(value_path(name), 0, EXPRESSIONS, at, shut * np.clip(1 - own, 0, 1)))
    # Without curves below, Blender would add to the default value of a shape key, which is 1.
    blend = "ADD" if all(_has_curve(key, curve.path) for curve in curves) else "REPLACE"
    return _put(rig, key, BLINKS, curves, frames, blend, "ADD")


def add_saccades(
    rig: Rig,
    frames: Range,
    rate: float,
    depsgraph: bpy.types.Depsgraph,
    *,
    jumps: float,
    size: float,
    seed: int,
) -> str:
    """Lets the eyes wander by `size` degrees with `jumps` small jumps a second, around the gaze target if there is one.
    The other arguments are those of `add_blinks`.
    """
    times, places = saccades(frames[0] / rate, frames[1] / rate, jumps, radians(size), seed)
    # An eye takes about one frame for a jump, and rests before.
    at = np.concatenate((times[:1], np.stack((times[1:], times[1:] + 1 / rate), 1).ravel())) * rate
    held = np.concatenate((places[:1], np.stack((places[:-1], places[1:]), 1).reshape(-1, 2)))
    aim = aim_of(rig)
    if aim is not None:
        offsets = _around_target(rig, held, depsgraph)
        curves = [Curve("location", axis, "Location", at, offsets[:, axis] + aim.location[axis]) for axis in range(3)]
        return _put(rig, aim, SACCADES, curves, frames, "REPLACE", "REPLACE")
    # A bone's positive rotation about its x axis turns the eye down, about its z axis to the person's right.
    turns = axis_angle_to_quaternion(np.stack((-held[:, 1], np.zeros(len(held)), -held[:, 0]), 1))
    curves = [curve for joint in EYES for curve in _rotation(rig, joint, at, turns)]
    return _put(rig, rig.armature, SACCADES, curves, frames, "COMBINE", "COMBINE")


def add_breathing(rig: Rig, frames: Range, rate: float, *, breaths_a_minute: float, depth: float, seed: int) -> str:
    """Lets the head rise and nod with each breath; `depth` 1 is that of a resting person. The other arguments are those
    of `add_blinks`.
    """
    times, full = breaths(frames[0] / rate, frames[1] / rate, breaths_a_minute, seed)
    at, full = times * rate, depth * full
    root = rig.pose_bone("root")
    base = f"{bone_path(root.name)}.location"
    curves = [Curve(base, axis, root.name, at, size * full) for axis, size in enumerate(_CHEST)]
    turns = axis_angle_to_quaternion(np.stack((radians(_NOD) * full, 0 * full, 0 * full), 1))
    curves += _rotation(rig, "neck", at, turns)
    return _put(rig, rig.armature, BREATHING, curves, frames, "COMBINE", "COMBINE")


def _put(
    rig: Rig,
    target: bpy.types.ID,
    kind: str,
    curves: list[Curve],
    frames: Range,
    blend: str,
    blend_above: str,
) -> str:
    """Adds the strip of a kind above all others, in place of an earlier one, whose influence it keeps. `blend_above`:
    how keys that are set by hand are combined with it.
    """
    check_not_tweaked(target)
    earlier = life_of(rig).get(kind)
    muted = earlier is not None and earlier.mute
    own = None if earlier is None else earlier.fcurves.find("influence")
    influence = None if own is None else keys_of(own)
    remove_life(rig, kind)
    action = new_action(f"{rig.mesh.name} {kind.lower()}", target)
    for curve in curves:
        add_curve(action, curve, LINEAR if kind == SACCADES else BEZIER)
    action[LIFE_PROPERTY] = kind
    aside = free_for_keys(target, blend_above)
    strip = push_strip(target, action, kind, round(frames[0]))
    strip.blend_type, strip.extrapolation = blend, "NOTHING"
    strip.use_animated_influence, strip.mute = True, muted
    curve = strip.fcurves.find("influence")
    if influence is not None:
        set_keys(curve, influence)
    else:
        curve.keyframe_points[0].co = (frames[0], 1.0)
        curve.update()
    return aside or ""


def _targets(rig: Rig) -> list[Any]:
    return [rig.mesh.data.shape_keys, rig.armature, *filter(None, [aim_of(rig)])]


def _rotation(rig: Rig, joint: str, frames: np.ndarray, turns: np.ndarray) -> list[Curve]:
    """The curves of a bone's quaternions (K, 4) at `frames` (K,)."""
    bone = rig.pose_bone(joint)
    if rotation_path(bone) != "rotation_quaternion":
        raise EffigyError(f"The bone “{bone.name}” is not rotated by a quaternion: set its rotation mode back first.")
    path = f"{bone_path(bone.name)}.rotation_quaternion"
    return [Curve(path, index, bone.name, frames, column) for index, column in enumerate(turns.T)]


def _has_curve(target: bpy.types.ID, path: str) -> bool:
    """Whether a strip has keys of a property."""
    return any(
        curve.data_path == path
        for _, strip in strips_of(target)
        if strip.action is not None and layer_of(strip) is not None
        for curve in curves_of(strip.action)
    )


def _top_channels(rig: Rig, names: Collection[str]) -> dict[str, Channel]:
    """Channels of these names in the uppermost take that has them all and is not muted; empty if there is none."""
    for take in reversed(takes_of(rig).values()):
        with suppress(EffigyError):
            found = {
                each.name: each
                for each in channels_of(rig, take)
                if each.name in names and each.kind != "location" and not each.strip.mute
            }
            if len(found) == len(names):
                return found
    return {}


def _shown_by(lids: Mapping[str, Channel], frames: np.ndarray) -> np.ndarray:
    """(F, 2) how far `LIDS` are shut at frames (F,) by these channels; not at all without channels."""
    if not lids:
        return np.zeros((len(frames), len(LIDS)))
    return np.stack([lids[name].sample(frames)[:, 0] for name in LIDS], 1)


def _gaze_jumps(
    rig: Rig, moments: np.ndarray, rate: float, eyes: Mapping[str, Channel], depsgraph: bpy.types.Depsgraph
) -> np.ndarray:
    """Seconds at which the gaze jumps: that of the target, if there is one, otherwise that of the performance."""
    target = target_of(rig)
    if target is not None:
        curves = {curve.array_index: curve for curve in keyed_curves(target) if curve.data_path == "location"}
        places = [
            [curves[axis].evaluate(moment) for moment in moments.tolist()]
            if axis in curves
            else np.full(len(moments), target.location[axis])
            for axis in range(3)
        ]
        eye, axes = eyes_of(rig, depsgraph)
        seen = (np.array(places).T - eye) @ axes.T
    elif eyes:
        w, x, y, z = np.mean([each.sample(moments) for each in eyes.values()], 0).T
        # The bone's y axis points out of the face, x to the person's left, z down.
        seen = np.stack((2 * (x * y - w * z), 1 - 2 * (x * x + z * z), -2 * (y * z + w * x)), 1)
    else:
        return np.zeros(0)
    left, forwards, up = seen.T
    directions = np.stack((np.arctan2(left, forwards), np.arctan2(up, np.hypot(left, forwards))), 1)
    return gaze_jumps(moments / rate, directions, radians(_JUMP))


def _around_target(rig: Rig, angles: np.ndarray, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """(K, 3) offsets in the world by which the gaze turns by `angles` (K, 2), sideways and up, from the target."""
    eye, axes = eyes_of(rig, depsgraph)
    target = target_of(rig)
    assert target is not None
    distance = float(np.linalg.norm(np.array(target.evaluated_get(depsgraph).matrix_world.translation) - eye))
    return distance * np.tan(angles) @ axes[[0, 2]]
