"""The takes of a rig, which are its performances in strips, as channels that can be sampled and keyed.

A take is the strips of one performance on the shape keys and on the armature: the tracked performance, a transferred
one, a live one or a lip sync. A channel is one slider, or a rotation or location of a bone with all of its numbers.

The numbers of different channels are compared by how far they move the surface of the head: a channel's `reach` is the
distance that the farthest vertex moves for a change of one, in millimetres at the head model's own size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import bpy
import numpy as np

from ..errors import EffigyError
from .action import Curve, add_curve, bone_path, check_not_tweaked, curves_of, strips_of, value_path
from .data import JOINT_NAMES
from .handle_strips import handles_in_strips
from .keys import Keys, cut_at, keys_of, linear_keys, replace_between
from .performance import CONTROLS, EXPRESSIONS, NEUTRAL, TRACKED, layer_of
from .rig_properties import Rig
from .rotations import align_signs
from .sliders import REGIONS, region_of

PARTS: Final = (*REGIONS, "head")
"""What can be chosen: the regions of the sliders, with the bones of jaw and eyes, and the motion of head and neck."""
_PART_OF_JOINT: Final = {"root": "head", "neck": "head", "jaw": "jaw", "eye_L": "eyes", "eye_R": "eyes"}
_REACH_OF_JOINT: Final = {"root": 250.0, "neck": 150.0, "jaw": 100.0, "eye_L": 12.0, "eye_R": 12.0}
"""Millimetres from a joint to the farthest part of the face that it turns."""


@dataclass(frozen=True)
class Take:
    """The strips of one performance; None where there is none on the shape keys or on the armature."""

    name: str
    face: bpy.types.NlaStrip | None
    head: bpy.types.NlaStrip | None

    @property
    def strips(self) -> list[Any]:
        return [strip for strip in (self.face, self.head) if strip is not None]

    @property
    def span(self) -> tuple[float, float]:
        """The scene's frames from the first to the last that the strips play."""
        return min(s.frame_start for s in self.strips), max(s.frame_end for s in self.strips)


