"""Whether a render of a scene shows its avatars: one answer for the panels and for the message at a render."""

from __future__ import annotations

from enum import Enum
from typing import Final

import bpy
from bpy.app.handlers import persistent

from ..avatars import has_avatar
from ..native_clouds import cloud_of
from ..reporting import report_soon
from ..rig.rig_properties import find_rigs
from .avatar_pass import find_pass, scene_of, trouble
from .engine_name import ENGINE

_BUILT_IN: Final = {"BLENDER_EEVEE": "EEVEE", "BLENDER_EEVEE_NEXT": "EEVEE", "BLENDER_WORKBENCH": "Workbench"}


class Shown(Enum):
    """How a scene's avatars come into its image."""

    NO_AVATARS = "no avatars"
    BY_ENGINE = "by the engine Effigy"
    NATIVE = "by the engine of the scene, as native splats"
    COMPOSITED = "composited"
    CHANGED = "no longer composited"
    NOT = "not"


def shown_in(scene: bpy.types.Scene) -> Shown:
    """How the avatars of a scene come into its image, if at all."""
    rigs = [rig for rig in find_rigs(scene.objects) if has_avatar(rig.armature) and not rig.mesh.hide_render]
    if not rigs:
        return Shown.NO_AVATARS
    if scene.render.engine == ENGINE or scene_of(scene) is not None:
        return Shown.BY_ENGINE
    if all(cloud_of(rig, scene.objects) is not None for rig in rigs):
        return Shown.NATIVE
    if trouble(scene):
        return Shown.CHANGED
    return Shown.NOT if find_pass(scene) is None else Shown.COMPOSITED


def sentence(scene: bpy.types.Scene) -> str:
    """How the avatars come into the image, for an artist; empty where there is nothing to say."""
    engine = engine_name(scene)
    match shown_in(scene):
        case Shown.COMPOSITED:
            return "Avatars are composited into this scene's image."
        case Shown.CHANGED:
            return trouble(scene) or ""
        case Shown.NOT:
            return (
                f"{engine} alone does not render avatars: composite them over the scene, or choose the engine Effigy."
            )
    return ""


def engine_name(scene: bpy.types.Scene) -> str:
    """The name of a scene's engine as Blender shows it."""
    engine = scene.render.engine
    kinds = bpy.types.RenderEngine.__subclasses__()
    # Blender's base class for Hydra has neither.
    scripted = {kind.bl_idname: kind.bl_label for kind in kinds if hasattr(kind, "bl_idname")}
    return {**_BUILT_IN, **scripted}.get(engine, engine)


@persistent
def _announce(scene: bpy.types.Scene, *_: object) -> None:
    """Handler: says at the beginning of a render that its image will lack the avatars."""
    # What is wrong with a composite that was set up, the avatar pass says itself.
    if shown_in(scene) is Shown.NOT:
        report_soon(
            f"{engine_name(scene)} renders this image without the avatars: press Composite over the Scene in the "
            "tab Effigy, or choose the engine Effigy.",
            "WARNING",
        )


handlers: Final = (("render_init", _announce),)
