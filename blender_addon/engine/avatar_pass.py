"""The avatar pass: a second scene with the same objects, which renders only the avatars, on a transparent film.

The compositor of a scene of another engine includes the pass through a Render Layers node. Blender then renders the
pass with each frame of the artist's render or animation. The pass has no objects of its own, and copies camera, size,
border and frame range from the artist's scene whenever a render begins.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import bpy
from bpy.app.handlers import persistent

from ..avatars import has_avatar
from ..errors import EffigyError
from ..reporting import report_soon
from ..rig.rig_properties import find_rigs
from . import mattes
from .depth_composite import find_composite, is_composited, reads
from .engine_name import ENGINE

SOURCE_SCENE: Final = "effigy_pass_of"
"""Custom property of a pass: the artist's scene."""
_OWN_SETTINGS: Final = frozenset(
    {
        "engine",
        "film_transparent",
        "use_compositing",
        "use_sequencer",
        "use_freestyle",
        "use_multiview",
        "use_single_layer",
        "use_lock_interface",
        "filepath",
    }
)
"""Render settings of the pass itself. It copies all others from the artist's scene, so that none is forgotten: size,
border, time stretching, stereo, simplification and whatever a later Blender adds."""


def find_pass(scene: bpy.types.Scene) -> bpy.types.Scene | None:
    """The avatar pass of a scene; None if it has none."""
    return next((other for other in bpy.data.scenes if other != scene and scene_of(other) == scene), None)


def scene_of(avatar_pass: bpy.types.Scene) -> bpy.types.Scene | None:
    """The artist's scene of an avatar pass; None for any other scene."""
    scene = avatar_pass.get(SOURCE_SCENE)
    return scene if isinstance(scene, bpy.types.Scene) and avatar_pass.library is None else None


def trouble(scene: bpy.types.Scene) -> str | None:
    """Why a scene that was set up with its avatars is rendered without them, as a sentence; None if all is well, or if
    it was not set up.
    """
    avatar_pass, composite = find_pass(scene), find_composite(scene)
    if scene.render.engine == ENGINE or (avatar_pass is None and composite is None):
        return None
    if avatar_pass is None:
        return (
            f"The scene that renders the avatars of “{scene.name}” was deleted, so its images show no avatars: press "
            f"Set Up Again, or delete the compositor's node “{composite.label or composite.name}”."
        )
    if composite is None or not reads(composite, avatar_pass):
        return (
            f"The compositor of “{scene.name}” does not use the images of “{avatar_pass.name}”, so its images show no "
            "avatars: press Set Up Again, or delete that scene if you want none."
        )
    if not is_composited(scene):
        return (
            f"Compositing is switched off in “{scene.name}”, so its images show no avatars: press Set Up Again, or "
            "switch Compositing on in Properties ▸ Output ▸ Post Processing."
        )
    return None


