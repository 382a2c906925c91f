"""Mends what an avatar cannot follow (`troubles`), and makes parts whole rigs again.

The head stays where Blender draws it in the current frame; only what is wrong is changed. What belongs to others, such
as the scale of a parent, is left to the artist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import bpy
import numpy as np
from mathutils import Matrix, Vector

from ..errors import EffigyError
from .armature import edit_bones, set_rest_pose
from .data import JOINT_NAMES
from .placement import HeadPlace, has_size, head_place, nearest_similarity
from .pose import read_pose
from .rig_properties import RIG_PROPERTY, Rig, armature_of, find_rigs, is_part, meshes_of, what_it_lacks
from .troubles import Kind, Trouble, differs, find_trouble

PLACE_TOLERANCE: Final = 1e-4
"""Metres: an object that is farther from where it was put is held by keys, drivers or constraints."""


def mend(rig: Rig, layer: bpy.types.ViewLayer) -> str | None:
    """Mends everything that the avatar of a rig cannot follow. Returns a sentence about what is left, or None.

    Raises an `EffigyError` if nothing could be mended, or if the rig has no pose at all.
    """
    if rig.armature.library is not None or rig.mesh.library is not None:
        raise EffigyError(f'"{rig.armature.name}" is linked from another file: make a library override of it first.')
    tried: set[Kind] = set()
    changed = False
    layer.update()
    if not read_pose(rig, layer.depsgraph).has_size:
        raise EffigyError(
            f"“{rig.armature.name}”, “{rig.mesh.name}” or a parent is scaled to nothing, so there is no head to see: "
            "make its scale larger."
        )
    trouble = find_trouble(rig, layer.depsgraph)
    while trouble is not None and trouble.mendable and trouble.kind not in tried:
        changed = _CURES[trouble.kind](rig, trouble, layer) or changed
        tried.add(trouble.kind)
        layer.update()
        trouble = find_trouble(rig, layer.depsgraph)
    if trouble is None:
        return None
    if trouble.kind in tried:
        sentence = f"{trouble.sentence} Keys, drivers, constraints or other bones hold it so: change those."
    else:
        sentence = trouble.sentence
    if not changed:
        raise EffigyError(sentence)
    return sentence


def can_complete(obj: bpy.types.Object) -> bool:
    """Whether an object that is a part of no rig any more can be made a whole rig again by `complete`."""
    return what_it_lacks(obj) is not None and (_partner_of(obj) is not None or _original_of(obj) is not None)


def complete(obj: bpy.types.Object, layer: bpy.types.ViewLayer) -> Rig:
    """Joins an armature and a mesh that were taken apart, or gives an armature that was copied alone a copy of its
    original's mesh, as if both had been duplicated.
    """
    if (rig := _partner_of(obj)) is not None:
        rig.mesh.parent, rig.mesh.parent_type = rig.armature, "OBJECT"
        rig.mesh.matrix_parent_inverse.identity()
        _deform(rig, None, layer)
        layer.update()
        place = head_place(rig, layer.depsgraph)
        _put_to_bones(rig, np.array(rig.armature.evaluated_get(layer.depsgraph).matrix_world), place)
        return rig
    original = _original_of(obj)
    if original is None:
        raise EffigyError(f"There is nothing in this file by which “{obj.name}” could be made a whole rig again.")
    return _complete_copy(obj, original)


def _partner_of(obj: bpy.types.Object) -> Rig | None:
    """The rig that an armature without a mesh and a mesh without an armature make together, if only these can."""
    alone = [other for other in bpy.data.objects if other.library is None and is_part(other, "armature")]
    armatures = [other for other in alone if not meshes_of(other)]
    alone = [other for other in bpy.data.objects if other.library is None and is_part(other, "mesh")]
    meshes = [other for other in alone if armature_of(other) is None and other.data.shape_keys]
    rigs = [
        Rig(armature, mesh)
        for armature in armatures
        for mesh in meshes
        if obj in (armature, mesh)
        and set(Rig(armature, mesh).slider_names) <= set(mesh.data.shape_keys.key_blocks.keys())
    ]
    return rigs[0] if len(rigs) == 1 else None


def _original_of(armature: bpy.types.Object) -> Rig | None:
    """The rig from which the artist has copied an armature without its mesh."""
    if armature.library is not None or not is_part(armature, "armature") or meshes_of(armature):
        return None
    stored = armature[RIG_PROPERTY].to_dict()
    same = (rig for rig in find_rigs(bpy.data.objects) if rig.armature[RIG_PROPERTY].to_dict() == stored)
    return next((rig for rig in same if rig.mesh.data.library is None), None)


def _complete_copy(armature: bpy.types.Object, original: Rig) -> Rig:
    mesh = original.mesh.copy()
    mesh.data = original.mesh.data.copy()
    for collection in armature.users_collection:
        collection.objects.link(mesh)
    if mesh.parent == original.armature:
        mesh.parent = armature
    for modifier in mesh.modifiers:
        if modifier.type == "ARMATURE" and modifier.object == original.armature:
            modifier.object = armature
    key = mesh.data.shape_keys
    _redirect(key, original.armature, armature)
    _redirect(armature, original.mesh.data.shape_keys, key)
    if key.animation_data is not None and key.animation_data.action is not None:
        # Keys of the copy must not change the original.
        slot = getattr(key.animation_data, "action_slot", None)
        key.animation_data.action = key.animation_data.action.copy()
        if slot is not None:
            key.animation_data.action_slot = key.animation_data.action.slots[slot.identifier]
    return Rig(armature, mesh)


def _redirect(owner: bpy.types.ID, old: bpy.types.ID, new: bpy.types.ID) -> None:
    """Makes the drivers of a data-block read `new` where they read `old`."""
    if owner.animation_data is None:
        return
    for curve in owner.animation_data.drivers:
        for variable in curve.driver.variables:
            for target in variable.targets:
                if target.id == old:
                    target.id = new


def _deform(rig: Rig, _: Trouble | None, layer: bpy.types.ViewLayer) -> bool:
    """Lets one Armature modifier deform the mesh, as the head model does."""
    modifiers = [modifier for modifier in rig.mesh.modifiers if modifier.type == "ARMATURE"]
    ours = [modifier for modifier in modifiers if modifier.object == rig.armature]
    if ours or modifiers:
        modifier = (ours or modifiers)[0]
    else:
        modifier = rig.mesh.modifiers.new("Armature", "ARMATURE")
        rig.mesh.modifiers.move(len(rig.mesh.modifiers) - 1, 0)
    for other in modifiers:
        if other != modifier:
            other.show_viewport = other.show_render = False
    if rig.mesh.parent == rig.armature and rig.mesh.parent_type == "ARMATURE":
        rig.mesh.parent_type = "OBJECT"
    modifier.object = rig.armature
    modifier.show_viewport = modifier.show_render = modifier.use_vertex_groups = True
    modifier.vertex_group = ""
    if differs(modifier):
        modifier.use_deform_preserve_volume = modifier.use_bone_envelopes = modifier.use_multi_modifier = False
    return True


def _scale_evenly(rig: Rig, trouble: Trouble, layer: bpy.types.ViewLayer) -> bool:
    source = trouble.source
    if source is None:
        _restore_vertices(rig, head_place(rig, layer.depsgraph).vertices)
        return True
    scale = Vector(abs(component) for component in source.scale)
    if isinstance(source, bpy.types.Object):
        scale = Vector(a * abs(b) for a, b in zip(scale, source.delta_scale, strict=True))
        source.delta_scale = (1, 1, 1)
    even = float(np.cbrt(scale.x * scale.y * scale.z)) or (scale.x + scale.y + scale.z) / 3
    source.scale = (even, even, even)
    return True


def _restore_vertices(rig: Rig, applied: np.ndarray) -> None:
    """Gives the vertices the head's proportions again after an uneven scale was applied to them."""
    _check_own_data(rig)
    if not has_size(applied):
        raise EffigyError(f"“{rig.mesh.name}” was flattened when a scale was applied: undo that, or import it again.")
    matrix = Matrix(nearest_similarity(applied) @ np.linalg.inv(applied))
    # fake-bpy-module does not know the parameter.
    rig.mesh.data.transform(matrix, shape_keys=True)  # pyright: ignore[reportCallIssue]
    rig.mesh.data.update()


