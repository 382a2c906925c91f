"""Actions, F-curves and NLA strips, with keyframes in bulk, in every supported version of Blender.

Up to Blender 4.3 an action holds the curves of one data-block. From 4.4 on an action has slots, one for each
data-block, and the curves of a slot are in a channelbag; 5.0 removed the old interface. The actions made here have one
slot. Only this module depends on the difference.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import floor
from typing import Any, Final, NamedTuple

import bpy
import numpy as np

from ..errors import EffigyError

CONSTANT: Final = 0
LINEAR: Final = 1
"""Interpolations of keyframes as the numbers that `foreach_set` takes."""


class Curve(NamedTuple):
    """The keyframes of one animated number."""

    path: str
    """RNA data path of the property."""
    index: int
    """Index into an array property; 0 for a single value."""
    group: str
    """Name of the curve's group in the editors."""
    frames: np.ndarray
    """(K,) in ascending order; fractions of a frame are allowed."""
    values: np.ndarray
    """(K,)"""


def value_path(name: str) -> str:
    """The data path of a slider's value, from the shape keys."""
    return f'key_blocks["{bpy.utils.escape_identifier(name)}"].value'


def bone_path(bone: str) -> str:
    """The data path of a pose bone, from the armature."""
    return f'pose.bones["{bpy.utils.escape_identifier(bone)}"]'


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


def add_curve(action: bpy.types.Action, curve: Curve, interpolation: int = LINEAR) -> bpy.types.FCurve:
    """Adds one curve. Its interpolation is linear because, with a key on every frame, Blender's default easing would
    jitter.
    """
    container = _curve_container(action)
    fcurve = container.fcurves.new(curve.path, index=curve.index)
    fcurve.group = container.groups.get(curve.group) or container.groups.new(curve.group)
    points = fcurve.keyframe_points
    points.add(len(curve.frames))
    points.foreach_set("co", np.stack((curve.frames, curve.values), 1).astype(np.float32).ravel())
    points.foreach_set("interpolation", np.full(len(curve.frames), interpolation, np.int32))
    fcurve.update()
    return fcurve


def play_action(target: bpy.types.ID, action: bpy.types.Action) -> None:
    """Makes an action of `new_action` the one that a data-block plays, in place of its own."""
    data = target.animation_data or target.animation_data_create()
    data.action = action
    if hasattr(data, "action_slot"):
        data.action_slot = action.slots[0]


def check_not_tweaked(target: bpy.types.ID) -> None:
    """Refuses a data-block of which a strip is being edited: Blender then changes neither its action nor its strips."""
    if target.animation_data is not None and target.animation_data.use_tweak_mode:
        raise EffigyError(f"A strip of “{target.name}” is being edited: leave its Tweak Mode (Tab), then try again.")


def free_for_keys(target: bpy.types.ID, blend: str) -> str | None:
    """Prepares a data-block for keys that are set by hand above its strips and combined with them by `blend`.

    An action that holds keys and is combined in another way keeps its effect: it becomes a strip above all others, as
    Blender's own *Push Down Action* makes it. Its name is returned.
    """
    check_not_tweaked(target)
    data = target.animation_data or target.animation_data_create()
    action = data.action
    if action is None or data.action_blend_type == blend or not _is_keyed(action, getattr(data, "action_slot", None)):
        data.action_blend_type = blend
        return None
    slot, start = getattr(data, "action_slot", None), floor(action.frame_range[0])
    track = data.nla_tracks.new()
    track.name = action.name
    strip = track.strips.new(action.name, start, action)
    if slot is not None:
        strip.action_slot = slot
    strip.action_frame_start = start
    strip.blend_type, strip.extrapolation = data.action_blend_type, data.action_extrapolation
    strip.influence = data.action_influence
    data.action = None
    data.action_blend_type = blend
    return action.name


def set_aside_note(names: Collection[str], where: str) -> str:
    """A sentence about the artist's actions that are strips now; empty if there are none."""
    return f"Your keys of {' and '.join(f'“{name}”' for name in names)} are now in strips {where}." if names else ""


def keyed_curves(target: bpy.types.ID) -> list[bpy.types.FCurve]:
    """The F-curves of the action that a data-block plays itself, above its strips."""
    data = target.animation_data
    if data is None or data.action is None:
        return []
    return _curves_for(data.action, getattr(data, "action_slot", None))


def _is_keyed(action: bpy.types.Action, slot: Any) -> bool:
    return len(_curves_for(action, slot)) > 0


def _curves_for(action: bpy.types.Action, slot: Any) -> list[bpy.types.FCurve]:
    """The F-curves of an action for one of its slots."""
    if slot is None:
        return [] if hasattr(action, "slots") else list(action.fcurves)
    bags = (strip.channelbag(slot) for layer in action.layers for strip in layer.strips)
    return [curve for bag in bags if bag is not None for curve in bag.fcurves]


def push_strip(
    target: bpy.types.ID, action: bpy.types.Action, name: str, start: int, scale: float = 1.0
) -> bpy.types.NlaStrip:
    """Adds an action as a strip on a new NLA track above all others. The strip replaces the values of those below.

    `scale`: frames of the scene for each frame of the action.
    """
    data = target.animation_data or target.animation_data_create()
    track = data.nla_tracks.new()
    track.name = name
    strip = track.strips.new(name, start, action)
    if hasattr(strip, "action_slot"):
        strip.action_slot = action.slots[0]
    strip.name, strip.blend_type, strip.extrapolation = name, "REPLACE", "HOLD"
    # The first frame of the action is the frame `start` of the scene even if its first key lies later.
    strip.action_frame_start = min(strip.action_frame_start, start)
    if scale != 1:
        strip.scale = scale
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
    """Replaces the action that a strip plays; the strip stays where it is. If both actions have the same frames, the
    strip plays those that it played before, because the artist may have cut it.
    """
    played, whole = (strip.action_frame_start, strip.action_frame_end), tuple(strip.action.frame_range)
    strip.action = action
    if hasattr(strip, "action_slot"):
        strip.action_slot = action.slots[0]
    same = tuple(action.frame_range) == whole
    strip.action_frame_start, strip.action_frame_end = played if same else action.frame_range


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
