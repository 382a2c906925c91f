"""The rig that the artist is working on: that of the active object, otherwise the only one of the scene."""

from __future__ import annotations

import bpy

from .errors import EffigyError
from .rig.rig_properties import Rig, find_rig, find_rigs, is_part


def active_rig(context: bpy.types.Context) -> Rig | None:
    """None if the active object is not part of a rig and the scene does not have exactly one."""
    rig = find_rig(context.object) if context.object else None
    if rig is None:
        rigs = [rig for obj in context.scene.objects if is_part(obj, "armature") and (rig := find_rig(obj))]
        rig = rigs[0] if len(rigs) == 1 else None
    return rig


def has_rig(context: bpy.types.Context) -> bool:
    """For `poll`, which must not raise an error."""
    try:
        return active_rig(context) is not None
    except EffigyError:
        return False


def problem(context: bpy.types.Context) -> str | None:
    """Why the active rig cannot be used, as a sentence: it is damaged, or of a newer Effigy. None for a good one, and
    if there is none.
    """
    try:
        active_rig(context)
    except EffigyError as error:
        return str(error)
    return None


def need_rig(context: bpy.types.Context) -> Rig:
    """The active rig. Raises an `EffigyError` if there is none."""
    rig = active_rig(context)
    if rig is None:
        many = sum(1 for _ in find_rigs(context.scene.objects)) > 1
        raise EffigyError(
            "There are several rigs: select the one to use."
            if many
            else "There is no Effigy rig in this scene: import a video first, or add an avatar."
        )
    return rig
