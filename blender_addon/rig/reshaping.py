"""Changes of a take that keep its keys where they are: a region scaled, a neutral face taken off, sides swapped.

Keys and handles get new values. Only where the numbers of a channel have keys at different frames, or a part of a take
is mirrored, is each frame keyed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from ..errors import EffigyError
from .cleaning import Choice
from .curve_filters import soft_range
from .data import JOINT_NAMES
from .keys import Keys, cut_at, inside, keys_of, set_keys
from .performance import widen_slider
from .rig_properties import Rig
from .rotations import align_signs, axis_angle_to_quaternion, quaternion_to_axis_angle
from .rotations import quaternion_multiply as multiply
from .sliders import MIRROR_JOINT, mirror_name
from .takes import PARTS, Channel, channels_of, channels_step, slider_channel

_ABOUT_MEAN: Final = ("head", "eyes")
"""Parts that are scaled about where they are on the average; the others about rest."""
_REFLECTED: Final = {"value": (1,), "rotation": (1, 1, -1, -1), "location": (-1, 1, 1)}
"""Signs of a channel's numbers after a reflection. The x axis of every bone is normal to the mirror plane."""


def scale_parts(rig: Rig, choice: Choice, factor: float, fade: float) -> int:
    """Multiplies the sliders, and the angles of the bones, by `factor`. Head and gaze are scaled about their mean, jaw
    and sliders about rest. Returns the number of channels.
    """
    _, channels, frames = choice.resolve(rig)
    for channel in channels:
        values = channel.sample(frames)
        mean = values.mean(0) if channel.part in _ABOUT_MEAN else np.zeros(values.shape[1])
        if channel.kind == "rotation":
            pivot = mean / np.linalg.norm(mean) if channel.part in _ABOUT_MEAN else np.array((1.0, 0, 0, 0))
            change = lambda values, pivot=pivot: multiply(pivot, _power(multiply(_inverse(pivot), values), factor))
        else:
            change = lambda values, mean=mean: mean + factor * (values - mean)
        _reshape(rig, channel, choice, frames, change, fade)
    return len(channels)


def offset_neutral(rig: Rig, choice: Choice, frame: float, amount: float) -> int:
    """Takes `amount` of the pose in the scene's `frame` off every frame, so that this pose becomes the neutral face.
    Returns the number of channels.
    """
    _, channels, frames = choice.resolve(rig)
    for channel in channels:
        neutral = channel.sample(np.array((frame,)))[0]
        if channel.kind == "rotation":
            back = _power(_inverse(neutral), amount)
            # The product of many with one is the inverse of that of the one with the many, each inverted.
            change = lambda values, back=back: _inverse(multiply(_inverse(back), _inverse(values)))
        else:
            change = lambda values, neutral=neutral: values - amount * neutral
        _reshape(rig, channel, choice, frames, change, 0.0)
    return len(channels)


def mirror_take(rig: Rig, choice: Choice, fade: float) -> int:
    """Swaps the left and the right side of the face, and reflects the head's motion. Returns the number of channels."""
    take, channels, frames = replace(choice, parts=PARTS, only="").resolve(rig)
    if not any(map(mirror_name, rig.expression_names)):
        raise EffigyError(f"The expressions of “{rig.head_name}” have no left and right side: nothing can be mirrored.")
    for channel in channels:
        if channel.kind == "value" and (other := mirror_name(channel.name)):
            slider_channel(rig, take, other)
    channels = channels_of(rig, take)
    by_name = {(channel.name, channel.kind): channel for channel in channels}
    # Everything is read before anything is written.
    if np.isinf(choice.first):
        sources = [_mirrored(by_name, channel) for channel in channels]
        taken = [[keys_of(curve) for curve in source.curves] for source in sources]
        for channel, keys in zip(channels, taken, strict=True):
            for curve, sign, new in zip(channel.curves, _REFLECTED[channel.kind], keys, strict=True):
                for name in ("co", "handle_left", "handle_right"):
                    new[name][:, 1] *= sign
                set_keys(curve, new)
    else:
        weights = soft_range(frames, frames[0], frames[-1], fade)
        read = [(channel, _mirrored(by_name, channel).sample(frames), channel.sample(frames)) for channel in channels]
        for channel, other, own in read:
            channel.key(frames, channel.mixed(own, other * _REFLECTED[channel.kind], weights))
    for channel in channels:
        if channel.kind == "value":
            block, source = (rig.key_blocks[each.name] for each in (channel, _mirrored(by_name, channel)))
            widen_slider(block, source.slider_min, source.slider_max)
    return len(channels)


def _mirrored(by_name: dict[tuple[str, str], Channel], channel: Channel) -> Channel:
    """The channel of the other side; the channel itself if it has none."""
    name = channel.name
    other = MIRROR_JOINT.get(name, name) if name in JOINT_NAMES else mirror_name(name) or name
    return by_name.get((other, channel.kind), channel)


def _reshape(
    rig: Rig,
    channel: Channel,
    choice: Choice,
    frames: np.ndarray,
    change: Callable[[np.ndarray], np.ndarray],
    fade: float,
) -> None:
    """Changes the values (N, C) of the keys within the scene's `frames`, and their handles; `fade`: frames of the
    scene.
    """
    is_part, begin, end = not np.isinf(choice.first), *channel.to_action(frames[[0, -1]])
    fade /= channels_step([channel])
    if is_part:
        for curve in channel.curves:
            channel.cut(begin, end, curve)
            for edge in (begin - 1, end + 1) if fade <= 0 else (begin + fade, end - fade):
                cut_at(curve, float(edge))
    keys = list(map(keys_of, channel.curves))

    def weighted(times: np.ndarray, values: np.ndarray) -> np.ndarray:
        weights = soft_range(times, begin, end, fade)[:, None] if is_part else 1.0
        return channel.whole(values + weights * (change(channel.whole(values)) - values))

    if all(np.array_equal(each["co"][:, 0], keys[0]["co"][:, 0]) for each in keys):
        at = inside(keys[0], begin, end) if is_part else slice(None)
        changed: list[Keys] = [{name: numbers.copy() for name, numbers in each.items()} for each in keys]
        for name in ("handle_left", "handle_right", "co"):
            values = weighted(keys[0]["co"][at, 0], np.stack([each[name][at, 1] for each in keys], 1))
            for each, column in zip(changed, values.T, strict=True):
                each[name][at, 1] = column
        for curve, new in zip(channel.curves, changed, strict=True):
            set_keys(curve, new)
    else:
        channel.key(frames, weighted(channel.to_action(frames), channel.sample(frames)))
    if channel.kind == "value":
        values = keys_of(channel.curves[0])["co"][:, 1]
        block = rig.key_blocks[channel.name]
        # A slider that cannot be negative, such as that of a smile, stays so.
        widen_slider(block, float(values.min()) if block.slider_min < 0 else 0.0, float(values.max()))


def _inverse(quaternion: np.ndarray) -> np.ndarray:
    return quaternion * (1, -1, -1, -1)


def _power(quaternions: np.ndarray, factor: float) -> np.ndarray:
    """Rotations about the same axes by `factor` times the angle, from one key to the next without jumps of sign."""
    powers = axis_angle_to_quaternion(factor * quaternion_to_axis_angle(quaternions))
    return align_signs(powers) if powers.ndim > 1 else powers
