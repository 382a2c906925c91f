"""The avatars in Blender's own 3D Views.

Blender calls `_begin` before it draws a view's scene, and `_draw` after scene and overlays, into the buffer of the
overlays. That buffer is not touched by the scene's view transform: it is laid over the transformed scene in display
values, so that the head has its footage's colours under any view transform and in any shading mode. The buffer is encoded
as sRGB on writing, and has the scene's depth attached. `render.opengl` calls no handlers, so viewport renders show no avatars.

The rig's mesh is made clear while splats stand for it (`dress`), and what Blender still draws of it, outlines and depth,
does not hide them (`mesh`).
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Final

import bpy
import gpu
import numpy as np

from ..rig.rig_properties import Rig, find_rigs
from . import live, splat_framebuffer
from .bones import draw_bones
from .live import Actor, Eye
from .mesh import DrawnMesh
from .mesh_visibility import dress_all, is_undressed
from .splat_framebuffer import Lens, Picture, Uploaded
from .splats import pack

SOFTWARE: Final = ("llvmpipe", "softpipe", "swiftshader", "basic render", "gdi generic")
"""In the names of renderers that draw on the processor."""


@dataclass
class _Shown:
    """What the views share: the splats of a set of avatars."""

    key: tuple = ()
    uploaded: Uploaded | None = None


@dataclass
class _View:
    picture: Picture = field(default_factory=Picture)
    seen: list[tuple[Rig, Actor]] = field(default_factory=list)
    who: tuple[int, ...] = ()
    """Whose splats it showed last, by their armatures' `session_uid`."""


_views: dict[int, _View] = {}
_shown: dict[tuple, _Shown] = {}
_meshes: dict[int, DrawnMesh] = {}
_said: set[str] = set()
_tidied: tuple = ()
"""What there was when `_tidy` last looked."""
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
    _tidy(context)
    number = context.region.as_pointer()
    view = _views.setdefault(number, _View())
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
    shown = [
        (rig, actor) for rig, actor in view.seen if actor.splats is not None and rig.armature.effigy_view.mode != "MESH"
    ]
    view.who = tuple(rig.armature.session_uid for rig, _ in shown)
    for who in set(_shown) - {view.who for view in _views.values()}:
        del _shown[who]
    if not shown:
        return
    lens = lens_of(context)
    uploaded = _upload(view.who, shown)
    if uploaded is None:
        return
    meshes = [_mesh_of(rig, actor, context) for rig, actor in shown if rig.mesh.mode == "OBJECT"]
    view.splat_framebuffer.draw(uploaded, lens, meshes, _step(context, view))
    view.splat_framebuffer.lay_over(lens, context.preferences.themes[0].view_3d.space.gradients.high_gradient)
    for rig, actor in shown:
        if rig.armature.effigy_view.mode == "BOTH":
            _mesh_of(rig, actor, context).draw_lines(lens)
        draw_bones(rig, context)


def _tidy(context: bpy.types.Context) -> None:
    """Let go of what lies on the GPU for views that were closed and avatars that were deleted, of which Blender says
    nothing."""
    global _tidied
    regions = {
        region.as_pointer()
        for window in context.window_manager.windows
        for area in window.screen.areas
        if area.type == "VIEW_3D"
        for region in area.regions
    }
    there = live.loaded, len(bpy.data.objects), regions
    if there == _tidied:
        return
    _tidied = there
    live.forget_deleted()
    for kept, remains in ((_views, regions), (_meshes, live.known())):
        for number in set(kept) - remains:
            del kept[number]


def _step(context: bpy.types.Context, view: _View) -> int:
    quality = context.scene.effigy_view.quality
    if quality == "FULL" or (quality == "AUTO" and not _is_software()):
        return 1
    return 2 if live.is_moving(context.region.as_pointer(), view.seen) else 1


def _is_software() -> bool:
    renderer = gpu.platform.renderer_get().lower()
    return any(name in renderer for name in SOFTWARE)


def _mesh_of(rig: Rig, actor: Actor, context: bpy.types.Context) -> DrawnMesh:
    mesh = _meshes.setdefault(rig.armature.session_uid, DrawnMesh())
    mesh.update(rig.mesh, context.view_layer.depsgraph, actor.read_at)
    return mesh


def _upload(who: tuple[int, ...], shown: list[tuple[Rig, Actor]]) -> Uploaded | None:
    """The splats of these avatars on the GPU, sent again only where something changed."""
    looks = [live.look_of(rig.armature) for rig, _ in shown]
    key = tuple((actor.version, actor.motion.tobytes(), look) for (_, actor), look in zip(shown, looks))
    kept = _shown.setdefault(who, _Shown())
    if kept.key != key:
        packed = pack([(actor.splats, actor.motion, look) for (_, actor), look in zip(shown, looks)])
        kept.key, kept.uploaded = key, None if packed is None else Uploaded(packed)
    return kept.uploaded


def _dress_if_needed(context: bpy.types.Context) -> None:
    """Nothing in the file may be changed while Blender draws, so it is done right after."""
    if not bpy.app.timers.is_registered(dress_all) and any(map(is_undressed, find_rigs(context.view_layer.objects))):
        bpy.app.timers.register(dress_all, first_interval=0.0)


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
    if bpy.app.timers.is_registered(dress_all):
        bpy.app.timers.unregister(dress_all)
    release()


def release() -> None:
    """Everything that lies on the GPU."""
    global _tidied
    _tidied = ()
    _views.clear()
    _shown.clear()
    _meshes.clear()
    _said.clear()
    splat_framebuffer.release()
