"""The armature: five real bones at the person's joints, whose rotations are the head model's joint rotations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import bpy
import numpy as np
from mathutils import Vector

from ..errors import EffigyError
from .conventions import BONE_AXES, points_to_blender
from .data import JOINT_NAMES, PARENTS, RigData
from .rig_properties import BONE_NAMES, Rig

_SHORTEST: Final = 0.015
"""Metres. Blender deletes bones without length, and a hand must be able to hit them."""


def add_armature(data: RigData, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    """An armature object at the world's origin with the bones root, neck, jaw, eye.L and eye.R, ready to be keyed."""
    armature = bpy.data.objects.new(name, bpy.data.armatures.new(name))
    collection.objects.link(armature)
    armature.show_in_front = True
    armature.data.display_type = "STICK"
    with edit_bones(armature) as bones:
        for joint, parent in zip(JOINT_NAMES, PARENTS):
            bone = bones.new(BONE_NAMES[joint])
            if parent >= 0:
                bone.parent = bones[BONE_NAMES[JOINT_NAMES[parent]]]
        place_bones({joint: bones[BONE_NAMES[joint]] for joint in JOINT_NAMES}, data.joints)
    for joint in JOINT_NAMES:
        bone = armature.pose.bones[BONE_NAMES[joint]]
        bone.rotation_mode = "QUATERNION"
        if joint != "root":
            # A head model's joints turn and do nothing else; what cannot be rendered should not be posable.
            bone.lock_location = bone.lock_scale = (True, True, True)
    return armature


def place_bones(bones: dict[str, bpy.types.EditBone], joints: np.ndarray) -> None:
    """Rest positions from joints (5, 3) in head space. A bone's length means nothing to the head, only to the eye."""
    place = dict(zip(JOINT_NAMES, joints.astype(np.float64)))
    eyes = (place["eye_L"] + place["eye_R"]) / 2
    lengths = {
        "root": place["neck"][1] - place["root"][1],
        "neck": eyes[1] - place["neck"][1],
        "jaw": 1.4 * (eyes[2] - place["jaw"][2]),
        "eye_L": 0.03,
        "eye_R": 0.03,
    }
    for joint, bone in bones.items():
        along, upright = BONE_AXES[joint][:, 1], BONE_AXES[joint][:, 2]
        head = place[joint]
        # All parents' rest positions are absolute in edit mode, so that the order does not matter.
        bone.use_connect = False
        bone.head = Vector(points_to_blender(head))
        bone.tail = Vector(points_to_blender(head + max(float(lengths[joint]), _SHORTEST) * along))
        bone.align_roll(Vector(points_to_blender(upright)))


def refresh_joints(rig: Rig) -> None:
    """Put the bones where the joints of the identity on the identity shape keys are.

    A head model's joints follow its shape (a long face has a low jaw joint), and shape keys alone do not move bones:
    call this after an identity key was unmuted and changed.
    """
    if not rig.is_editable:
        raise EffigyError(f'"{rig.armature.name}" is linked from another file: make a library override of it first.')
    with edit_bones(rig.armature) as bones:
        place_bones({joint: bones[rig.bone_name(joint)] for joint in JOINT_NAMES}, joints_of(rig))


def identity_offset(rig: Rig) -> np.ndarray:
    """(S,) what the unmuted identity keys add to the person's identity."""
    blocks = [rig.key_blocks.get(name) for name in rig.identity_names]
    return np.array([0.0 if block is None or block.mute else block.value for block in blocks])


def identity_of(rig: Rig) -> np.ndarray:
    """(S,) the identity that the mesh shows."""
    return rig.base_identity + identity_offset(rig)


def joints_of(rig: Rig) -> np.ndarray:
    """(5, 3) head space: the joints of the identity that the mesh shows."""
    return rig.base_joints + np.einsum("s,sjc->jc", identity_offset(rig), rig.joint_identity)


@contextmanager
def edit_bones(armature: bpy.types.Object) -> Iterator[bpy.types.bpy_prop_collection]:
    """The armature's edit bones. Blender lets rest positions change in edit mode only; the artist's mode, selection
    and active object are as before afterwards."""
    layer = bpy.context.view_layer
    # A collection linked a moment ago is unknown to the layer until then.
    layer.update()
    active, selected = layer.objects.active, list(layer.objects.selected)
    mode = active.mode if active is not None else "OBJECT"
    if mode != "OBJECT":
        _set_mode(active, "OBJECT")
    try:
        with _shown(armature, layer):
            layer.objects.active = armature
            _set_mode(armature, "EDIT")
            try:
                yield armature.data.edit_bones
            finally:
                _set_mode(armature, "OBJECT")
    finally:
        # Selecting brings the layer's list up to date, which must not happen under the loop that walks it.
        layer.update()
        for obj in list(layer.objects):
            obj.select_set(obj in selected)
        layer.objects.active = active
        if mode != "OBJECT":
            _set_mode(active, mode)


@contextmanager
def _shown(obj: bpy.types.Object, layer: bpy.types.ViewLayer) -> Iterator[None]:
    """Blender edits only what is visible; an artist may have hidden the rig, or be in another scene."""
    hidden_in_viewport, visible = obj.hide_viewport, obj.visible_get(view_layer=layer)
    if visible:
        yield
        return
    obj.hide_viewport = False
    master = layer.layer_collection.collection
    guest = obj.name not in master.objects
    hidden = obj.name in layer.objects and obj.hide_get(view_layer=layer)
    if guest:
        master.objects.link(obj)
    layer.update()
    obj.hide_set(False, view_layer=layer)
    try:
        yield
    finally:
        obj.hide_set(hidden, view_layer=layer)
        if guest:
            master.objects.unlink(obj)
        obj.hide_viewport = hidden_in_viewport


def _set_mode(obj: bpy.types.Object, mode: str) -> None:
    # A timer, where an import ends, has no window and so no active object of its own.
    with bpy.context.temp_override(active_object=obj, object=obj):
        bpy.ops.object.mode_set(mode=mode)