@dataclass(frozen=True)
class Channel:
    """The curves of one slider, or of a bone's rotation or location."""

    name: str
    """Of the slider; or the joint's."""
    part: str
    """One of `PARTS`."""
    kind: str
    """`value`, `rotation` or `location`."""
    path: str
    strip: bpy.types.NlaStrip
    curves: tuple[bpy.types.FCurve, ...]
    """As many as the property has numbers."""
    reach: float
    """Millimetres."""

    def to_action(self, frames: np.ndarray | float) -> Any:
        """The scene's frames -> the action's."""
        return self.strip.action_frame_start + (frames - self.strip.frame_start) / self.strip.scale

    def to_scene(self, frames: np.ndarray) -> np.ndarray:
        """The action's frames -> the scene's."""
        return self.strip.frame_start + (frames - self.strip.action_frame_start) * self.strip.scale

    def sample(self, frames: np.ndarray) -> np.ndarray:
        """(F, C) the values at the scene's frames (F,); quaternions with unit length and without jumps of sign."""
        times = self.to_action(np.asarray(frames, np.float64))
        values = np.array([[curve.evaluate(time) for curve in self.curves] for time in times.tolist()], np.float64)
        if self.kind == "rotation":
            values = align_signs(self.whole(values))
        return values

    def whole(self, values: np.ndarray) -> np.ndarray:
        """(F, C) values, quaternions with unit length."""
        if self.kind != "rotation":
            return values
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)

    def mixed(self, values: np.ndarray, towards: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(F, C) `values` (F, C) that go over into `towards` (F, C) by `weights` (F,)."""
        if self.kind == "rotation":
            # The nearer of the two quaternions of the same rotation.
            towards = towards * np.where((values * towards).sum(1) < 0, -1.0, 1.0)[:, None]
        return self.whole(values + weights[:, None] * (towards - values))

    def key(self, frames: np.ndarray, values: np.ndarray) -> None:
        """Replaces the keys from the first to the last of the scene's `frames` (F,) by `values` (F, C)."""
        times = self.to_action(np.asarray(frames, np.float64))
        self.replace(times, [linear_keys(times, column) for column in values.T])

    def replace(self, times: np.ndarray, keys: Iterable[Keys]) -> None:
        """Replaces the keys from the first to the last of the action's frames `times` in every curve; outside, the
        curves keep their shape.
        """
        for curve, new in zip(self.curves, keys, strict=True):
            self.cut(times[0], times[-1], curve)
            replace_between(curve, times[0], times[-1], new)

    def cut(self, first: float, last: float, curve: bpy.types.FCurve) -> None:
        """Inserts keys at both of these frames of the action, and beyond them where there are none, so that what
        changes between them changes nothing outside.
        """
        begin, end = self.strip.action_frame_start, self.strip.action_frame_end
        frames = keys_of(curve)["co"][:, 0]
        beyond = ((first - 1, frames[0] >= first - 1e-3), (last + 1, frames[-1] <= last + 1e-3))
        for frame, is_bare in beyond:
            if is_bare and begin <= frame <= end and np.abs(frames - frame).min() > 1e-3:
                # There the curve holds the value of its nearest key.
                curve.keyframe_points.insert(frame, curve.evaluate(frame)).interpolation = "LINEAR"
        for frame in (first, last):
            cut_at(curve, float(frame))


def takes_of(rig: Rig) -> dict[str, Take]:
    """The rig's takes by their names: the tracked performance first, then from below upwards. Of a strip that was cut,
    the first piece.
    """
    found: dict[str, dict[str, Any]] = {}
    for part, target in (("face", rig.mesh.data.shape_keys), ("head", rig.armature)):
        for _, strip in strips_of(target):
            layer = layer_of(strip)
            if layer is not None and layer != NEUTRAL:
                name = TRACKED if layer == TRACKED else strip.name
                found.setdefault(name, {}).setdefault(part, strip)
    takes = {name: Take(name, parts.get("face"), parts.get("head")) for name, parts in found.items()}
    return dict(sorted(takes.items(), key=lambda item: item[0] != TRACKED))


def take_of(rig: Rig, name: str = "") -> Take:
    """The take called `name`; without a name the tracked performance, what was taken from the face board to the sliders
    in its place, or the first. Raises an `EffigyError` where there
    is none or where it cannot be changed.
    """
    takes = takes_of(rig)
    if not takes:
        raise EffigyError(f"“{rig.armature.name}” has no performance: import a video or transfer a performance first.")
    if name and name not in takes:
        raise EffigyError(f"“{rig.armature.name}” has no take “{name}”: it has {', '.join(takes)}.")
    controls, names = takes.get(CONTROLS), list(takes)
    if not name and controls is not None and not any(strip.mute for strip in controls.strips):
        name = CONTROLS
    take = takes[name or names[0]]
    if controls is not None and names.index(take.name) <= names.index(CONTROLS) and handles_in_strips(rig):
        raise EffigyError(
            f"The performance of “{rig.armature.name}” is on its face controls, above the sliders that would be "
            "changed: press Sliders from Controls first, or mute the strips “Face controls”."
        )
    for target in (rig.mesh.data.shape_keys, rig.armature):
        check_not_tweaked(target)
    for strip in take.strips:
        if strip.action.library is not None:
            raise EffigyError(f"The keys of “{take.name}” are linked from another file: make them local first.")
    return take


def channels_of(rig: Rig, take: Take, parts: Collection[str] = PARTS, only: str = "") -> list[Channel]:
    """The take's channels in some `parts` of the face whose names contain `only`. Raises an `EffigyError` if there are
    none.
    """
    joints = {rig.bone_name(joint): joint for joint in JOINT_NAMES}
    sliders = {value_path(name): name for name in rig.slider_names}
    found = []
    for strip in take.strips:
        by_path: dict[str, dict[int, Any]] = {}
        for curve in curves_of(strip.action):
            if len(curve.keyframe_points):
                by_path.setdefault(curve.data_path, {})[curve.array_index] = curve
        for path, curves in by_path.items():
            channel = _channel(rig, strip, path, curves, sliders, joints)
            if channel is not None and channel.part in parts and only.lower() in channel.name.lower():
                found.append(channel)
    if not found:
        raise EffigyError(f"“{take.name}” has no keys of what was chosen: choose other parts of the face.")
    return found


def slider_channel(rig: Rig, take: Take, name: str) -> Channel | None:
    """The channel of a slider; one without keys gets a key at zero, and None if the rig has no such slider."""
    if name not in rig.slider_names or take.face is None:
        return None
    path = value_path(name)
    curve = next((each for each in curves_of(take.face.action) if each.data_path == path), None)
    if curve is None:
        frame = np.array((take.face.action.frame_range[0],))
        curve = add_curve(take.face.action, Curve(path, 0, EXPRESSIONS, frame, np.zeros(1)))
    return Channel(name, region_of(name), "value", path, take.face, (curve,), _reach_of_slider(rig, name))


def grid_of(channels: Collection[Channel], first: float, last: float) -> np.ndarray:
    """(F,) the scene's frames from `first` to `last`, both included, at which the channels are sampled: where they have
    keys, and at every whole frame in longer gaps.
    """
    keyed: list[np.ndarray] = [np.array((first, last))]
    for channel in channels:
        keyed += [channel.to_scene(keys_of(curve)["co"][:, 0].astype(np.float64)) for curve in channel.curves]
    frames = np.unique(np.round(np.concatenate(keyed), 3))
    frames = frames[(frames >= first - 1e-3) & (frames <= last + 1e-3)]
    step = channels_step(channels)
    gaps = [
        np.arange(before + step, after - 0.5 * step, step)
        for before, after in pairwise(frames.tolist())
        if after - before > 1.5 * step
    ]
    return np.sort(np.concatenate([frames, *gaps]))


def channels_step(channels: Collection[Channel]) -> float:
    """The scene's frames in a frame of the take."""
    return max(next(iter(channels)).strip.scale, 1e-3)


def _channel(
    rig: Rig,
    strip: Any,
    path: str,
    curves: dict[int, Any],
    sliders: dict[str, str],
    joints: dict[str, str],
) -> Channel | None:
    """None for curves that an artist has added to the action, and for those of a bone with fewer than all numbers."""
    if path in sliders:
        name = sliders[path]
        return Channel(name, region_of(name), "value", path, strip, (curves[0],), _reach_of_slider(rig, name))
    for bone, joint in joints.items():
        base = bone_path(bone)
        for kind, ending, size in (("rotation", "rotation_quaternion", 4), ("location", "location", 3)):
            if path == f"{base}.{ending}" and all(index in curves for index in range(size)):
                # A quaternion's vector is half of the angle.
                reach = 1000.0 if kind == "location" else 2 * _REACH_OF_JOINT[joint]
                numbers = tuple(curves[index] for index in range(size))
                return Channel(joint, _PART_OF_JOINT[joint], kind, path, strip, numbers, reach)
    return None


_reaches: Final[dict[tuple[int, int, str], float]] = {}
"""By a mesh's `session_uid`, its number of vertices and a slider: what `_reach_of_slider` has measured."""


def _reach_of_slider(rig: Rig, name: str) -> float:
    mesh = rig.mesh.data
    key = mesh.session_uid, len(mesh.vertices), name
    if key not in _reaches:
        block, count = rig.key_blocks.get(name), len(mesh.vertices)
        if block is None:
            return 1.0
        moved, rest = np.empty(3 * count, np.float32), np.empty(3 * count, np.float32)
        block.data.foreach_get("co", moved)
        block.relative_key.data.foreach_get("co", rest)
        far = float(np.linalg.norm((moved - rest).reshape(-1, 3), axis=1).max(initial=0.0))
        _reaches[key] = max(1000 * far, 1e-3)
    return _reaches[key]
