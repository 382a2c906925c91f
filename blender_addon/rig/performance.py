"""The tracked performance as keyframes in NLA strips.

A performance is two actions, because Blender animates a mesh's shape keys and an armature separately. The action of the
shape keys holds the expressions. The action of the armature holds the rotations of neck, jaw and eyes and, on the root
bone, the position and rotation of the head in front of the camera. Each action lies in an NLA strip, so that keys set
by hand never overwrite it.

Keys set by hand go into the action above the strips. That action is set to ADD on the shape keys and to COMBINE on the
armature: values are added to the tracked values, and rotations are applied after the tracked rotations. When Blender
inserts a key it subtracts the value of the strips, so the key holds the pose that the artist sees. On frames between
and beyond the keys the performance continues underneath the change. An action with keys that is combined in another
way, such as a baked one, becomes a strip of its own as it was (`action.free_for_keys`).

A key lies at the time of its frame in the footage, in frames at the footage's rate. The strip is scaled to the scene's
rate, so that takes of any rate play at their own speed in one scene.

The performance of another person (`added_performance`) comes into strips above these. It replaces the tracked
performance for as long as it lasts, and can be muted, moved and faded against it.

Below the performance of the shape keys lies a strip that holds all of them at zero. Without it, every slider keyed by
hand would jump by 1 when the performance is muted, because Blender adds to the default value of a shape key, which
is 1.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import bpy
import numpy as np

from ..errors import EffigyError
from ..file_names import datablock_name
from .action import (
    Curve,
    add_curve,
    bone_path,
    check_not_tweaked,
    free_for_keys,
    new_action,
    push_strip,
    remove_strip,
    set_aside_note,
    strips_of,
    swap_action,
    value_path,
)
from .armature import add_torso
from .conventions import HEAD_TO_BLENDER, default_camera_pose
from .data import JOINT_NAMES, TrackData
from .placement import head_by_bones, joint_axes
from .rig_properties import Rig
from .rotations import align_signs, axis_angle_to_quaternion, matrix_to_quaternion
from .steps import Steps, finish

TRACKED: Final = "Tracked performance"
NEUTRAL: Final = "Neutral face"
TRANSFERRED: Final = "Transferred performance"
CONTROLS: Final = "Face controls"
"""A performance that was taken to the handles of the face board, or back."""
LAYER_PROPERTY: Final = "effigy_layer"
"""Custom property on the strips' actions that has one of the names above, or that in `speech`."""
_PLACEMENT_PROPERTY: Final = "effigy_shot"
"""Custom property on the armature that holds the performance's `Placement`."""
EXPRESSIONS: Final = "Expressions"
"""The group of the sliders' curves."""
_MAX_SLIDER: Final = 10.0
"""The largest limit that Blender allows for a slider."""
_CURVES_PER_STEP: Final = 4


@dataclass(frozen=True)
class Placement:
    """Where and when a performance lies in the scene."""

    camera_pose: np.ndarray
    """(4, 4) camera-to-world of the footage's OpenCV camera in Blender's world."""
    frame_start: int
    """The scene's frame of the track's frame 0."""


@dataclass(frozen=True)
class Applied:
    """What keying a performance has done."""

    placement: Placement
    set_aside: tuple[str, ...] = ()
    """Names of the artist's actions that are strips of their own now, because they replaced what lies below them."""

    @property
    def note(self) -> str:
        """A sentence for the artist, empty if nothing was set aside."""
        return set_aside_note(self.set_aside, "above, as they were: mute them in the NLA editor to see it")


def apply_track(rig: Rig, track: TrackData, placement: Placement | None = None, scale: float = 1.0) -> Applied:
    """Keys a track on the rig in place of the track that was keyed before.

    Without `placement` the new performance lies where the old one did, so that the camera still fits. The first one
    starts at frame 1, with the camera as `conventions.default_camera_pose` places it. `scale` is how many frames of the
    scene a frame of the footage takes; a performance that replaces another keeps the scale of its strips.
    """
    return finish(apply_track_steps(rig, track, placement, scale))


def apply_track_steps(
    rig: Rig, track: TrackData, placement: Placement | None = None, scale: float = 1.0
) -> Steps[Applied]:
    """`apply_track` in steps of a few milliseconds (see `steps`)."""
    check_ready(rig, track)
    if track.torso_to_camera is not None:
        add_torso(rig)
    placement = placement or placement_of(rig) or Placement(default_camera_pose(track.head_to_camera), 1)
    faces, bones = yield from actions_of(rig, track, placement, "expressions", "head")
    key = rig.mesh.data.shape_keys
    add_neutral_strip(key, rig.slider_names)
    set_aside = [
        _set_tracked_strip(key, faces, placement.frame_start, "ADD", scale),
        _set_tracked_strip(rig.armature, bones, placement.frame_start, "COMBINE", scale),
    ]
    store_placement(rig, placement)
    return Applied(placement, tuple(name for name in set_aside if name))


