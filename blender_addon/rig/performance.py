"""The tracked performance as keyframes, in NLA strips of its own.

Two actions, because a mesh's shape keys and an armature are animated apart: the expressions on the shape keys, and on
the armature neck, jaw, eyes and, by the root bone, the head's place before the camera. Each lies in an NLA strip of its
own, so that nothing an artist keys overwrites it.

Layering. What she keys goes into the action above the strips. On the shape keys that action is set to ADD, on the
armature to COMBINE: her keys are added to the tracked values, and her rotations turn after the tracked ones. Blender
takes the strips' part off when it inserts a key, so that what she sees is what is keyed; away from her keys the
performance lives on beneath her change instead of freezing.

A performance of somebody else (`lay_performance`) comes into strips of its own above these, so that it plays instead of the
tracked one as long as it lasts, and can be muted, moved and faded against it.

Below the performance of the shape keys lies a strip that holds them all at zero. Blender's own base for adding to a
shape key is 1, the property's default, and without the strip every slider keyed by hand would jump by 1 once the
performance is muted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import bpy
import numpy as np

from ..errors import EffigyError
from .action import Curve, add_curve, new_action, push_strip, remove_strip, strips_of, swap_action
from .conventions import HEAD_TO_BLENDER, axis_angle_to_quaternion, continuous, matrix_to_quaternion, stage_of
from .data import JOINT_NAMES, TrackData
from .rig_properties import Rig
from .steps import Steps, finish

STRIP: Final = "Tracked performance"
NEUTRAL: Final = "Neutral face"
TRANSFERRED: Final = "Transferred performance"
LAYER: Final = "effigy_layer"
"""The mark on the strips' actions, which says which of these they are."""
_SHOT: Final = "effigy_shot"
_GROUP: Final = "Expressions"
_WIDEST: Final = 10.0
"""The farthest that Blender lets a slider go."""
_CURVES_A_STEP: Final = 4


@dataclass(frozen=True)
class Shot:
    """Where and when a performance lies in the scene."""

    stage: np.ndarray
    """(4, 4): the axes of the footage's camera (OpenCV) in Blender's world."""
    frame_start: int
    """The scene's frame of the track's frame 0."""


def apply_track(rig: Rig, track: TrackData, shot: Shot | None = None) -> Shot:
    """Key a track on the rig, in place of the track that was keyed there before. Returns where that is.

    Without `shot` the new performance takes the place of the old one, so that the camera still fits; the first one
    starts at frame 1, with the camera as `conventions.stage_of` puts it.
    """
    return finish(apply_track_steps(rig, track, shot))


def apply_track_steps(rig: Rig, track: TrackData, shot: Shot | None = None) -> Steps[Shot]:
    """`apply_track` in steps of a few milliseconds (see `steps`)."""
    _check_head(rig, track)
    shot = shot or shot_of(rig) or Shot(stage_of(track.head_to_camera), 1)
    faces, bones = yield from _actions(rig, track, shot, "expressions", "head")
    key = rig.mesh.data.shape_keys
    _lay_neutral(key, rig.slider_names)
    _put_on(key, faces, shot.frame_start, "ADD")
    _put_on(rig.armature, bones, shot.frame_start, "COMBINE")
    _keep_shot(rig, shot)
    return shot


def lay_performance(rig: Rig, track: TrackData, name: str, frame_start: int) -> None:
    """Put a performance on the rig, from `frame_start` on, in strips called `name` above all that are there."""
    return finish(lay_performance_steps(rig, track, name, frame_start))


def lay_performance_steps(rig: Rig, track: TrackData, name: str, frame_start: int) -> Steps[None]:
    """`lay_performance` in steps of a few milliseconds (see `steps`)."""
    _check_head(rig, track)
    kept = shot_of(rig)
    stage = stage_of(track.head_to_camera) if kept is None else kept.stage
    faces, bones = yield from _actions(rig, track, Shot(stage, frame_start), f"{name}, expressions", f"{name}, head")
    alone, key = not has_performance(rig), rig.mesh.data.shape_keys
    _lay_neutral(key, rig.slider_names)
    for target, action, blend in ((key, faces, "ADD"), (rig.armature, bones, "COMBINE")):
        action[LAYER] = TRANSFERRED
        strip = push_strip(target, action, name, frame_start)
        # Before and after it the performance below goes on, if there is one.
        strip.extrapolation = "HOLD" if alone else "NOTHING"
        target.animation_data.action_blend_type = blend
    if kept is None:
        _keep_shot(rig, Shot(stage, frame_start))


def _check_head(rig: Rig, track: TrackData) -> None:
    if track.head_fingerprint != rig.head_fingerprint:
        raise EffigyError(
            f'The track was made on the head model "{track.head_name}" ({track.head_fingerprint}), the rig '
            f'"{rig.armature.name}" is of "{rig.head_name}" ({rig.head_fingerprint}): track the capture again, or '
            "import its video as a rig of its own."
        )


