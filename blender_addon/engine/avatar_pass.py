"""The avatar pass: a second scene with the artist's own objects, that renders only the avatars, on transparent film.

A scene of another engine shows the pass through a Render Layers node of its compositor: Blender then renders the pass
at each frame of the artist's F12 or animation. The pass has no objects of its own, and takes camera, size, border and
range from the artist's scene whenever a render begins.
"""

from __future__ import annotations

from typing import Final

import bpy
from bpy.app.handlers import persistent

from ..avatars import has_avatar
from ..errors import EffigyError
from ..rig.rig_properties import find_rigs
from .render_engine import ENGINE

PASS_OF: Final = "effigy_pass_of"
"""On a pass: the artist's scene."""
_FOLLOWED: Final = (
    "resolution_x",
    "resolution_y",
    "resolution_percentage",
    "pixel_aspect_x",
    "pixel_aspect_y",
    "fps",
    "fps_base",
    "use_border",
    "use_crop_to_border",
    "border_min_x",
    "border_max_x",
    "border_min_y",
    "border_max_y",
    "use_motion_blur",
)
"""Of the render settings."""


def find_pass(scene: bpy.types.Scene) -> bpy.types.Scene | None:
    return next((other for other in bpy.data.scenes if other.get(PASS_OF) == scene), None)


def make_pass(scene: bpy.types.Scene, layer: bpy.types.ViewLayer) -> bpy.types.Scene:
    """The avatar pass of a scene, for what `layer` shows: made, or brought up to date where there is one."""
    if scene.get(PASS_OF) is not None:
        raise EffigyError(f"“{scene.name}” is an avatar pass itself: choose the scene that it belongs to.")
    if scene.render.engine == ENGINE:
        raise EffigyError(
            "This scene renders with Effigy, which shows avatars only: choose Cycles or EEVEE, whose "
            "picture the avatars are to be in."
        )
    if not any(has_avatar(rig.armature) for rig in find_rigs(scene.objects)):
        raise EffigyError("There is no avatar in this scene: train one, or add an existing .effigy file.")
    made = find_pass(scene)
    if made is None:
        # A copy of a scene has a main collection of its own, and shares objects and all other collections.
        made = scene.copy()
        made.name = f"{scene.name} avatars"
        made[PASS_OF] = scene
        for other in [other for other in made.view_layers if other.name != layer.name]:
            made.view_layers.remove(other)
    only = made.view_layers[0]
    only.use, only.use_pass_z = True, True
    render = made.render
    render.engine, render.film_transparent = ENGINE, True
    render.use_compositing = render.use_sequencer = render.use_freestyle = render.use_multiview = False
    if not hasattr(made, "compositing_node_group"):
        made.use_nodes = False
    else:
        made.compositing_node_group = None
    follow(made)
    return made


def follow(made: bpy.types.Scene) -> None:
    """Give a pass what its scene has by now."""
    scene = made[PASS_OF]
    made.camera = scene.camera
    made.frame_start, made.frame_end, made.frame_step = scene.frame_start, scene.frame_end, scene.frame_step
    for name in _FOLLOWED:
        setattr(made.render, name, getattr(scene.render, name))
    made.effigy.enhanced = scene.effigy.enhanced
    ours, theirs = made.collection, scene.collection
    for kind in ("objects", "children"):
        mine, artists = getattr(ours, kind), getattr(theirs, kind)
        for gone in [member for member in mine if member.name not in artists]:
            mine.unlink(gone)
        for new in [member for member in artists if member.name not in mine]:
            mine.link(new)
    only = made.view_layers[0]
    artists_layer = scene.view_layers.get(only.name)
    if artists_layer is not None:
        only.update()
        _exclude_alike(artists_layer.layer_collection, only.layer_collection)
    made.timeline_markers.clear()
    for marker in scene.timeline_markers:
        # Markers switch cameras, and are nothing else to a render.
        if marker.camera is not None:
            made.timeline_markers.new(marker.name, frame=marker.frame).camera = marker.camera
    # Evaluated here and now: 5.2 crashes where a render is the first to meet a changed layer.
    only.update()


def _exclude_alike(theirs: bpy.types.LayerCollection, ours: bpy.types.LayerCollection) -> None:
    for child in theirs.children:
        same = ours.children.get(child.name)
        if same is not None:
            if same.exclude != child.exclude:
                same.exclude = child.exclude
            _exclude_alike(child, same)


@persistent
def _follow_before_render(scene: bpy.types.Scene, *_: object) -> None:
    # The pass itself may be rendered too, to look at it.
    made = scene if scene.get(PASS_OF) is not None else find_pass(scene)
    if made is not None:
        follow(made)


def register() -> None:
    bpy.app.handlers.render_init.append(_follow_before_render)


def unregister() -> None:
    if _follow_before_render in bpy.app.handlers.render_init:
        bpy.app.handlers.render_init.remove(_follow_before_render)
