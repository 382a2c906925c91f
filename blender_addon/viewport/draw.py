"""Draws the avatars in Blender's 3D Views.

Blender calls `_before_scene` before it draws a view's scene, and `_after_overlays` after the scene and the overlays,
with the overlays' buffer bound. The scene's view transform does not affect that buffer: Blender adds the buffer to the
transformed scene in display values. The head therefore has the colours of its footage under any view transform and in
any shading mode. The buffer encodes written values as sRGB, and has the scene's depth attached. `render.opengl` calls
no draw handlers, so viewport renders show no avatars.

The rig's mesh is transparent while splats are shown in its place (`mesh_visibility`). What Blender still draws of it,
its outline and its depth, must not hide the splats: `splat_framebuffer` brings the splats in front of it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import bpy
import gpu
import numpy as np

from ..redraw import redraw_panels
from ..rig.rig_properties import Rig, find_rigs
from . import fit_wire, landmarks, live, mesh_visibility, shared_shaders, splat_framebuffer
from .avatar_state import AvatarState
from .bones import draw_bones
from .mesh import MeshBatches
from .splat_framebuffer import SplatFramebuffer, SplatTexture, ViewCamera
from .splats import pack
from .viewpoint import Viewpoint

SOFTWARE_RENDERERS: Final = ("llvmpipe", "softpipe", "swiftshader", "basic render", "gdi generic")
"""Substrings of the names of renderers that draw on the CPU."""


@dataclass
class _SharedTexture:
    """The texture with the splats of one set of avatars, shared by all views that show this set."""

    key: tuple[Any, ...] = ()
    """For each avatar the version of its splats, the head's motion, the draw style and the grade with which the texture
    was made."""
    texture: SplatTexture | None = None


@dataclass
class _View:
    """What is kept for one 3D View."""

    framebuffer: SplatFramebuffer = field(default_factory=SplatFramebuffer)
    visible: list[tuple[Rig, AvatarState]] = field(default_factory=list)
    """The result of `live.update_view` before the scene was drawn; empty if avatars are hidden with the overlays."""
    drawn: tuple[int, ...] = ()
    """The avatars whose splats it last drew, by `Rig.uid`."""
    pixel_step: int = 1
    """`_pixel_step` when this redraw began: drawing the scene may take longer than a view counts as moving."""


@dataclass
class _DrawState:
    """What the draw handlers keep between redraws. `release` empties it, except for `handles`."""

    views: dict[int, _View] = field(default_factory=dict)
    """By the address of the view's region."""
    textures: dict[tuple[int, ...], _SharedTexture] = field(default_factory=dict)
    """By `Rig.uid`."""
    meshes: dict[int, MeshBatches] = field(default_factory=dict)
    """By `Rig.uid`."""
    reported_errors: set[str] = field(default_factory=set)
    cleaned_up_for: tuple[Any, ...] = ()
    """The loaded file, number of objects and regions when `_clean_up` last ran."""
    handles: list[object] = field(default_factory=list)
    """The registered draw handlers."""


state: Final = _DrawState()


def camera_of(context: bpy.types.Context) -> ViewCamera:
    """The camera of the 3D View that is being drawn."""
    region, view = context.region, context.region_data
    return ViewCamera(np.array(view.view_matrix), np.array(view.window_matrix), region.width, region.height)


def _before_scene() -> None:
    """Requests the splats of new poses, so that the worker computes them while Blender draws the scene."""
    _guarded(_update, bpy.context)


def _after_overlays() -> None:
    """Draws the splats, the wireframes and the bones over the finished view."""
    _guarded(_draw, bpy.context)
    _guarded(_draw_fit, bpy.context)


def _draw_fit(context: bpy.types.Context) -> None:
    """Draws the wire of the rigs that have no avatar yet, and the landmarks of the film."""
    fit_wire.draw(context, camera_of(context))
    landmarks.draw(context)


def _update(context: bpy.types.Context) -> None:
    """Updates the view's list of visible avatars and their states. The list is empty, and nothing is requested, if the
    artist has chosen that avatars are hidden with the overlays, and the overlays are off, or if a shader could not be
    built.
    """
    _clean_up(context)
    number = context.region.as_pointer()
    view = state.views.setdefault(number, _View())
    overlays = context.space_data.overlay.show_overlays
    if not overlays and context.scene.effigy_view.with_overlays:
        view.visible = []
        return
    camera = camera_of(context)
    viewpoint = Viewpoint.from_view_matrix(camera.view, camera.orthographic)
    view.visible = live.update_view(context, number, viewpoint) if not shared_shaders.failure() else []
    if view.visible and not shared_shaders.build():
        view.visible = []
        redraw_panels()
    view.pixel_step = _pixel_step(context, number, view.visible) if view.visible else 1
    _schedule_mesh_visibility(context)


