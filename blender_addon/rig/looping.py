"""A range of a take as a loop without a seam, in strips of its own above the others."""

from __future__ import annotations

import bpy
import numpy as np

from ..errors import EffigyError
from .action import Curve, add_curve, free_for_keys, new_action, push_strip, set_aside_note
from .cleaning import Choice
from .curve_filters import smoothstep
from .handle_strips import add_rest
from .performance import EXPRESSIONS, LAYER_PROPERTY, TRANSFERRED
from .rig_properties import Rig
from .takes import Channel, takes_of


def loop_range(rig: Rig, choice: Choice, count: int, fade: float) -> tuple[str, str]:
    """Adds strips that play the chosen range `count` times, from where it begins. In the last `fade` frames it goes
    over into what comes before the range, so that its end and its begin meet.

    Returns the name of the strips and the sentence of `performance.Applied.note`.
    """
    take, channels, frames = choice.resolve(rig)
    first, last = float(frames[0]), float(frames[-1])
    if last - first < 2:
        raise EffigyError("A loop needs at least three frames: choose a longer range.")
    fade = min(fade, (last - first) / 2)
    weights = smoothstep((frames - (last - fade)) / max(fade, 1e-3))
    name = _free_name(f"{take.name} loop", takes_of(rig))
    set_aside = []
    for target, strip, blend, part in (
        (rig.mesh.data.shape_keys, take.face, "ADD", "expressions"),
        (rig.armature, take.head, "COMBINE", "head"),
    ):
        own = [channel for channel in channels if channel.strip == strip]
        if not own:
            continue
        action = new_action(f"{rig.mesh.name} {name}, {part}", target)
        action[LAYER_PROPERTY] = TRANSFERRED
        for channel in own:
            values, earlier = channel.sample(frames), channel.sample(frames - (last - first))
            _add(action, channel, frames, channel.mixed(values, earlier, weights))
        if target == rig.armature:
            add_rest(rig, action)
        if aside := free_for_keys(target, blend):
            set_aside.append(aside)
        looped = push_strip(target, action, name, round(first))
        looped.repeat, looped.extrapolation = count, "NOTHING"
    return name, set_aside_note(set_aside, "below it")


def _add(action: bpy.types.Action, channel: Channel, frames: np.ndarray, values: np.ndarray) -> None:
    group = EXPRESSIONS if channel.kind == "value" else channel.path.split('"')[1]
    for index, column in enumerate(values.T):
        add_curve(action, Curve(channel.path, index, group, frames, column))


def _free_name(name: str, taken: dict[str, object]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} {number}", number + 1
    return free
