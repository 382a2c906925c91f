"""Lip sync as keyframes in NLA strips above the rig's performances.

The strips replace the sliders of the mouth and the rotation of the jaw alone: brows, lids, gaze and the head's motion
go on as they are below. On a FLAME head, whose expressions have no names, they replace all expressions. A performance
on the handles of the face board rests there as well. Keys set by hand are in actions of their own (see `performance`)
and change the lip sync as they change a performance.

The strips of a sound whose lip sync is made again stay where they are, and play the new keys.
"""

from __future__ import annotations

from typing import Any, Final

import bpy

from .action import free_for_keys, push_strip, strips_of, swap_action
from .conventions import default_camera_pose
from .data import TrackData
from .handle_strips import add_rest
from .performance import (
    LAYER_PROPERTY,
    Applied,
    Placement,
    actions_of,
    add_neutral_strip,
    check_ready,
    has_performance,
    layer_of,
)
from .rig_properties import Rig
from .sliders import MOUTH_HANDLES, region_of
from .steps import Steps

SPEECH: Final = "Lip sync"
"""The value of `performance.LAYER_PROPERTY` on the strips' actions."""
SOUND_PROPERTY: Final = "effigy_sound"
"""Custom property on the strips' actions: the name of the sound."""
FADE: Final = 4.0
"""Frames in which a strip takes over from what lies below it, and hands back."""


def mouth_sliders(rig: Rig) -> tuple[str, ...]:
    """The expressions that lip sync keys: those of mouth and jaw, or all where none has such a name."""
    named = tuple(name for name in rig.expression_names if region_of(name) in ("mouth", "jaw"))
    return named or tuple(rig.expression_names)


def add_speech_steps(rig: Rig, track: TrackData, name: str, frame_start: int) -> Steps[Applied]:
    """Keys the mouth of `track` on the rig, in strips called `name` above all others, from `frame_start` on; or in
    place of the keys that the strips of the sound `name` have already.

    In steps of a few milliseconds (see `steps`).
    """
    check_ready(rig, track)
    placement = Placement(default_camera_pose(track.head_to_camera), frame_start)
    faces, bones = yield from actions_of(
        rig, track, placement, f"{name}, lips", f"{name}, jaw", mouth_sliders(rig), ("jaw",)
    )
    add_rest(rig, bones, MOUTH_HANDLES if mouth_sliders(rig) != rig.expression_names else ("",))
    alone, key, set_aside = not has_performance(rig), rig.mesh.data.shape_keys, []
    add_neutral_strip(key, rig.slider_names)
    for target, action, blend in ((key, faces, "ADD"), (rig.armature, bones, "COMBINE")):
        action[LAYER_PROPERTY], action[SOUND_PROPERTY] = SPEECH, name
        if earlier := [strip for _, strip in strips_of(target) if _is_of(strip, name)]:
            _replace(earlier, action)
            continue
        aside = free_for_keys(target, blend)
        strip = push_strip(target, action, name, frame_start)
        if alone and aside is None:
            strip.extrapolation = "HOLD"
        else:
            strip.extrapolation = "NOTHING"
            strip.blend_in = strip.blend_out = min(FADE, (strip.frame_end - strip.frame_start) / 4)
        set_aside += [aside] if aside else []
    return Applied(placement, tuple(set_aside))


def has_speech(rig: Rig, name: str) -> bool:
    """Whether the rig has strips of the sound `name`."""
    return any(_is_of(strip, name) for _, strip in strips_of(rig.armature))


def _is_of(strip: Any, name: str) -> bool:
    return layer_of(strip) == SPEECH and strip.action.get(SOUND_PROPERTY) == name


def _replace(strips: list[Any], action: bpy.types.Action) -> None:
    for strip in strips:
        old = strip.action
        swap_action(strip, action)
        if old.users == 0:
            bpy.data.actions.remove(old)
