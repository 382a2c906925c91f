"""The avatars in Blender's own 3D Views.

Blender calls `_begin` before it draws a view's scene, and `_draw` after scene and overlays, into the buffer of the
overlays. That buffer is not touched by the scene's view transform: it is laid over the transformed scene in display
values, so that the head has its footage's colours under any view transform and in any shading mode, and its soft edges
are mixed in display values too, as the networks were trained. The buffer is encoded as sRGB on writing, and has the
scene's depth attached. `render.opengl` calls no handlers, so viewport renders show no avatars.

The mesh itself is displayed as a wire while splats stand for it: it then fills no pixel and no depth, can still be
clicked, and its lines lie under the splats.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Final

import bpy
import numpy as np

from ..avatars import has_avatar
from ..rig.marks import Rig, find_rigs
from . import live, picture
from .live import Actor, Eye
from .picture import Lens, Picture, Uploaded
from .splats import pack
from .wire import Wire

MOST_VIEWS: Final = 16
"""Remembered at once; of closed ones Blender says nothing."""


@dataclass
class _Shown:
    """What the views share: the splats of a set of avatars."""

    key: tuple = ()
    uploaded: Uploaded | None = None


@dataclass
class _View:
    picture: Picture = field(default_factory=Picture)
    seen: list[tuple[Rig, Actor]] = field(default_factory=list)


_views: dict[int, _View] = {}
_shown: dict[tuple, _Shown] = {}
_wires: dict[int, Wire] = {}
_said: set[str] = set()
_handles: list[object] = []


def lens_of(context: bpy.types.Context) -> Lens:
    region, view = context.region, context.region_data
    return Lens(np.array(view.view_matrix), np.array(view.window_matrix), region.width, region.height)


def _begin() -> None:
    """Before the scene is drawn: have new poses on their way to the worker."""
    _guarded(_look)


def _draw() -> None:
    _guarded(_paint)


def _look() -> None:
    context = bpy.context
    number = context.region.as_pointer()
    view = _views.get(number)
    if view is None:
        while len(_views) >= MOST_VIEWS:
            _views.pop(next(iter(_views)))
        view = _views[number] = _View()
    overlays = context.space_data.overlay.show_overlays
    if not overlays and context.scene.effigy_view.with_overlays:
        view.seen = []
        return
    lens = lens_of(context)
    view.seen = live.look(context, number, Eye.of(lens.view, lens.orthographic))
    _dress_if_needed(context)


def _paint() -> None:
    context = bpy.context
    view = _views.get(context.region.as_pointer())
    if view is None:
        return
    shown = [(rig, actor) for rig, actor in view.seen
             if actor.splats is not None and rig.armature.effigy_view.mode != "MESH"]
    if not shown:
        return
    lens = lens_of(context)
    uploaded = _upload(shown)
    if uploaded is not None:
        view.picture.draw(uploaded, lens)
        view.picture.lay_over(lens, encode=True)
    for rig, actor in shown:
        if rig.armature.effigy_view.mode == "BOTH":
            wire = _wires.setdefault(rig.armature.session_uid, Wire())
            wire.draw(rig.mesh, context.view_layer.depsgraph, actor.read_at, lens)


def _upload(shown: list[tuple[Rig, Actor]]) -> Uploaded | None:
    """The splats of these avatars on the GPU, sent again only where something changed."""
    who = tuple(rig.armature.session_uid for rig, _ in shown)
    looks = [live.look_of(rig.armature) for rig, _ in shown]
    key = tuple((actor.version, actor.motion.tobytes(), look) for (_, actor), look in zip(shown, looks))
    if len(_shown) > MOST_VIEWS:
        _shown.clear()
    kept = _shown.setdefault(who, _Shown())
    if kept.key != key:
        packed = pack([(actor.splats, actor.motion, look) for (_, actor), look in zip(shown, looks)])
        kept.key, kept.uploaded = key, None if packed is None else Uploaded(packed)
    return kept.uploaded


def _dress_if_needed(context: bpy.types.Context) -> None:
    """Nothing in the file may be changed while Blender draws, so it is done right after."""
    if any(_dress_of(rig) != rig.armature.effigy_view.dressed for rig in find_rigs(context.view_layer.objects)
           if rig.is_editable) and not bpy.app.timers.is_registered(_dress):
        bpy.app.timers.register(_dress, first_interval=0.0)


def _dress_of(rig: Rig) -> str:
    """`WIRE`, or nothing for the mesh's usual display."""
    return "WIRE" if has_avatar(rig.armature) and rig.armature.effigy_view.mode != "MESH" else ""


def _dress() -> None:
    for scene in bpy.data.scenes:
        for rig in find_rigs(scene.objects):
            wanted, chosen = _dress_of(rig), rig.armature.effigy_view
            if rig.is_editable and wanted != chosen.dressed:
                chosen.dressed = wanted
                rig.mesh.display_type = wanted or "TEXTURED"


def _guarded(work: object) -> None:
    """A view is drawn many times a second: what goes wrong is said once, and the rest of the view is drawn."""
    try:
        work()
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}"
        if sentence not in _said:
            _said.add(sentence)
            traceback.print_exc()


def register() -> None:
    add = bpy.types.SpaceView3D.draw_handler_add
    _handles[:] = add(_begin, (), "WINDOW", "PRE_VIEW"), add(_draw, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    while _handles:
        bpy.types.SpaceView3D.draw_handler_remove(_handles.pop(), "WINDOW")
    if bpy.app.timers.is_registered(_dress):
        bpy.app.timers.unregister(_dress)
    release()


def release() -> None:
    """Everything that lies on the GPU."""
    _views.clear()
    _shown.clear()
    _wires.clear()
    _said.clear()
    picture.release()
