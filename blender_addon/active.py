"""Which rig an artist means: that of the active object, else the only one of the scene."""

from __future__ import annotations

import bpy

from .errors import EffigyError
from .rig.rig_properties import Rig, find_rig, find_rigs


def active_rig(context: bpy.types.Context) -> Rig | None:
    """None where it is not clear."""
    rig = find_rig(context.object) if context.object else None
    if rig is None:
        rigs = list(find_rigs(context.scene.objects))
        rig = rigs[0] if len(rigs) == 1 else None
    return rig


def has_rig(context: bpy.types.Context) -> bool:
    """For `poll`, which must not raise."""
    try:
        return active_rig(context) is not None
    except EffigyError:
        return False


def need_rig(context: bpy.types.Context) -> Rig:
    rig = active_rig(context)
    if rig is None:
        many = sum(1 for _ in find_rigs(context.scene.objects)) > 1
        raise EffigyError(
            "There are several rigs: select the one that is meant."
            if many
            else "There is no Effigy rig in this scene: import a video first, or add an avatar."
        )
    return rig
