"""Actions, F-curves and NLA strips, with keyframes in bulk, in every supported version of Blender.

Up to Blender 4.3 an action holds the curves of one data-block. From 4.4 on an action has slots, one for each
data-block, and the curves of a slot are in a channelbag; 5.0 removed the old interface. The actions made here have one
slot. Only this module depends on the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import bpy
import numpy as np

_LINEAR: Final = 1
"""The keyframe interpolation LINEAR as the number that `foreach_set` takes."""


class Curve(NamedTuple):
    """The keyframes of one animated number."""

    path: str
    """RNA data path of the property."""
    index: int
    """Index into an array property; 0 for a single value."""
    group: str
    """Name of the curve's group in the editors."""
    frames: np.ndarray
    """(K,) integer frames in ascending order."""
    values: np.ndarray
    """(K,)"""


def new_action(name: str, target: bpy.types.ID) -> bpy.types.Action:
    """Makes an empty action for data-blocks of the type of `target`."""
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
    return _curve_container(action).fcurves


def add_curve(action: bpy.types.Action, curve: Curve) -> bpy.types.FCurve:
    """Adds one curve with linear interpolation. With a key on every frame, Blender's default easing would jitter."""
    container = _curve_container(action)
    fcurve = container.fcurves.new(curve.path, index=curve.index)
    fcurve.group = container.groups.get(curve.group) or container.groups.new(curve.group)
    points = fcurve.keyframe_points
    points.add(len(curve.frames))
    points.foreach_set("co", np.stack((curve.frames, curve.values), 1).astype(np.float32).ravel())
    points.foreach_set("interpolation", np.full(len(curve.frames), _LINEAR, np.int32))
    fcurve.update()
    return fcurve


def push_strip(target: bpy.types.ID, action: bpy.types.Action, name: str, start: int) -> bpy.types.NlaStrip:
    """Adds an action as a strip on a new NLA track above all others. The strip replaces the values of those below."""
    data = target.animation_data or target.animation_data_create()
    track = data.nla_tracks.new()
    track.name = name
    strip = track.strips.new(name, start, action)
    if hasattr(strip, "action_slot"):
        strip.action_slot = action.slots[0]
    strip.name, strip.blend_type, strip.extrapolation = name, "REPLACE", "HOLD"
    return strip


def remove_strip(target: bpy.types.ID, track: bpy.types.NlaTrack, strip: bpy.types.NlaStrip) -> None:
    """Removes a strip, and its track and its action if nothing else uses them."""
    action = strip.action
    track.strips.remove(strip)
    if not len(track.strips):
        target.animation_data.nla_tracks.remove(track)
    if action.users == 0:
        bpy.data.actions.remove(action)


def swap_action(strip: bpy.types.NlaStrip, action: bpy.types.Action) -> None:
    """Replaces the action that a strip plays; the strip stays where it is."""
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


def _curve_container(action: bpy.types.Action) -> Any:
    """The object that holds the curves and their groups: the channelbag of the action's slot, or before 4.4 the
    action.
    """
    if not hasattr(action, "slots"):
        return action
    return action.layers[0].strips[0].channelbag(action.slots[0], ensure=True)
