"""Scene settings that have no effect on rendered avatars, as sentences for the panels and for a render's report."""

from __future__ import annotations

from typing import Final

import bpy

from ..avatars import avatar_path, has_avatar, is_known
from ..backend_setup import state
from ..errors import EffigyError
from ..player.players import has_enhancer
from ..rig.rig_properties import Rig, find_rigs
from . import mattes
from .color import background_node, world_of
from .engine_name import ENGINE

MADE_PASSES: Final = ("use_pass_combined", "use_pass_z", *mattes.SETTINGS)
"""The settings of the passes that Effigy makes."""


def unsupported_settings(scene: bpy.types.Scene) -> list[str]:
    """What the scene's render asks for that avatars do not follow."""
    layers = [layer for layer in scene.view_layers if layer.use]
    messages = []
    camera = scene.camera
    if camera is not None and camera.type == "CAMERA" and camera.data.dof.use_dof and camera.data.type == "ORTHO":
        messages.append(
            "Avatars are rendered without depth of field by an orthographic camera: they are sharp at any distance. "
            "Blur them in the compositor by the Depth pass if you need it."
        )
    if scene.render.use_freestyle and any(layer.use_freestyle for layer in layers):
        messages.append("Freestyle draws no lines of avatars: it knows their meshes only.")
    overridden = [layer.name for layer in layers if layer.material_override is not None]
    if overridden:
        messages.append(f"The material override of view layer “{overridden[0]}” does not change avatars.")
    if scene.effigy.enhanced and not state().ready and any(map(_lacks_enhancer, find_rigs(scene.objects))):
        messages.append(
            "Avatars are rendered without their enhancer, which only the backend has: install it in Effigy's "
            "preferences for the finest detail, or switch Enhanced off."
        )
    return messages + (_of_own_engine(scene, layers) if scene.render.engine == ENGINE else _of_composite(scene))


def _lacks_enhancer(rig: Rig) -> bool:
    """Whether a rig's avatar loses its enhancer without the backend. Panels ask without a click, so that only files
    which were used on this computer before are looked at.
    """
    if not has_avatar(rig.armature) or not is_known(rig.armature):
        return False
    try:
        return has_enhancer(avatar_path(rig.armature))
    except EffigyError:
        return False


def _of_own_engine(scene: bpy.types.Scene, layers: list[bpy.types.ViewLayer]) -> list[str]:
    messages = []
    missing = {name: None for layer in layers for name in _other_passes(layer)}
    if missing:
        messages.append(
            f"Effigy makes the passes Combined, Depth, Cryptomatte and indices. Not made: {', '.join(missing)}. Render "
            "them with another engine in a second scene if you need them."
        )
    worlds = [world_of(scene, layer) for layer in layers if layer.use_sky]
    nodes = [background_node(world) for world in worlds if world is not None]
    if not scene.render.film_transparent and any(node and node.inputs["Color"].is_linked for node in nodes):
        messages.append(
            "The world's background is made by nodes. Behind avatars there is only the plain colour of its Background "
            "node: make the film transparent and put the background behind it in the compositor."
        )
    return messages


def _of_composite(scene: bpy.types.Scene) -> list[str]:
    if scene.render.use_multiview:
        return ["Avatars are rendered by the scene's own camera: both eyes of a stereoscopic image show them alike."]
    return []


def _other_passes(layer: bpy.types.ViewLayer) -> list[str]:
    """The names of the passes that a layer asks for and Effigy does not make."""
    names = [
        setting.name
        for setting in layer.bl_rna.properties
        if setting.identifier.startswith("use_pass_")
        and setting.identifier not in MADE_PASSES
        # A choice for the three passes of Cryptomatte, which is on by default.
        and setting.identifier != "use_pass_cryptomatte_accurate"
        and getattr(layer, setting.identifier)
    ]
    return names + [group.name for groups in (layer.aovs, layer.lightgroups) for group in groups]
