"""Keyframes in bulk, in every version of Blender.

Up to 4.3 an action holds the curves of one data-block. From 4.4 it has slots, one for each data-block, with their
curves in channelbags, and 5.0 took the old way away. Here an action has one slot, and nobody else needs to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import bpy
import numpy as np

_LINEAR: Final = 1
"""`interpolation` as the number that bulk access takes."""


class Curve(NamedTuple):
    path: str
    index: int
    """Of the array element; 0 for a single value."""
    group: str
    frames: np.ndarray
    """(K,) whole frames in order."""
    values: np.ndarray
    """(K,)"""


def new_action(name: str, target: bpy.types.ID) -> bpy.types.Action:
    """An empty action for data-blocks of the type of `target`."""
    action = bpy.data.actions.new(name)
    if hasattr(action, "slots"):
        slot = action.slots.new(id_type=target.id_type, name=name)
        strip = action.layers.new("Layer").strips.new(type="KEYFRAME")
        strip.channelbag(slot, ensure=True)
    else:
        action.id_root = target.id_type
    return action


def curves_of(action: bpy.types.Action) -> bpy.types.bpy_prop_collection:
    """The F-curves of an action with one slot."""
    return _bag(action).fcurves


def add_curve(action: bpy.types.Action, curve: Curve) -> bpy.types.FCurve:
    """Add one curve, its keys joined by straight lines: with one at every frame, easing between them would jitter."""
    bag = _bag(action)
    made = bag.fcurves.new(curve.path, index=curve.index)
    made.group = bag.groups.get(curve.group) or bag.groups.new(curve.group)
    points = made.keyframe_points
    points.add(len(curve.frames))
    points.foreach_set("co", np.stack((curve.frames, curve.values), 1).astype(np.float32).ravel())
    points.foreach_set("interpolation", np.full(len(curve.frames), _LINEAR, np.int32))
    made.update()
    return made


def push_strip(target: bpy.types.ID, action: bpy.types.Action, name: str, start: int) -> bpy.types.NlaStrip:
    """Put an action in a strip on an NLA track of its own, above all others; it replaces what is below."""
    data = target.animation_data or target.animation_data_create()
    track = data.nla_tracks.new()
    track.name = name
    strip = track.strips.new(name, start, action)
    if hasattr(strip, "action_slot"):
        strip.action_slot = action.slots[0]
    strip.name, strip.blend_type, strip.extrapolation = name, "REPLACE", "HOLD"
    return strip


def remove_strip(target: bpy.types.ID, track: bpy.types.NlaTrack, strip: bpy.types.NlaStrip) -> None:
    """Take a strip away, with its track and its action where nothing else uses them."""
    action = strip.action
    track.strips.remove(strip)
    if not len(track.strips):
        target.animation_data.nla_tracks.remove(track)
    if action.users == 0:
        bpy.data.actions.remove(action)


def swap_action(strip: bpy.types.NlaStrip, action: bpy.types.Action) -> None:
    """Let a strip play another action, from where it lies."""
    strip.action = action
    if hasattr(strip, "action_slot"):
        strip.action_slot = action.slots[0]
    strip.action_frame_start, strip.action_frame_end = action.frame_range


def strips_of(target: bpy.types.ID) -> Iterator[tuple[Any, Any]]:
    """Every (track, strip) of a data-block."""
    if target.animation_data is not None:
        for track in target.animation_data.nla_tracks:
            for strip in track.strips:
                yield track, strip


def _bag(action: bpy.types.Action) -> Any:
    """What holds the curves and their groups: the action itself, or its slot's channelbag."""
    if not hasattr(action, "slots"):
        return action
    return action.layers[0].strips[0].channelbag(action.slots[0], ensure=True)