def make_pass(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> bpy.types.Scene:
    """Creates the avatar pass of a scene for the view layer `layer`, or updates the existing one."""
    if scene_of(scene) is not None:
        raise EffigyError(f"“{scene.name}” is an avatar pass itself: choose the scene that it belongs to.")
    if scene.render.engine == ENGINE:
        raise EffigyError(
            "This scene renders with Effigy, which renders avatars only: choose Cycles or EEVEE, into "
            "whose image the avatars are to be composited."
        )
    if not any(has_avatar(rig.armature) for rig in find_rigs(scene.objects)):
        raise EffigyError("There is no avatar in this scene: train one, or add an existing .effigy file.")
    avatar_pass = find_pass(scene)
    if avatar_pass is None:
        # A copied scene has its own main collection, and shares the objects and all other collections.
        avatar_pass = scene.copy()
        avatar_pass.name = f"{scene.name} avatars"
        avatar_pass[SOURCE_SCENE] = scene
        for other in [other for other in avatar_pass.view_layers if other.name != layer.name]:
            avatar_pass.view_layers.remove(other)
    pass_layer = avatar_pass.view_layers[0]
    pass_layer.use, pass_layer.use_pass_z = True, True
    render = avatar_pass.render
    render.engine, render.film_transparent = ENGINE, True
    render.use_compositing = render.use_sequencer = render.use_freestyle = render.use_multiview = False
    if hasattr(avatar_pass, "compositor_effects"):
        avatar_pass.compositor_effects.clear()
    elif not hasattr(avatar_pass, "compositing_node_group"):
        avatar_pass.use_nodes = False
    else:
        avatar_pass.compositing_node_group = None
    sync(avatar_pass)
    return avatar_pass


def sync(avatar_pass: bpy.types.Scene) -> None:
    """Copies the current settings, objects and cameras of its scene to a pass."""
    scene = scene_of(avatar_pass)
    if scene is None:
        return
    avatar_pass.camera, avatar_pass.background_set = scene.camera, scene.background_set
    avatar_pass.frame_start, avatar_pass.frame_end, avatar_pass.frame_step = (
        scene.frame_start,
        scene.frame_end,
        scene.frame_step,
    )
    _copy_render_settings(scene.render, avatar_pass.render)
    for name in ("enhanced", "blur_images"):
        setattr(avatar_pass.effigy, name, getattr(scene.effigy, name))
    ours, theirs = avatar_pass.collection, scene.collection
    for kind in ("objects", "children"):
        mine, artists = getattr(ours, kind), getattr(theirs, kind)
        for gone in [member for member in mine if member.name not in artists]:
            mine.unlink(gone)
        for new in [member for member in artists if member.name not in mine]:
            mine.link(new)
    pass_layer = avatar_pass.view_layers[0]
    # The artist may have renamed the layer since.
    artists_layer = scene.view_layers.get(pass_layer.name) or scene.view_layers[0]
    for name in ("use_solid", "use_motion_blur", "pass_cryptomatte_depth", *mattes.SETTINGS):
        setattr(pass_layer, name, getattr(artists_layer, name))
    pass_layer.update()
    _show_alike(artists_layer.layer_collection, pass_layer.layer_collection)
    avatar_pass.timeline_markers.clear()
    for marker in scene.timeline_markers:
        # Only markers that switch the camera matter to a render.
        if marker.camera is not None:
            avatar_pass.timeline_markers.new(marker.name, frame=marker.frame).camera = marker.camera
    # Evaluated now, because Blender 5.2 crashes if a render is the first to evaluate a changed layer.
    pass_layer.update()


def followed_settings(render: bpy.types.RenderSettings) -> list[str]:
    """The names of the render settings that the pass copies."""
    return [
        setting.identifier
        for setting in render.bl_rna.properties
        if not setting.is_readonly
        and setting.type not in ("POINTER", "COLLECTION")
        # The only arrays are the colours of the text that Blender writes into pictures.
        and not getattr(setting, "is_array", False)
        and setting.identifier not in _OWN_SETTINGS
    ]


def _copy_render_settings(theirs: bpy.types.RenderSettings, ours: bpy.types.RenderSettings) -> None:
    for name in followed_settings(theirs):
        value = getattr(theirs, name)
        if getattr(ours, name) != value:
            # A choice that this build of Blender does not offer is read as an empty text, which cannot be set.
            with suppress(TypeError):
                setattr(ours, name, value)


def _show_alike(theirs: bpy.types.LayerCollection, ours: bpy.types.LayerCollection) -> None:
    for child in theirs.children:
        same = ours.children.get(child.name)
        if same is not None:
            for name in ("exclude", "holdout", "indirect_only"):
                if getattr(same, name) != getattr(child, name):
                    setattr(same, name, getattr(child, name))
            _show_alike(child, same)


@persistent
def _sync_before_render(scene: bpy.types.Scene, *_: object) -> None:
    if sentence := trouble(scene):
        report_soon(sentence)
    # The artist may also render the pass itself.
    avatar_pass = scene if scene_of(scene) is not None else find_pass(scene)
    if avatar_pass is not None:
        sync(avatar_pass)


handlers: Final = (("render_init", _sync_before_render),)