def _draw(context: bpy.types.Context) -> None:
    """Draws the avatars of this view that have splats. Frees the textures that no view shows any more."""
    view = state.views.get(context.region.as_pointer())
    if view is None:
        return
    drawn = [
        (rig, avatar)
        for rig, avatar in view.visible
        if avatar.splats is not None and rig.armature.effigy_view.mode != "MESH"
    ]
    view.drawn = tuple(rig.uid for rig, _ in drawn)
    for uids in set(state.textures) - {other.drawn for other in state.views.values()}:
        del state.textures[uids]
    if not drawn:
        return
    camera = camera_of(context)
    texture = _splat_texture(view.drawn, drawn)
    if texture is None:
        return
    meshes = [_mesh_of(rig, avatar, context) for rig, avatar in drawn if rig.mesh.mode == "OBJECT"]
    view.framebuffer.draw(texture, camera, meshes, view.pixel_step)
    view.framebuffer.composite(camera, context.preferences.themes[0].view_3d.space.gradients.high_gradient)
    for rig, avatar in drawn:
        if rig.armature.effigy_view.mode == "BOTH":
            _mesh_of(rig, avatar, context).draw_wire(camera)
        draw_bones(rig, context)


def _clean_up(context: bpy.types.Context) -> None:
    """Frees the GPU memory of closed views and deleted avatars. Blender does not report that a view was closed or an
    object deleted, so this runs at every redraw, and returns early if the regions, the number of objects and the file
    are the same as last time.
    """
    regions = {
        region.as_pointer()
        for window in context.window_manager.windows
        for area in window.screen.areas
        if area.type == "VIEW_3D"
        for region in area.regions
    }
    existing = live.state.files_loaded, len(bpy.data.objects), regions
    if existing == state.cleaned_up_for:
        return
    state.cleaned_up_for = existing
    live.state.forget_deleted()
    for kept, remaining in ((state.views, regions), (state.meshes, set(live.state.avatars))):
        for number in set(kept) - remaining:
            del kept[number]


def _pixel_step(context: bpy.types.Context, number: int, visible: list[tuple[Rig, AvatarState]]) -> int:
    """The side of a splat framebuffer's pixel in view pixels: 2 while the view `number` or an avatar in it changes, if
    the artist has chosen the quality `ANCHORS`, or `AUTO` and Blender draws on the CPU; else 1.
    """
    quality = context.scene.effigy_view.quality
    if quality == "FULL" or (quality == "AUTO" and not _is_software_renderer()):
        return 1
    return 2 if live.is_moving(number, visible) else 1


def _is_software_renderer() -> bool:
    renderer = gpu.platform.renderer_get().lower()
    return any(name in renderer for name in SOFTWARE_RENDERERS)


def _mesh_of(rig: Rig, avatar: AvatarState, context: bpy.types.Context) -> MeshBatches:
    """The GPU batches of a rig's mesh, rebuilt if the pose has been read again since."""
    mesh = state.meshes.setdefault(rig.uid, MeshBatches())
    mesh.update(rig.mesh, context.view_layer.depsgraph, avatar.read_at)
    return mesh


def _splat_texture(uids: tuple[int, ...], avatars: list[tuple[Rig, AvatarState]]) -> SplatTexture | None:
    """The texture with the splats of these avatars, uploaded again only after a change. None if there is no splat."""
    styles = [live.draw_style_of(rig.armature) for rig, _ in avatars]
    key = tuple(
        (avatar.version, avatar.motion.tobytes(), style, avatar.grade)
        for (_, avatar), style in zip(avatars, styles, strict=True)
    )
    shared = state.textures.setdefault(uids, _SharedTexture())
    if shared.key != key:
        packed = pack(
            [
                (avatar.splats.graded(avatar.grade), avatar.motion, style)
                for (_, avatar), style in zip(avatars, styles, strict=True)
            ]
        )
        shared.key, shared.texture = key, None if packed is None else SplatTexture(packed)
    return shared.texture


def _schedule_mesh_visibility(context: bpy.types.Context) -> None:
    """Starts a timer for `mesh_visibility.update_all` if a mesh has to be hidden or shown. The timer runs right after
    the redraw, because the file must not be changed while Blender draws.
    """
    update = mesh_visibility.update_all
    if not bpy.app.timers.is_registered(update) and any(
        map(mesh_visibility.needs_update, find_rigs(context.view_layer.objects))
    ):
        bpy.app.timers.register(update, first_interval=0.0)


def _guarded(function: Callable[[bpy.types.Context], None], context: bpy.types.Context) -> None:
    """Calls `function`, and prints an error instead of raising it, so that Blender draws the rest of the view. The same
    error is printed only once, because a view is redrawn many times a second.
    """
    try:
        function(context)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        if message not in state.reported_errors:
            state.reported_errors.add(message)
            traceback.print_exc()


def register() -> None:
    add = bpy.types.SpaceView3D.draw_handler_add
    state.handles[:] = add(_before_scene, (), "WINDOW", "PRE_VIEW"), add(_after_overlays, (), "WINDOW", "POST_VIEW")


def unregister() -> None:
    while state.handles:
        bpy.types.SpaceView3D.draw_handler_remove(state.handles.pop(), "WINDOW")
    if bpy.app.timers.is_registered(mesh_visibility.update_all):
        bpy.app.timers.unregister(mesh_visibility.update_all)
    release()


def release() -> None:
    """Frees everything on the GPU."""
    state.cleaned_up_for = ()
    state.views.clear()
    state.textures.clear()
    state.meshes.clear()
    state.reported_errors.clear()
    fit_wire.release()
    splat_framebuffer.release()
