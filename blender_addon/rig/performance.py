"""The tracked performance as keyframes, in NLA strips of its own.

Two actions, because a mesh's shape keys and an armature are animated apart: the expressions on the shape keys, and on
the armature neck, jaw, eyes and, by the root bone, the head's place before the camera. Each lies in a strip at the bottom
of the NLA, so that nothing an artist keys overwrites it.

Layering. What she keys goes into the action above the strips, which is set to COMBINE: her keys add to the tracked
values, and her rotations turn after the tracked ones. Blender takes the strip's part off when it inserts a key, so that
what she sees is what is keyed; away from her keys the performance lives on beneath her change instead of freezing.
"""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np

from ..errors import EffigyError
from .action import Curve, add_curve, new_action, push_strip, strips_of
from .conventions import HEAD_TO_BLENDER, axis_angle_to_quaternion, continuous, matrix_to_quaternion
from .data import JOINT_NAMES, TrackData
from .marks import Rig, lost_expression
from .steps import Steps, finish

STRIP: Final = "Tracked performance"
PERFORMANCE: Final = "effigy_performance"
"""The mark on the actions, by which a newer track finds and replaces them."""
_WIDEST: Final = 10.0
"""The farthest that Blender lets a slider go."""
_CURVES_A_STEP: Final = 4


def apply_track(rig: Rig, track: TrackData, stage: np.ndarray, frame_start: int = 1) -> None:
    """Key a track on the rig, frame 0 at `frame_start`, in place of the track that was keyed there before.

    `stage` (4, 4): where the footage's camera is in Blender's world (see `conventions.stage_of`).
    """
    finish(apply_track_steps(rig, track, stage, frame_start))


def apply_track_steps(rig: Rig, track: TrackData, stage: np.ndarray, frame_start: int = 1) -> Steps[None]:
    """`apply_track` in steps of a few milliseconds (see `steps`)."""
    if track.head_fingerprint != rig.head_fingerprint:
        raise EffigyError(f"The track was made on the head model \"{track.head_name}\", the rig \"{rig.armature.name}\" is "
                          f"of \"{rig.head_name}\": import the video again with one head model.")
    _widen_sliders(rig, track)
    key, name = rig.mesh.data.shape_keys, rig.mesh.name
    yield 0.0
    curves = _expression_curves(rig, track, frame_start)
    faces = new_action(f"{name} expressions", key)
    for index, curve in enumerate(curves):
        add_curve(faces, curve)
        if index % _CURVES_A_STEP == 0:
            yield 0.7 * index / len(curves)
    curves = _bone_curves(rig, track, stage, frame_start)
    bones = new_action(f"{name} head", rig.armature)
    for index, curve in enumerate(curves):
        add_curve(bones, curve)
        if index % _CURVES_A_STEP == 0:
            yield 0.7 + 0.3 * index / len(curves)
    # Last and at once, so that a stopped import leaves no half performance on the rig.
    for target, action in ((key, faces), (rig.armature, bones)):
        _replace(target, action, frame_start)


def has_performance(rig: Rig) -> bool:
    return any(_is_ours(strip) for _, strip in strips_of(rig.armature))


def layer_hand_keys(rig: Rig) -> None:
    """Let hand keys combine with the strips below. Done with each performance; again after an artist emptied the action."""
    for target in (rig.mesh.data.shape_keys, rig.armature):
        data = target.animation_data or target.animation_data_create()
        data.action_blend_type = "COMBINE"


def _replace(target: bpy.types.ID, action: bpy.types.Action, frame_start: int) -> None:
    action[PERFORMANCE] = True
    muted = False
    for track, strip in list(strips_of(target)):
        if _is_ours(strip):
            old, muted = strip.action, track.mute
            track.strips.remove(strip)
            if not len(track.strips):
                target.animation_data.nla_tracks.remove(track)
            if old.users == 0:
                bpy.data.actions.remove(old)
    push_strip(target, action, STRIP, frame_start)
    if muted:
        # The artist had silenced the old performance to work without it.
        next(track for track, strip in strips_of(target) if strip.action == action).mute = True
    target.animation_data.action_blend_type = "COMBINE"


def _is_ours(strip: bpy.types.NlaStrip) -> bool:
    return strip.action is not None and bool(strip.action.get(PERFORMANCE))


def _widen_sliders(rig: Rig, track: TrackData) -> None:
    """Blender cuts a value off at its slider's end, and trackers do go beyond 1."""
    if track.expression.shape[1] != len(rig.expression_names):
        raise EffigyError(f"The track has {track.expression.shape[1]} expressions and the rig \"{rig.armature.name}\" has "
                          f"{len(rig.expression_names)}: import the video again.")
    low, high = np.nanmin(track.expression, axis=0), np.nanmax(track.expression, axis=0)
    for block, least, most in zip(rig.expression_keys(), low.tolist(), high.tolist()):
        block.slider_min = max(min(block.slider_min, least), -_WIDEST)
        block.slider_max = min(max(block.slider_max, most), _WIDEST)


def _expression_curves(rig: Rig, track: TrackData, frame_start: int) -> list[Curve]:
    blocks, curves = rig.key_blocks, []
    for name, values in zip(rig.expression_names, track.expression.T):
        if name not in blocks:
            raise lost_expression(rig, name)
        path = f'key_blocks["{bpy.utils.escape_identifier(name)}"].value'
        curves.append(_curve(path, 0, "Expressions", values, frame_start))
    return curves


def _bone_curves(rig: Rig, track: TrackData, stage: np.ndarray, frame_start: int) -> list[Curve]:
    curves = []
    for index, joint in enumerate(JOINT_NAMES):
        bone = rig.pose_bone(joint)
        rest = np.array(bone.bone.matrix_local, np.float64)
        base = f'pose.bones["{bpy.utils.escape_identifier(bone.name)}"]'
        if joint == "root":
            # The bone's own transform, seen from its rest place, that takes the rest head to where the camera saw it.
            placed = stage @ track.head_to_camera.astype(np.float64) @ HEAD_TO_BLENDER.T
            basis = np.linalg.inv(rest) @ placed @ rest
            quaternions = matrix_to_quaternion(basis[:, :3, :3])
            for axis in range(3):
                curves.append(_curve(f"{base}.location", axis, bone.name, basis[:, axis, 3], frame_start))
        else:
            # Conjugation by the bone's rest axes turns the vector part and leaves the angle.
            axes = HEAD_TO_BLENDER[:3, :3].T @ rest[:3, :3]
            vectors = track.rotations[:, index].astype(np.float64) @ axes
            quaternions = axis_angle_to_quaternion(vectors)
        quaternions = continuous(quaternions)
        for component in range(4):
            curves.append(_curve(f"{base}.rotation_quaternion", component, bone.name, quaternions[:, component], frame_start))
    return curves


def _curve(path: str, index: int, group: str, values: np.ndarray, frame_start: int) -> Curve:
    """A key on every frame whose value is known, or one where nothing changes."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) and np.ptp(values[known]) == 0:
        known = known[:1]
    return Curve(path, index, group, known + frame_start, values[known])
