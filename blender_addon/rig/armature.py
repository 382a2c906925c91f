"""The armature: one bone for each of the head model's five joints; the bones' rotations are the joint rotations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import bpy
import numpy as np
from mathutils import Matrix, Vector

from ..errors import EffigyError
from .conventions import BONE_AXES, points_to_blender
from .data import JOINT_NAMES, PARENTS, RigData
from .placement import head_by_bones
from .rig_properties import BONE_NAMES, JOINT_PROPERTY, TORSO, Rig

_TORSO_LENGTH: Final = 0.12
"""Metres."""
_MIN_BONE_LENGTH: Final = 0.015
"""Metres. Blender deletes bones of no length, and a bone has to be long enough to be clicked."""


def add_armature(data: RigData, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    """Adds an armature object at the world's origin with the bones root, neck, jaw, eye.L and eye.R."""
    armature = bpy.data.objects.new(name, bpy.data.armatures.new(name))
    collection.objects.link(armature)
    armature.show_in_front = True
    armature.data.display_type = "STICK"
    with edit_bones(armature) as bones:
        for joint, parent in zip(JOINT_NAMES, PARENTS, strict=True):
            bone = bones.new(BONE_NAMES[joint])
            if parent >= 0:
                bone.parent = bones[BONE_NAMES[JOINT_NAMES[parent]]]
        set_rest_pose({joint: bones[BONE_NAMES[joint]] for joint in JOINT_NAMES}, data.joints)
    for joint in JOINT_NAMES:
        bone = armature.pose.bones[BONE_NAMES[joint]]
        bone.rotation_mode = "QUATERNION"
        if joint != "root":
            # A head model's joints only rotate. The avatar cannot render a bone that is moved or scaled.
            bone.lock_location = bone.lock_scale = (True, True, True)
    return armature


def set_rest_pose(bones: dict[str, bpy.types.EditBone], joints: np.ndarray, place: np.ndarray | None = None) -> None:
    """Sets the bones' rest positions from joint positions (5, 3) in head space. The lengths of the bones are only for
    display; they do not affect the head.

    `place` (4, 4) is the similarity from Blender's head at rest to the armature's space, if they are not the same.
    """
    moved = Matrix(np.eye(4) if place is None else place)
    turned = moved.to_3x3()
    position = dict(zip(JOINT_NAMES, joints.astype(np.float64), strict=True))
    eyes = (position["eye_L"] + position["eye_R"]) / 2
    lengths = {
        "root": position["neck"][1] - position["root"][1],
        "neck": eyes[1] - position["neck"][1],
        "jaw": 1.4 * (eyes[2] - position["jaw"][2]),
        "eye_L": 0.03,
        "eye_R": 0.03,
    }
    for joint, bone in bones.items():
        direction, upright = BONE_AXES[joint][:, 1], BONE_AXES[joint][:, 2]
        head = position[joint]
        # Positions are absolute in edit mode, so the order of parents and children does not matter.
        bone.use_connect = False
        bone.head = moved @ Vector(points_to_blender(head))
        bone.tail = moved @ Vector(points_to_blender(head + max(float(lengths[joint]), _MIN_BONE_LENGTH) * direction))
        bone.align_roll(turned @ Vector(points_to_blender(upright)))


def add_torso(rig: Rig) -> None:
    """Gives a rig the bone of the bust, below its root, unless it has one or belongs to another file."""
    if rig.torso_bone is not None or rig.armature.data.library is not None:
        return
    place = Matrix(head_by_bones(rig, rig.armature)[0])
    # From the base of the neck downwards, so that a turn of the bone leaves the seam with the neck closed.
    start = rig.joints[JOINT_NAMES.index("root")]
    with edit_bones(rig.armature) as bones:
        bone = bones.new(TORSO)
        bone.parent = bones[rig.bone_name("root")]
        bone.head, bone.tail = (
            place @ Vector(points_to_blender(start - (0, down, 0))) for down in (0.0, _TORSO_LENGTH)
        )
        bone.align_roll(place.to_3x3() @ Vector(points_to_blender(np.array((0.0, 0.0, 1.0)))))
        bone.use_deform = False
        name = bone.name
    rig.armature.data.bones[name][JOINT_PROPERTY] = TORSO
    posed = rig.armature.pose.bones[name]
    posed.rotation_mode = "QUATERNION"
    # Gaussians of a bust have one size.
    posed.lock_scale = (True, True, True)


def refresh_joints(rig: Rig) -> None:
    """Moves the bones' rest positions to the joints of the identity that the identity shape keys give.

    A head model's joints depend on its shape: a long face has a low jaw joint. Shape keys do not move bones, so call
    this after an identity shape key has been unmuted and changed.
    """
    if not rig.is_editable:
        raise EffigyError(f'"{rig.armature.name}" is linked from another file: make a library override of it first.')
    place = head_by_bones(rig, rig.armature)[0]
    with edit_bones(rig.armature) as bones:
        set_rest_pose({joint: bones[rig.bone_name(joint)] for joint in JOINT_NAMES}, rig.joints, place)


def identity_of(rig: Rig) -> np.ndarray:
    """(S,) identity coefficients of the displayed mesh."""
    return rig.base_identity + rig.identity_offset


@contextmanager
def edit_bones(armature: bpy.types.Object) -> Iterator[bpy.types.bpy_prop_collection]:
    """The armature's edit bones. Blender allows rest positions to change only in edit mode. The artist's mode,
    selection and active object are restored afterwards.
    """
    layer = bpy.context.view_layer
    # A collection that was linked just now is not in the layer before this.
    layer.update()
    active, selected = layer.objects.active, list(layer.objects.selected)
    mode = active.mode if active is not None else "OBJECT"
    if mode != "OBJECT":
        _set_mode(active, "OBJECT")
    try:
        with _temporarily_visible(armature, layer):
            layer.objects.active = armature
            _set_mode(armature, "EDIT")
            try:
                yield armature.data.edit_bones
            finally:
                _set_mode(armature, "OBJECT")
    finally:
        # `select_set` updates the layer's list of objects, which must not change during the loop over it.
        layer.update()
        for obj in list(layer.objects):
            obj.select_set(obj in selected)
        layer.objects.active = active
        if mode != "OBJECT":
            _set_mode(active, mode)


@contextmanager
def _temporarily_visible(obj: bpy.types.Object, layer: bpy.types.ViewLayer) -> Iterator[None]:
    """Makes an object visible for a while: Blender edits only visible objects, and the rig may be hidden or in another
    scene.
    """
    hidden_in_viewport, visible = obj.hide_viewport, obj.visible_get(view_layer=layer)
    if visible:
        yield
        return
    obj.hide_viewport = False
    master = layer.layer_collection.collection
    linked_here = obj.name not in master.objects
    hidden = obj.name in layer.objects and obj.hide_get(view_layer=layer)
    if linked_here:
        master.objects.link(obj)
    layer.update()
    obj.hide_set(False, view_layer=layer)
    try:
        yield
    finally:
        obj.hide_set(hidden, view_layer=layer)
        if linked_here:
            master.objects.unlink(obj)
        obj.hide_viewport = hidden_in_viewport


def _set_mode(obj: bpy.types.Object, mode: str) -> None:
    # An import ends in a timer, whose context has no window and therefore no active object.
    with bpy.context.temp_override(active_object=obj, object=obj):
        bpy.ops.object.mode_set(mode=mode)