def _restore_rest_pose(rig: Rig, _: Trouble, layer: bpy.types.ViewLayer) -> bool:
    """Puts the rest bones to the joints of the head that the mesh shows."""
    _check_own_data(rig)
    place = nearest_similarity(head_place(rig, layer.depsgraph).mesh)
    with edit_bones(rig.armature) as bones:
        set_rest_pose({joint: bones[rig.bone_name(joint)] for joint in JOINT_NAMES}, rig.joints, place)
    return True


def _bring_together(rig: Rig, _: Trouble, layer: bpy.types.ViewLayer) -> bool:
    """Moves the armature to the mesh, so that the head stays where it is; a mesh whose armature cannot be moved goes
    back to the armature. Changes nothing where that does not bring them together, because the mesh is held elsewhere.
    """
    place = head_place(rig, layer.depsgraph)
    neck, armature = place.motions[JOINT_NAMES.index("neck")], rig.armature
    here = nearest_similarity(place.world) @ np.linalg.inv(neck @ place.bones)
    before, of_mesh = armature.matrix_basis.copy(), rig.mesh.matrix_basis.copy()
    armature.matrix_world = Matrix(here)
    layer.update()
    if np.abs(np.array(armature.evaluated_get(layer.depsgraph).matrix_world) - here).max() > PLACE_TOLERANCE:
        armature.matrix_basis = before
        layer.update()
        here = np.array(armature.evaluated_get(layer.depsgraph).matrix_world, np.float64)
    _put_to_bones(rig, here, place)
    layer.update()
    left = find_trouble(rig, layer.depsgraph)
    if left is None or left.kind is not Kind.BESIDE:
        return True
    armature.matrix_basis, rig.mesh.matrix_basis = before, of_mesh
    return False