def _actions(
    rig: Rig, track: TrackData, shot: Shot, face: str, head: str
) -> Steps[tuple[bpy.types.Action, bpy.types.Action]]:
    """The track's keys as an action of the shape keys and one of the armature."""
    _widen_sliders(rig, track)
    name = rig.mesh.name
    faces, bones = new_action(f"{name} {face}", rig.mesh.data.shape_keys), new_action(f"{name} {head}", rig.armature)
    try:
        curves = [(faces, curve) for curve in _expression_curves(rig, track, shot.frame_start)]
        curves += [(bones, curve) for curve in _bone_curves(rig, track, shot)]
        for index, (action, curve) in enumerate(curves):
            add_curve(action, curve)
            if index % _CURVES_A_STEP == 0:
                yield index / len(curves)
    except BaseException:
        # A stopped import, too, leaves no half performance behind.
        bpy.data.actions.remove(faces)
        bpy.data.actions.remove(bones)
        raise
    return faces, bones


def _keep_shot(rig: Rig, shot: Shot) -> None:
    rig.armature[_SHOT] = {"stage": shot.stage.ravel().tolist(), "frame_start": shot.frame_start}


def shot_of(rig: Rig) -> Shot | None:
    """Where the rig's performance lies, or None if it has had none."""
    kept = rig.armature.get(_SHOT)
    return None if kept is None else Shot(np.array(kept["stage"], np.float64).reshape(4, 4), int(kept["frame_start"]))


def has_performance(rig: Rig) -> bool:
    return _strip_of(rig.armature, STRIP) is not None


def remove_performance(rig: Rig) -> None:
    """Take the tracked performance off. What was keyed by hand stays, as changes of a neutral face."""
    for target in (rig.mesh.data.shape_keys, rig.armature):
        for track, strip in list(strips_of(target)):
            if _layer_of(strip) in (STRIP, NEUTRAL):
                remove_strip(target, track, strip)
        if target.animation_data is not None:
            target.animation_data.action_blend_type = "REPLACE"


def _lay_neutral(key: bpy.types.Key, names: tuple[str, ...]) -> None:
    if _strip_of(key, NEUTRAL) is None and _strip_of(key, STRIP) is None:
        action = new_action(f"{key.name} neutral", key)
        for name in names:
            add_curve(action, Curve(_value_path(name), 0, _GROUP, np.zeros(1), np.zeros(1)))
        action[LAYER] = NEUTRAL
        push_strip(key, action, NEUTRAL, 0)


def _put_on(target: bpy.types.ID, action: bpy.types.Action, frame_start: int, blend: str) -> None:
    action[LAYER] = STRIP
    strip = _strip_of(target, STRIP)
    if strip is None:
        push_strip(target, action, STRIP, frame_start)
    else:
        # In the old strip, which the artist may have moved, muted or faded.
        old = strip.action
        swap_action(strip, action)
        if old.users == 0:
            bpy.data.actions.remove(old)
    target.animation_data.action_blend_type = blend


def _strip_of(target: bpy.types.ID, layer: str) -> bpy.types.NlaStrip | None:
    return next((strip for _, strip in strips_of(target) if _layer_of(strip) == layer), None)


def _layer_of(strip: bpy.types.NlaStrip) -> str | None:
    return None if strip.action is None else strip.action.get(LAYER)


def _value_path(name: str) -> str:
    return f'key_blocks["{bpy.utils.escape_identifier(name)}"].value'


def _widen_sliders(rig: Rig, track: TrackData) -> None:
    """Blender cuts a value off at its slider's end, and trackers do go beyond 1."""
    if track.expression.shape[1] != len(rig.expression_names):
        raise EffigyError(
            f'The track has {track.expression.shape[1]} expressions and the rig "{rig.armature.name}" '
            f"has {len(rig.expression_names)}: import the video again."
        )
    low, high = np.nanmin(track.expression, axis=0), np.nanmax(track.expression, axis=0)
    for block, least, most in zip(rig.expression_keys(), low.tolist(), high.tolist()):
        block.slider_min = max(min(block.slider_min, least), -_WIDEST)
        block.slider_max = min(max(block.slider_max, most), _WIDEST)


def _expression_curves(rig: Rig, track: TrackData, frame_start: int) -> list[Curve]:
    curves = []
    for name, values in zip(rig.expression_names, track.expression.T):
        curves.append(_curve(_value_path(name), 0, _GROUP, values, frame_start))
    return curves


def _bone_curves(rig: Rig, track: TrackData, shot: Shot) -> list[Curve]:
    curves, frame_start = [], shot.frame_start
    for index, joint in enumerate(JOINT_NAMES):
        bone = rig.pose_bone(joint)
        rest = np.array(bone.bone.matrix_local, np.float64)
        base = f'pose.bones["{bpy.utils.escape_identifier(bone.name)}"]'
        if joint == "root":
            # The bone's own transform, seen from its rest place, that takes the rest head to where the camera saw it.
            placed = shot.stage @ track.head_to_camera.astype(np.float64) @ HEAD_TO_BLENDER.T
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
            values = quaternions[:, component]
            curves.append(_curve(f"{base}.rotation_quaternion", component, bone.name, values, frame_start))
    return curves


def _curve(path: str, index: int, group: str, values: np.ndarray, frame_start: int) -> Curve:
    """A key on every frame whose value is known, or one where nothing changes."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) and np.ptp(values[known]) == 0:
        known = known[:1]
    return Curve(path, index, group, known + frame_start, values[known])
