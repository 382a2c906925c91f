"""A performance taken from the sliders to the handles of the face board, and back, in strips of its own.

The strips below the artist's keys are sampled in each frame: what they show together, divided anew between sliders and
handles, comes into two strips above them, which replace them. Keys set by hand are in actions above all strips and go
on changing what lies below; no strip and no key is changed. When the strips are made again they replace the earlier
ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil, floor
from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError
from ..file_names import datablock_name
from ..rig.action import (
    Curve,
    add_curve,
    bone_path,
    check_not_tweaked,
    free_for_keys,
    keyed_curves,
    new_action,
    push_strip,
    remove_strip,
    set_aside_note,
    strips_of,
    value_path,
)
from ..rig.gaze_target import is_driven
from ..rig.performance import CONTROLS, EXPRESSIONS, LAYER_PROPERTY, NEUTRAL, add_neutral_strip, curve_of, layer_of
from ..rig.rig_properties import Rig, handles_name, meshes_of
from .own_expressions import given_by_channels, taken_by_channels
from .values import Board, Places, board_of, places_of

MOST_FRAMES: Final = 20_000
"""A longer range is a mistake, such as a strip that repeats forever."""


def move_performance(rig: Rig, scene: bpy.types.Scene, share: float, with_handle_keys: bool = False) -> str:
    """Takes the performance to the handles (`share` 1) or to the sliders (0). Returns what was done as a sentence.

    `with_handle_keys`: also what the artist has keyed on handles by hand. Raises an `EffigyError` if sliders and
    handles have no keys.
    """
    board, key = board_of(rig), rig.mesh.data.shape_keys
    by_hand = [key] if with_handle_keys else [key, rig.armature]
    for target in (key, rig.armature):
        check_not_tweaked(target)
    frames = frames_of(rig)
    if not len(frames):
        raise EffigyError("The sliders have no keys and no strips: there is no performance to take.")
    # Below the artist's own keys, should these become a strip.
    add_neutral_strip(key, rig.slider_names)
    aside = tuple(filter(None, (free_for_keys(key, "ADD"), share and free_for_keys(rig.armature, "COMBINE"))))
    with _without_keys_by_hand(rig, by_hand):
        total, gaze, coefficients = _sample(rig, scene, board, frames)
    own: dict[str, np.ndarray] = {}
    if share and rig.arkit_names:
        taken = taken_by_channels(rig, board.sliders, coefficients, np.maximum(1 - total, 0))
        total = total + taken
        left = coefficients - given_by_channels(rig, board.sliders, taken)
        own = dict(zip(rig.expression_names, left.T, strict=True))
    elif rig.arkit_names:
        # An earlier strip may have what the handles had taken of these.
        own = dict(zip(rig.expression_names, coefficients.T, strict=True))
    places, left = board.divide(total, gaze, share, lids_follow=True)
    for target in (key, rig.armature):
        for track, strip in list(strips_of(target)):
            if layer_of(strip) == CONTROLS:
                remove_strip(target, track, strip)
    # What a gaze target drives is its own: strips cannot change it, and it would stay when the target is removed.
    driven = {name for name in board.sliders if is_driven(key, value_path(name))}
    own |= {name: column for name, column in zip(board.sliders, left.T, strict=True) if name not in driven}
    _push(key, _slider_curves(own, frames), frames)
    _push(rig.armature, _handle_curves(rig, board, frames, places), frames)
    scene.frame_set(scene.frame_current, subframe=scene.frame_subframe)
    where = "handles" if share else "sliders"
    note = set_aside_note(aside, "below, as they were")
    return f"{len(frames)} frames are on the {where} now, in strips of their own. {note}".rstrip()


def has_strips(rig: Rig) -> bool:
    """Whether the sliders have a performance in strips."""
    return any(layer_of(strip) != NEUTRAL for _, strip in strips_of(rig.mesh.data.shape_keys))


def moves_performance(rig: Rig) -> bool:
    """Whether the handles change more than one frame: they are animated, by the artist's keys or in strips, or they are
    not at rest above a performance of the sliders.
    """
    target, prefixes = _animated(rig)[1]
    by_hand = any(curve.data_path.startswith(prefixes) for curve in keyed_curves(target))
    held = has_strips(rig) and any(any(bone.location) for bone in rig.handle_bones().values())
    return by_hand or held or any(layer_of(strip) == CONTROLS for _, strip in strips_of(target))


def frames_of(rig: Rig) -> np.ndarray:
    """(F,) whole frames from the first to the last of the strips and keys of sliders and handles; empty without any."""
    ends: list[float] = []
    for target, prefixes in _animated(rig):
        for _, strip in strips_of(target):
            if layer_of(strip) != NEUTRAL and strip.action is not None:
                ends += [strip.frame_start, strip.frame_end]
        for curve in keyed_curves(target):
            if curve.data_path.startswith(prefixes):
                ends += list(curve.range())
    if not ends:
        return np.zeros(0, np.int64)
    frames = np.arange(floor(min(ends)), ceil(max(ends)) + 1)
    if len(frames) > MOST_FRAMES:
        raise EffigyError(
            f"The performance has {len(frames)} frames, more than {MOST_FRAMES}: shorten its strips first."
        )
    return frames


def mute_handle_keys(rig: Rig) -> None:
    """Mutes the artist's keys of the handles and removes the handles' strips: what they did is in the sliders."""
    _, prefixes = _animated(rig)[1]
    for curve in keyed_curves(rig.armature):
        if curve.data_path.startswith(prefixes):
            curve.mute = True
    for track, strip in list(strips_of(rig.armature)):
        if layer_of(strip) == CONTROLS:
            remove_strip(rig.armature, track, strip)


def _animated(rig: Rig) -> list[tuple[Any, tuple[str, ...]]]:
    """Each data-block with the beginnings of the paths that sliders and handles have in it."""
    return [
        (rig.mesh.data.shape_keys, ("key_blocks[",)),
        (rig.armature, tuple(bone_path(bone.name) for bone in rig.handle_bones().values())),
    ]


@contextmanager
def _without_keys_by_hand(rig: Rig, targets: list[Any]) -> Iterator[None]:
    """Leaves only the strips of data-blocks of a rig."""
    data = [target.animation_data for target in targets if target.animation_data is not None]
    before = [each.action_influence for each in data]
    if rig.armature in targets:
        # Blender leaves what no strip animates as it was.
        bones = {bone.name: bone for bone in rig.handle_bones().values()}
        for group in {curve.group.name for curve in keyed_curves(rig.armature) if curve.group is not None}:
            if group in bones:
                bones[group].location = (0, 0, 0)
    for each in data:
        each.action_influence = 0.0
    try:
        yield
    finally:
        for each, influence in zip(data, before, strict=True):
            each.action_influence = influence


@contextmanager
def _hidden(objects: Iterable[bpy.types.Object]) -> Iterator[None]:
    """Hides meshes, whose vertices would be deformed in every frame; their shape keys are evaluated all the same."""
    shown = [obj for obj in objects if not obj.hide_viewport]
    for obj in shown:
        obj.hide_viewport = True
    try:
        yield
    finally:
        for obj in shown:
            obj.hide_viewport = False


def _sample(
    rig: Rig, scene: bpy.types.Scene, board: Board, frames: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is shown (F, K), how far the handles of the gaze pull (F, K), and the head's own coefficients (F, E)."""
    now = scene.frame_current, scene.frame_subframe
    totals, gazes, coefficients = [], [], []
    with _hidden(meshes_of(rig.armature)):
        for frame in frames.tolist():
            scene.frame_set(frame)
            depsgraph = bpy.context.evaluated_depsgraph_get()
            blocks = rig.mesh.data.shape_keys.evaluated_get(depsgraph).key_blocks
            totals.append([blocks[name].value + blocks[handles_name(name)].value for name in board.sliders])
            coefficients.append([blocks[name].value for name in rig.expression_names])
            bones = rig.armature.evaluated_get(depsgraph).pose.bones
            moved = {name: bones[bone.name] for name, bone in rig.handle_bones().items()}
            places = places_of(rig, board, moved, only_gaze=True)
            gazes.append(board.pull(places))
        scene.frame_set(now[0], subframe=now[1])
    return np.array(totals), np.array(gazes), np.array(coefficients)


def _slider_curves(values: Mapping[str, np.ndarray], frames: np.ndarray) -> Iterator[Curve]:
    for name, column in values.items():
        yield curve_of(value_path(name), 0, EXPRESSIONS, column, frames)


def _handle_curves(rig: Rig, board: Board, frames: np.ndarray, places: Places) -> Iterator[Curve]:
    bones = rig.handle_bones()
    for (name, axis), values in places.items():
        bone = bones[name].name
        path = f"{bone_path(bone)}.location"
        yield curve_of(path, "xyz".index(axis), bone, values * board.travel, frames)


def _push(target: Any, curves: Iterator[Curve], frames: np.ndarray) -> None:
    action = new_action(datablock_name(target.name, f" {CONTROLS.lower()}"), target)
    action[LAYER_PROPERTY] = CONTROLS
    for curve in curves:
        add_curve(action, curve)
    strip = push_strip(target, action, CONTROLS, int(frames[0]))
    # Where no curve has a second key, Blender makes the strip a frame long.
    strip.action_frame_end = max(strip.action_frame_end, float(frames[-1]))
    strip.frame_end = float(frames[-1])
    strip.extrapolation = "NOTHING"