def check_ready(rig: Rig, track: TrackData) -> None:
    """Refuses a track of another head model, and a rig of which a strip is being edited."""
    # Behind a "+" a fingerprint says what Effigy has added to the file's head, which has the same expressions.
    ours, theirs = (fingerprint.partition("+")[0] for fingerprint in (rig.head_fingerprint, track.head_fingerprint))
    if ours != theirs:
        raise EffigyError(
            f'The track was made with the head model "{track.head_name}" ({track.head_fingerprint}), but the rig '
            f'"{rig.armature.name}" is made of "{rig.head_name}" ({rig.head_fingerprint}): track the capture again, or '
            "import its video as a separate rig."
        )
    for target in (rig.mesh.data.shape_keys, rig.armature):
        check_not_tweaked(target)


def actions_of(
    rig: Rig,
    track: TrackData,
    placement: Placement,
    face: str,
    head: str,
    sliders: Collection[str] | None = None,
    joints: Collection[str] = JOINT_NAMES,
) -> Steps[tuple[bpy.types.Action, bpy.types.Action]]:
    """The track's keys as an action for the shape keys and one for the armature, named after the mesh with the suffixes
    `face` and `head`: those of the expressions `sliders`, which are all if None, and of `joints`.
    """
    _widen_sliders(rig, track)
    name = rig.mesh.name
    faces, bones = new_action(f"{name} {face}", rig.mesh.data.shape_keys), new_action(f"{name} {head}", rig.armature)
    try:
        curves = [(faces, curve) for curve in _expression_curves(rig, track, placement.frame_start, sliders)]
        curves += [(bones, curve) for curve in _bone_curves(rig, track, placement, joints)]
        for index, (action, curve) in enumerate(curves):
            add_curve(action, curve)
            if index % _CURVES_PER_STEP == 0:
                yield index / len(curves)
    except BaseException:
        # A cancelled import closes this generator, and must not leave an incomplete performance behind.
        bpy.data.actions.remove(faces)
        bpy.data.actions.remove(bones)
        raise
    return faces, bones


def store_placement(rig: Rig, placement: Placement) -> None:
    rig.armature[_PLACEMENT_PROPERTY] = {
        "stage": placement.camera_pose.ravel().tolist(),
        "frame_start": placement.frame_start,
    }


