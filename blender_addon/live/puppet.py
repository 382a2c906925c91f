"""Moves a rig by a performer's face, and says where its sliders and bones are then.

    target = target's neutral + intensity * (performer - performer's neutral)        (`channel_change`)

The target's neutral face comes from the rig's tracked performance. The jaw's channels turn the jaw's bone and the
eyeLook channels both eyes and lids, as in a track; on a FLAME head, whose ARKit sliders turn the jaw, these do. The
head turns about the neck and stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import radians
from typing import Final

import bpy
import numpy as np
from mathutils import Quaternion, Vector

from ..channel_change import REST_QUANTILE, bounds_of, opening_gains, scales_of
from ..errors import EffigyError
from ..rig.action import curves_of, strips_of, value_path
from ..rig.face_angles import rotate, rotation_path, turn_eye
from ..rig.handle_strips import handles_in_strips
from ..rig.joint_limits import JAW_OPEN, JAW_SIDEWAYS, JAW_TURNS, LOOK_SIDEWAYS, LOOK_UP
from ..rig.performance import TRACKED, layer_of
from ..rig.placement import joint_axes
from ..rig.rig_properties import Rig
from ..rig.rotations import axis_angle_to_quaternion
from ..rig.sliders import refresh
from .calibration import NeutralFace
from .face import CHANNELS, INDEX, Face

JOINTS: Final = ("neck", "jaw", "eye_L", "eye_R")


class Puppet:
    """What is known of a rig while it is moved. Its objects may become invalid meanwhile, so that each method takes
    them anew.
    """

    def __init__(self, rig: Rig) -> None:
        self._names = rig.slider_names
        if not set(self._names) & set(CHANNELS):
            raise EffigyError(
                f"The head model “{rig.head_name}” has no sliders with ARKit's names, which a live face moves."
            )
        self._by_bone = not rig.arkit_names
        rest = _resting_face(rig)
        self._rest = np.array([rest.get(name, 0.0) for name in self._names])
        self._of_channel = np.array([INDEX.get(name, -1) for name in self._names])
        self._axes = {joint: joint_axes(rig, joint) for joint in ("neck", "jaw")}
        self._handles = {name: bone.location.copy() for name, bone in handles_in_strips(rig).items()}
        self._before, self._frame = state_of(rig), bpy.context.scene.frame_current_final

    def show(self, rig: Rig, face: Face, neutral: NeutralFace, intensity: float, motion: float) -> None:
        """Moves the rig. `intensity`: factor on the expression. `motion`: factor on the head's rotation."""
        change = scales_of(CHANNELS, intensity) * (face.channels - neutral.channels)
        values = self._values(change, neutral)
        turns = {"jaw": np.zeros(3)}
        if self._by_bone:
            for name, turn in JAW_TURNS.items():
                turns["jaw"] += np.radians(turn) * change[INDEX[name]]
                if name in self._names:
                    values[self._names.index(name)] = 0.0
            turns["jaw"][:2] = turns["jaw"][:2].clip(*np.radians((JAW_OPEN, JAW_SIDEWAYS)).T)
        axis, angle = (neutral.head.inverted() @ face.head).to_axis_angle()
        turns["neck"] = np.array(axis) * angle * motion
        # A performance on the handles would be added to the performer's.
        self._place_handles(rig, lambda place: (0, 0, 0))
        for block, value in zip(rig.slider_keys(), values.tolist(), strict=True):
            block.value = value
        for joint, turn in turns.items():
            rotate(rig.pose_bone(joint), Quaternion(axis_angle_to_quaternion(turn @ self._axes[joint])))
        for joint, side, outwards in (("eye_L", "Left", 1), ("eye_R", "Right", -1)):
            look = {way: change[INDEX[f"eyeLook{way}{side}"]] for way in ("In", "Out", "Up", "Down")}
            sideways, up = outwards * (look["Out"] - look["In"]), look["Up"] - look["Down"]
            turn_eye(rig.pose_bone(joint), radians(LOOK_SIDEWAYS) * sideways, radians(LOOK_UP) * up)
        refresh(rig)

    def restore(self, rig: Rig) -> None:
        """Puts the rig back to where it was before it was moved; on another frame, to where its animation is."""
        self._place_handles(rig, lambda place: place)
        set_state(rig, self._before)
        if bpy.context.scene.frame_current_final != self._frame:
            evaluate_animation(rig)

    def _place_handles(self, rig: Rig, place: Callable[[Vector], Sequence[float]]) -> None:
        bones = rig.handle_bones() if self._handles else {}
        for name, before in self._handles.items():
            if name in bones:
                bones[name].location = place(before)

    def _values(self, change: np.ndarray, neutral: NeutralFace) -> np.ndarray:
        """The sliders (S,) for changes of the channels (52,)."""
        known = self._of_channel >= 0
        performer = np.where(known, neutral.channels[self._of_channel], 0.0)
        moved = np.where(known, change[self._of_channel], 0.0)
        moved = np.where(moved > 0, moved * opening_gains(self._names, performer, self._rest), moved)
        values = self._rest + moved
        return np.where(known, values.clip(0, bounds_of(self._names, 1.0, self._rest)), self._rest)


def state_of(rig: Rig) -> list[float]:
    """The values of all sliders, then those of the rotations of JOINTS, in each bone's rotation mode."""
    values = [block.value for block in rig.slider_keys()]
    for joint in JOINTS:
        bone = rig.pose_bone(joint)
        values += tuple(getattr(bone, rotation_path(bone)))
    return values


def set_state(rig: Rig, state: Sequence[float]) -> None:
    """Sets what `state_of` gave. A bone whose rotation mode has changed since is left as it is, with those after it."""
    sliders = rig.slider_keys()
    for block, value in zip(sliders, state[: len(sliders)], strict=True):
        block.value = value
    at = len(sliders)
    for joint in JOINTS:
        bone = rig.pose_bone(joint)
        path = rotation_path(bone)
        count = len(getattr(bone, path))
        if at + count > len(state):
            break
        setattr(bone, path, state[at : at + count])
        at += count
    refresh(rig)


def evaluate_animation(rig: Rig) -> None:
    """Makes Blender set what is animated, without changing what the artist has set by hand elsewhere in the scene."""
    for data in (rig.mesh.data.shape_keys, rig.armature):
        data.update_tag(refresh={"TIME"})


def _resting_face(rig: Rig) -> dict[str, float]:
    """The resting values of sliders in the rig's tracked performance: the lowest tenth of a channel, and the median of
    a FLAME coefficient, which acts in both directions. Empty without a performance.
    """
    found: dict[str, float] = {}
    by_path = {value_path(name): name for name in rig.slider_names}
    for _, strip in strips_of(rig.mesh.data.shape_keys):
        if layer_of(strip) != TRACKED:
            continue
        for curve in curves_of(strip.action):
            name, values = by_path.get(curve.data_path), np.empty(2 * len(curve.keyframe_points), np.float32)
            if name is None or not len(values):
                continue
            curve.keyframe_points.foreach_get("co", values)
            named = name in INDEX
            found[name] = float(
                np.quantile(values[1::2], REST_QUANTILE, method="lower") if named else np.median(values[1::2])
            )
    return found
