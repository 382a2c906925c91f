"""The rig that the artist is working on: that of the active object, otherwise the only one of the scene."""

from __future__ import annotations

import bpy

from .errors import EffigyError
from .face_board.build import has_board
from .rig import mending
from .rig.rig_properties import Rig, find_rig, find_rigs, meshes_of, what_it_lacks


def active_rig(context: bpy.types.Context) -> Rig | None:
    """None if the active object is not part of a rig and the scene does not have exactly one. Raises an `EffigyError`
    for an object that was part of a rig and lacks the rest of it: another rig is never meant by it.
    """
    if context.object is not None:
        rig = find_rig(context.object)
        if rig is None and (lack := what_it_lacks(context.object)):
            raise EffigyError(lack)
        if rig is not None:
            chosen = [mesh for mesh in meshes_of(rig.armature) if mesh.select_get()]
            # Of several copies of the mesh on the active armature, the selected one is meant.
            return find_rig(chosen[0]) if context.object == rig.armature and len(chosen) == 1 else rig
    armatures = dict.fromkeys(rig.armature for rig in map(find_rig, context.scene.objects) if rig is not None)
    return find_rig(next(iter(armatures))) if len(armatures) == 1 else None


def other_selected_rigs(context: bpy.types.Context) -> list[Rig]:
    """The rigs of which a part is selected, without the active one, in the order of their names."""
    active = active_rig(context)
    found = {rig.armature: rig for obj in context.selected_objects if (rig := find_rig(obj)) is not None}
    if active is not None:
        found.pop(active.armature, None)
    return [found[armature] for armature in sorted(found, key=lambda armature: armature.name)]


def selected_of_same_head(context: bpy.types.Context) -> list[Rig]:
    """Those of `other_selected_rigs` with the very head of the active rig, as after *Track Together*, and with footage:
    a rig for the avatar alone has none.
    """
    rig = active_rig(context)
    if rig is None:
        return []
    others = (other for other in other_selected_rigs(context) if other.armature.effigy.capture)
    return [other for other in others if other.has_same_head(rig)]


def has_rig(context: bpy.types.Context) -> bool:
    """For `poll`, which must not raise an error."""
    try:
        return active_rig(context) is not None
    except EffigyError:
        return False


def poll(operator: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    """The `poll` of an operator that works on the active rig; tells why there is none."""
    try:
        if active_rig(context) is not None:
            return True
    except EffigyError as error:
        operator.poll_message_set(str(error))
    return False


def poll_board(operator: type[bpy.types.Operator], context: bpy.types.Context) -> bool:
    """The `poll` of an operator that needs the face board of the active rig."""
    if not poll(operator, context):
        return False
    if not has_board(need_rig(context)):
        operator.poll_message_set("The rig has no face controls: add them first")
        return False
    return True


def can_complete(context: bpy.types.Context) -> bool:
    """Whether the active object is a part of no rig any more and can be made a whole rig again."""
    return context.object is not None and mending.can_complete(context.object)


def problem(context: bpy.types.Context) -> str | None:
    """Why the active rig cannot be used, as a sentence: it is damaged, of a newer Effigy or only a part of one. None
    for a good one, and if there is none.
    """
    try:
        active_rig(context)
    except EffigyError as error:
        return str(error)
    return None


def instance_of_rig(context: bpy.types.Context) -> str | None:
    """A sentence if the active object is an instance of a collection with a rig: instances are without an avatar."""
    obj = context.object
    collection = obj.instance_collection if obj is not None else None
    if collection is None or not any(find_rig(part) for part in collection.all_objects):
        return None
    if collection.library is None:
        return (
            f"“{obj.name}” is an instance of “{collection.name}”, and instances have no avatar: copy the rig instead."
        )
    return f"“{obj.name}” shows a linked rig without its avatar: use Object ▸ Library Override ▸ Make."


def need_rig(context: bpy.types.Context) -> Rig:
    """The active rig. Raises an `EffigyError` if there is none."""
    rig = active_rig(context)
    if rig is None:
        many = sum(1 for _ in find_rigs(context.scene.objects)) > 1
        lacks = next(filter(None, map(what_it_lacks, context.scene.objects)), None)
        if lacks and not many:
            raise EffigyError(lacks)
        raise EffigyError(
            "There are several rigs: select the one to use."
            if many
            else "There is no Effigy rig in this scene: import a video first, or add an avatar."
        )
    return rig