def _put_to_bones(rig: Rig, world_of_armature: np.ndarray, place: HeadPlace) -> None:
    """Puts the mesh where the armature's rest bones are."""
    rig.mesh.matrix_world = Matrix(world_of_armature @ place.bones @ np.linalg.inv(place.vertices))


def _hold_joints(rig: Rig, _: Trouble, layer: bpy.types.ViewLayer) -> bool:
    moved = False
    for bone in map(rig.pose_bone, JOINT_NAMES[1:]):
        moved = moved or any(bone.location) or any(scale != 1 for scale in bone.scale)
        bone.location, bone.scale = (0, 0, 0), (1, 1, 1)
    return moved


def _show_all_keys(rig: Rig, _: Trouble, layer: bpy.types.ViewLayer) -> bool:
    rig.mesh.show_only_shape_key = False
    if not rig.mesh.data.shape_keys.use_relative:
        _check_own_data(rig)
        rig.mesh.data.shape_keys.use_relative = True
    return True


def _check_own_data(rig: Rig) -> None:
    if not rig.is_editable or rig.armature.data.library is not None:
        raise EffigyError(
            f"The rest pose of “{rig.armature.name}” belongs to another file: mend it there, where the rig is kept."
        )


_CURES: Final[dict[Kind, Callable[[Rig, Trouble, bpy.types.ViewLayer], bool]]] = {
    Kind.NOT_DEFORMED: _deform,
    Kind.DEFORMED_OTHERWISE: _deform,
    Kind.MIRRORED: _scale_evenly,
    Kind.UNEVEN: _scale_evenly,
    Kind.REST_POSE: _restore_rest_pose,
    Kind.BESIDE: _bring_together,
    Kind.JOINT_MOVED: _hold_joints,
    Kind.OTHER_KEYS: _show_all_keys,
}
