"""Another performance than the tracked one, in strips above all others: transferred from another person, or live."""

from __future__ import annotations

import bpy

from .action import free_for_keys, push_strip
from .conventions import default_camera_pose
from .data import TrackData
from .handle_strips import add_rest
from .performance import (
    LAYER_PROPERTY,
    TRANSFERRED,
    Applied,
    Placement,
    actions_of,
    add_neutral_strip,
    check_ready,
    has_performance,
    placement_of,
    store_placement,
)
from .rig_properties import Rig
from .steps import Steps


def add_performance_steps(rig: Rig, track: TrackData, name: str, frame_start: int) -> Steps[Applied]:
    """Adds a performance to the rig, from `frame_start` on, in strips called `name` above all existing ones.

    In steps of a few milliseconds (see `steps`).
    """
    check_ready(rig, track)
    stored = placement_of(rig)
    camera_pose = default_camera_pose(track.head_to_camera) if stored is None else stored.camera_pose
    placement = Placement(camera_pose, frame_start)
    faces, bones = yield from actions_of(rig, track, placement, f"{name}, expressions", f"{name}, head")
    set_aside = add_strips(rig, faces, bones, name, frame_start)
    if stored is None:
        store_placement(rig, placement)
    return Applied(placement, set_aside)


def add_strips(
    rig: Rig, faces: bpy.types.Action, bones: bpy.types.Action, name: str, frame_start: int
) -> tuple[str, ...]:
    """Adds the actions of a performance as strips called `name` above all others, and rest to the handles that strips
    below move. Returns `Applied.set_aside`.
    """
    add_rest(rig, bones)
    alone, key = not has_performance(rig), rig.mesh.data.shape_keys
    add_neutral_strip(key, rig.slider_names)
    set_aside = []
    for target, action, blend in ((key, faces, "ADD"), (rig.armature, bones, "COMBINE")):
        action[LAYER_PROPERTY] = TRANSFERRED
        aside = free_for_keys(target, blend)
        strip = push_strip(target, action, name, frame_start)
        # Before and after the strip, what lies below it takes effect, if there is anything.
        strip.extrapolation = "HOLD" if alone and aside is None else "NOTHING"
        set_aside += [aside] if aside else []
    return tuple(set_aside)