def placement_of(rig: Rig) -> Placement | None:
    """Where the rig's performance lies, or None if it has never had one, or if that is damaged."""
    stored = rig.armature.get(_PLACEMENT_PROPERTY)
    if stored is None:
        return None
    try:
        pose, frame_start = np.array(stored["stage"], np.float64).reshape(4, 4), int(stored["frame_start"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Placement(pose, frame_start) if np.isfinite(pose).all() else None


def tracked_strip(rig: Rig) -> bpy.types.NlaStrip | None:
    """The strip of the armature that plays the tracked performance, or None."""
    return _strip_of(rig.armature, TRACKED)


def has_performance(rig: Rig) -> bool:
    """Whether a tracked performance is keyed on the rig."""
    return tracked_strip(rig) is not None


def remove_performance(rig: Rig) -> None:
    """Removes the tracked performance. Keys set by hand stay, as changes of a neutral face."""
    for target in (rig.mesh.data.shape_keys, rig.armature):
        for track, strip in list(strips_of(target)):
            if layer_of(strip) in (TRACKED, NEUTRAL):
                remove_strip(target, track, strip)
        if target.animation_data is not None:
            target.animation_data.action_blend_type = "REPLACE"


def add_neutral_strip(key: bpy.types.Key, names: tuple[str, ...]) -> None:
    """Adds the strip that holds these shape keys at zero, unless there are strips already."""
    if _strip_of(key, NEUTRAL) is None and _strip_of(key, TRACKED) is None:
        action = new_action(datablock_name(key.name, " neutral"), key)
        for name in names:
            add_curve(action, Curve(value_path(name), 0, EXPRESSIONS, np.zeros(1), np.zeros(1)))
        action[LAYER_PROPERTY] = NEUTRAL
        push_strip(key, action, NEUTRAL, 0)


def _set_tracked_strip(
    target: bpy.types.ID, action: bpy.types.Action, frame_start: int, blend: str, scale: float
) -> str | None:
    """Makes `action` the tracked performance of a data-block; `blend` is how the keys above it are combined with it.

    Returns the name of the artist's action if it became a strip above the performance.
    """
    action[LAYER_PROPERTY] = TRACKED
    strips = [strip for _, strip in strips_of(target) if layer_of(strip) == TRACKED]
    if not strips:
        push_strip(target, action, TRACKED, frame_start, scale)
    # Existing strips are kept, because the artist may have moved, cut, muted or faded them.
    for strip in strips:
        old = strip.action
        swap_action(strip, action)
        if old.users == 0:
            bpy.data.actions.remove(old)
    return free_for_keys(target, blend)


def _strip_of(target: bpy.types.ID, layer: str) -> bpy.types.NlaStrip | None:
    return next((strip for _, strip in strips_of(target) if layer_of(strip) == layer), None)


def layer_of(strip: bpy.types.NlaStrip) -> str | None:
    return None if strip.action is None else strip.action.get(LAYER_PROPERTY)


def _widen_sliders(rig: Rig, track: TrackData) -> None:
    """Extends the sliders' limits to the track's values, which may exceed 1."""
    if track.expression.shape[1] != len(rig.expression_names):
        raise EffigyError(
            f'The track has {track.expression.shape[1]} expressions and the rig "{rig.armature.name}" '
            f"has {len(rig.expression_names)}: import the video again."
        )
    low, high = np.nanmin(track.expression, axis=0), np.nanmax(track.expression, axis=0)
    for block, smallest, largest in zip(rig.expression_keys(), low.tolist(), high.tolist(), strict=True):
        widen_slider(block, smallest, largest)


def widen_slider(block: bpy.types.ShapeKey, low: float, high: float) -> None:
    """Extends a slider's limits to values that it gets: Blender clips a value there."""
    block.slider_min = max(min(block.slider_min, low), -_MAX_SLIDER)
    block.slider_max = min(max(block.slider_max, high), _MAX_SLIDER)


def _expression_curves(rig: Rig, track: TrackData, frame_start: int, sliders: Collection[str] | None) -> list[Curve]:
    curves, frames = [], track.positions + frame_start
    for name, values in zip(rig.expression_names, track.expression.T, strict=True):
        if sliders is None or name in sliders:
            curves.append(curve_of(value_path(name), 0, EXPRESSIONS, values, frames))
    return curves


def _bone_curves(rig: Rig, track: TrackData, placement: Placement, joints: Collection[str]) -> list[Curve]:
    curves, frames = [], track.positions + placement.frame_start
    head = head_by_bones(rig, rig.armature)[0]
    for index, joint in enumerate(JOINT_NAMES):
        if joint not in joints:
            continue
        bone = rig.pose_bone(joint)
        if joint == "root":
            # The motion of the head at rest to its tracked pose.
            motion = placement.camera_pose @ track.head_to_camera.astype(np.float64) @ HEAD_TO_BLENDER.T
            curves += _placing_curves(bone, head, motion, frames)
        else:
            vectors = track.rotations[:, index].astype(np.float64) @ joint_axes(rig, joint)
            curves += _turning_curves(bone, axis_angle_to_quaternion(vectors), frames)
    if "root" in joints and rig.torso_bone is not None:
        bone = rig.armature.pose.bones[rig.torso_bone]
        curves += _placing_curves(bone, head, HEAD_TO_BLENDER @ track.torso @ HEAD_TO_BLENDER.T, frames)
    return curves


def _placing_curves(bone: bpy.types.PoseBone, head: np.ndarray, motion: np.ndarray, frames: np.ndarray) -> list[Curve]:
    """Of a bone that moves what it carries by `motion` (F, 4, 4), relative to its parent, in the space of Blender's
    head at rest; `head` (4, 4) leads from there to the armature's.
    """
    rest = np.array(bone.bone.matrix_local, np.float64)
    basis = np.linalg.inv(rest) @ head @ motion @ np.linalg.inv(head) @ rest
    path = f"{bone_path(bone.name)}.location"
    curves = [curve_of(path, axis, bone.name, basis[:, axis, 3], frames) for axis in range(3)]
    return curves + _turning_curves(bone, matrix_to_quaternion(basis[:, :3, :3]), frames)


def _turning_curves(bone: bpy.types.PoseBone, quaternions: np.ndarray, frames: np.ndarray) -> list[Curve]:
    path, columns = f"{bone_path(bone.name)}.rotation_quaternion", align_signs(quaternions).T
    return [curve_of(path, index, bone.name, values, frames) for index, values in enumerate(columns)]


def curve_of(path: str, index: int, group: str, values: np.ndarray, frames: np.ndarray) -> Curve:
    """A key at each of `frames` (F,) with a finite value; a single key if the value never changes."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) and np.ptp(values[known]) == 0:
        known = known[:1]
    return Curve(path, index, group, frames[known], values[known])
