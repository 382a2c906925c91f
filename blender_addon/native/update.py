"""The handlers that keep native splats up to date.

Blender evaluates a frame, calls `frame_change_post` with the dependency graph, and evaluates again what that has
changed. It does so in the window, for F12, for each frame of an animation and for the times within an exposure, so that
this one handler serves all of them. After any other change of the scene there is `depsgraph_update_post`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

import bpy
from bpy.app.handlers import persistent

from ..errors import EffigyError
from ..native_clouds import clouds, is_supported, rig_of
from ..reporting import report_soon
from . import cloud as point_cloud
from . import mesh_rays
from .frame import request_of, splats_of


@dataclass
class _State:
    rendering: bool = False
    """A render has begun: until it ends, only its own graphs are followed."""
    written: dict[int, bytes] = field(default_factory=dict)
    """By a point cloud's `session_uid`: the key of the frame that it holds."""
    told: set[str] = field(default_factory=set)


state: Final = _State()


def refresh(depsgraph: bpy.types.Depsgraph, *, asked: bool = False) -> None:
    """Brings the native splats that a depsgraph shows to its frame. Those that cannot be evaluated stay as they are,
    and the reason is reported once. `asked`: as in `avatars.avatar_path`.
    """
    for cloud in clouds(bpy.data.objects):
        if not cloud.effigy_native.baked and cloud.evaluated_get(depsgraph).is_evaluated:
            try:
                _refresh(cloud, depsgraph, asked)
            except EffigyError as error:
                if str(error) not in state.told:
                    state.told.add(str(error))
                    report_soon(str(error))


def _refresh(cloud: bpy.types.Object, depsgraph: bpy.types.Depsgraph, asked: bool) -> None:
    rig = rig_of(cloud)
    # An object that an artist has deleted is kept by the pointer to it, in no collection.
    deleted = not cloud.effigy_native.mesh.users_collection
    if rig is None and not deleted:
        return
    own = _may_write_file()
    data = cloud.data if own else cloud.evaluated_get(depsgraph).data
    request = None if rig is None or deleted else request_of(rig, cloud, depsgraph, asked=asked)
    key = b"" if request is None else request.key()
    if own and state.written.get(data.session_uid) == key:
        return
    if request is None:
        point_cloud.hide_all(data)
    else:
        splats = splats_of(request)
        if not (own or point_cloud.fits(data, splats)):
            raise EffigyError(
                f"The splats of “{cloud.name}” are those of another avatar, and a render cannot change their number: "
                "stop it and press Native Splats again."
            )
        point_cloud.write(data, splats)
    if own:
        state.written[data.session_uid] = key


def _may_write_file() -> bool:
    """Whether the point cloud of the file may be written, of which all graphs have copies. A render from the window
    runs in a thread, while the window may read the file's data: it writes the copy of its own graph instead.
    """
    return threading.current_thread() is threading.main_thread()


def _is_rendering() -> bool:
    """Whether a render is in progress. One that failed may have ended without telling."""
    if state.rendering and not bpy.app.background and not bpy.app.is_job_running("RENDER"):
        state.rendering = False
    return state.rendering


@persistent
def _before_frame(*_: object) -> None:
    # Before Blender evaluates anything: what shares data now would show the same avatar twice.
    if len(bpy.data.pointclouds) and _may_write_file():
        point_cloud.own_data()


@persistent
def _on_frame(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph | None = None) -> None:
    if depsgraph is None or not len(bpy.data.pointclouds):
        return
    rendered = depsgraph.mode == "RENDER"
    if rendered or not _is_rendering():
        # A render is a click of the artist, or a farm's own command.
        refresh(depsgraph, asked=rendered)


@persistent
def _on_change(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph | None = None) -> None:
    if depsgraph is None or _is_rendering():
        return
    if len(bpy.data.pointclouds):
        point_cloud.own_data()
        refresh(depsgraph)
    mesh_rays.show_left()


@persistent
def _on_render_begins(*_: object) -> None:
    state.rendering = True
    state.told.clear()


@persistent
def _on_render_ends(*_: object) -> None:
    state.rendering = False


@persistent
def _on_other_data(*_: object) -> None:
    state.rendering = False
    state.written.clear()
    point_cloud.own_data()


handlers: Final = (
    (
        ("frame_change_pre", _before_frame),
        ("frame_change_post", _on_frame),
        ("depsgraph_update_post", _on_change),
        ("render_init", _on_render_begins),
        ("render_complete", _on_render_ends),
        ("render_cancel", _on_render_ends),
        ("undo_post", _on_other_data),
        ("redo_post", _on_other_data),
        ("load_post", _on_other_data),
    )
    if is_supported()
    else ()
)


def unregister() -> None:
    state.written.clear()
    state.told.clear()
    state.rendering = False
