"""Keeps the splats of every avatar in a 3D View up to date with the rig's pose and the viewpoint.

`update_view` runs when a 3D View begins to draw. It reads the pose of every avatar in that view. Where the pose is new
it takes baked splats from `cache`, or evaluates the avatar at once if its file has a baked model (`player`), for which
no worker is started. Other avatars are evaluated by the worker while Blender draws the rest of the scene. For each of
these one request is in progress and at most one waits, the newest (`latest` in `worker.client`). Until the answer
arrives, the previous splats stay and move rigidly with the head. Where the artist wants it, the worker also evaluates
the networks of a baked avatar, once pose and view are still.

Blender's handlers only record that something may have changed, because they may run in a render's thread.

Colours depend on the viewpoint. While a view moves, the previous colours stay. They are requested again once the view
has been still for `SETTLE_SECONDS`, or while it moves after a change of `VIEW_CHANGE_MAX`. All views share the splats
of an avatar; they are requested for the viewpoint of the active view, which is the one that moved last.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from bpy.app.handlers import persistent

from ..avatars import avatar_path, has_avatar
from ..errors import EffigyError
from ..grading import grade_of
from ..native_clouds import cloud_of
from ..paths import is_file
from ..playable_files import networks_beside
from ..player.players import edits_of, player_of
from ..redraw import redraw_panels, redraw_views
from ..rig.pose import read_pose
from ..rig.rig_properties import Rig, find_rigs
from ..worker import session
from . import cache
from .avatar_state import AvatarState, RequestRecord, Source, ViewportState, ViewState
from .splats import DrawStyle, Splats
from .splats_request import METHOD, SplatsRequest, pose_key
from .viewpoint import Viewpoint, view_change

SETTLE_SECONDS: Final = 0.15
"""A view or a pose that has not changed for this long counts as still."""
VIEW_TOLERANCE: Final = 0.002
"""Radians of `view_change` below which the colours are not requested again."""
VIEW_CHANGE_MAX: Final = 0.35
"""Radians of `view_change` from which on the colours are requested although the view is still moving."""
RETRY_SECONDS: Final = 3.0
"""Pause after an error before the worker is asked again."""

PLAYED: Final = (Source.PLAYER, Source.DISTILLED, Source.NETWORKS)
"""Of avatars that have a player."""

state: Final = ViewportState()


def update_view(context: bpy.types.Context, view: int, viewpoint: Viewpoint) -> list[tuple[Rig, AvatarState]]:
    """Returns the visible avatars of a 3D View with their updated states. `view` is the address of the view's region.

    Poses are read again only after a change of the scene, and splats are made only if `view` is the active view and
    shows them.
    Splats of the worker arrive after this function has returned, and all views are then redrawn.
    """
    depsgraph = context.view_layer.depsgraph
    if depsgraph is None:
        return []
    _track_view(view, viewpoint)
    visible, now = list(_visible_avatars(context)), time.perf_counter()
    for rig, avatar in visible:
        try:
            if avatar.read_at <= state.scene_changed_at:
                _update_pose(rig, avatar, depsgraph, now)
            if view == state.active_view and avatar.has_size and rig.armature.effigy_view.mode != "MESH":
                _update_splats(context.scene, rig, avatar, viewpoint, depsgraph, now)
        except EffigyError as error:
            _on_error(rig.uid, str(error))
    return [(rig, avatar) for rig, avatar in visible if avatar.has_size]


def is_moving(view: int, visible: list[tuple[Rig, AvatarState]]) -> bool:
    """Whether the view or an avatar in it changed within the last `SETTLE_SECONDS`. If so, this schedules a redraw."""
    last = max([state.views[view].moved_at] + [avatar.moved_at for _, avatar in visible])
    moving = time.perf_counter() - last < SETTLE_SECONDS
    if moving:
        _redraw_when_still()
    return moving


def state_of(rig: Rig) -> AvatarState | None:
    """The state of a rig's avatar; None if no 3D View has shown the avatar yet."""
    return state.avatars.get(rig.uid)


def draw_style_of(armature: bpy.types.Object) -> DrawStyle:
    """How the artist has chosen to draw this armature's splats, for every mode that draws splats."""
    chosen = armature.effigy_view
    kind = chosen.mode if chosen.mode in ("ELLIPSOIDS", "POINTS", "DEPTH") else "SPLATS"
    return DrawStyle(kind, chosen.scale, chosen.least_opacity)


def _visible_avatars(context: bpy.types.Context) -> Iterator[tuple[Rig, AvatarState]]:
    """The avatars whose rig's mesh is visible in the 3D View, which depends on the eye icon, the mesh's collections and
    local view; without those that Blender draws there by itself. Creates the state of an avatar that has none yet.
    """
    for rig in find_rigs(context.view_layer.objects):
        if has_avatar(rig.armature) and rig.mesh.visible_in_viewport_get(context.space_data):
            cloud = cloud_of(rig, context.view_layer.objects)
            if cloud is not None and cloud.visible_in_viewport_get(context.space_data):
                continue
            yield rig, state.avatars.setdefault(rig.uid, AvatarState())


def _track_view(view: int, viewpoint: Viewpoint) -> None:
    """Records when a view moved, and makes the view that moved last the active one. If the active view is closed, this
    view replaces it.
    """
    if view != state.active_view and not _is_open(state.active_view):
        state.active_view = view
    known = state.views.get(view)
    if known is None or not known.viewpoint.is_close_to(viewpoint):
        state.views[view] = ViewState(viewpoint, time.perf_counter())
        state.active_view = view


def _is_open(view: int | None) -> bool:
    """Whether a window's screen has this region. While one area is maximized, the screen lacks the other areas, so that
    their views count as closed.
    """
    return any(
        region.as_pointer() == view
        for window in bpy.context.window_manager.windows
        for area in window.screen.areas
        for region in area.regions
    )


def _update_pose(rig: Rig, avatar: AvatarState, depsgraph: bpy.types.Depsgraph, now: float) -> None:
    """Reads the rig's evaluated pose into `avatar`. `now` (`perf_counter`) is recorded as the time of a change."""
    pose = read_pose(rig, depsgraph)
    key, avatar.read_at, avatar.grade = pose_key(pose), now, grade_of(rig, depsgraph)
    if key != avatar.key:
        avatar.pose_changed_at = now
    if key != avatar.key or not np.array_equal(pose.head_motion, avatar.motion):
        avatar.moved_at = now
    avatar.pose, avatar.motion, avatar.key = pose, pose.head_motion, key


def _update_splats(
    scene: bpy.types.Scene,
    rig: Rig,
    avatar: AvatarState,
    viewpoint: Viewpoint,
    depsgraph: bpy.types.Depsgraph,
    now: float,
) -> None:
    """Takes the splats of the current pose from the bake or the player, or requests them from the worker.

    A new pose is requested at once. For a pose that has been requested before, splats are requested again if the
    viewpoint has changed enough (`VIEW_TOLERANCE`, `VIEW_CHANGE_MAX`), or if the last request was preliminary and the
    pose and the view are still.
    """
    view = viewpoint.relative_to_head(avatar.motion)
    if (found := cache.baked_splats(rig, scene.frame_current, avatar.key)) is not None:
        if found is not avatar.splats:
            avatar.splats, avatar.version = found, avatar.version + 1
            avatar.unfilmed = False
        avatar.requested = avatar.shown = RequestRecord(avatar.key, avatar.pose_changed_at, view, False)
        avatar.source = Source.BAKE
        return
    failed = bool(avatar.error) and now - avatar.failed_at < RETRY_SECONDS
    asked = scene.effigy_view.networks and avatar.source in (Source.DISTILLED, Source.NETWORKS)
    if failed and not asked:
        return
    if avatar.file is not None and avatar.file[0] != _named_by(rig):
        # Another avatar: what was requested of the last one says nothing about this one.
        avatar.file = avatar.requested = None
        avatar.source = Source.NONE
    networks = networks_beside(avatar.file[1]) if asked and not failed and avatar.file is not None else None
    still = now - max(avatar.moved_at, state.views[state.active_view].moved_at) >= SETTLE_SECONDS
    anchors_only = scene.effigy_view.quality == "ANCHORS" and not still and avatar.splats is not None
    if avatar.requested is not None and avatar.requested.key == avatar.key:
        change = view_change(avatar.requested.view, view)
        preliminary = avatar.requested.anchors_only or avatar.requested.networks != (networks is not None)
        if change < VIEW_TOLERANCE and not (preliminary and still):
            if preliminary:
                _redraw_when_still()
            return
        if not still and change < VIEW_CHANGE_MAX:
            _redraw_when_still()
            return
    # Before there is a client: a file that must not be looked for yet starts nothing.
    path, record = _path_of(rig, avatar), RequestRecord(avatar.key, avatar.pose_changed_at, view, anchors_only)
    player = player_of(rig, path, depsgraph)
    if player is None:
        _request_splats(rig.uid, path, avatar, viewpoint, record)
    elif networks is not None and still and avatar.fresh:
        record = replace(record, anchors_only=False, networks=True)
        _request_splats(rig.uid, networks, avatar, viewpoint, record)
    else:
        answer = player.splats(message := avatar.pose.message(), viewpoint.message())
        avatar.requested = record = replace(record, anchors_only=False)
        source = Source.DISTILLED if player.baked.distilled else Source.PLAYER
        error = avatar.error if failed else None
        _show(avatar, record, Splats.from_answer(answer, avatar.motion), source, player.is_unfilmed(message))
        avatar.error = error
        if player.baked.distilled and scene.effigy_view.networks:
            _redraw_when_still()


def _request_splats(uid: int, path: Path, avatar: AvatarState, viewpoint: Viewpoint, record: RequestRecord) -> None:
    """Sends the request that `record` describes to the worker. Replaces a request of this avatar that still waits."""
    motion = avatar.motion
    request = SplatsRequest(path, avatar.pose, viewpoint, record.anchors_only)
    session.client().request(
        METHOD,
        request.message(),
        lambda answer: _on_splats(uid, record, answer, motion),
        lambda error: _on_error(uid, str(error)),
        latest=f"viewport {uid}",
    )
    avatar.requested = record
    if record.anchors_only:
        _redraw_when_still()


def _on_splats(uid: int, record: RequestRecord, answer: Mapping[str, np.ndarray], motion: np.ndarray) -> None:
    """Stores the worker's answer to a request. `motion` (4, 4) is the head's motion in the requested pose."""
    avatar = state.avatars.get(uid)
    # A pose that was played since is newer.
    if avatar is None or (avatar.source in PLAYED and avatar.requested is not record):
        return
    source = Source.NETWORKS if record.networks else Source.WORKER
    _show(avatar, record, Splats.from_answer(answer, motion), source, avatar.unfilmed and avatar.fresh)
    redraw_views()


def _show(avatar: AvatarState, record: RequestRecord, splats: Splats, source: Source, unfilmed: bool = False) -> None:
    if avatar.error or (avatar.source, avatar.unfilmed) != (source, unfilmed):
        redraw_panels()
    avatar.unfilmed = unfilmed
    avatar.splats, avatar.version = splats, avatar.version + 1
    avatar.shown, avatar.source, avatar.error = record, source, None


def _on_error(uid: int, message: str) -> None:
    """Records an error for the panel. The request is repeated at the first redraw after `RETRY_SECONDS`."""
    avatar = state.avatars.get(uid)
    if avatar is None:
        return
    if message != avatar.error:
        redraw_panels()
    avatar.error, avatar.failed_at, avatar.requested = message, time.perf_counter(), None


def _path_of(rig: Rig, avatar: AvatarState) -> Path:
    """The avatar's file, looked up again only after a change of the settings that name it (`AvatarState.file`). Views
    are drawn without a click, so that only a file which was used on this computer before is looked for.
    """
    named_by = _named_by(rig)
    if avatar.file is None or avatar.file[0] != named_by or not is_file(avatar.file[1]):
        avatar.file = named_by, avatar_path(rig.armature, asked=False)
    return avatar.file[1]


def _named_by(rig: Rig) -> tuple[Any, ...]:
    """What names the avatar's file, and how often the head was edited on which it is played."""
    settings = rig.armature.effigy
    packed = settings.packed
    return settings.avatar, settings.origin, packed and packed.session_uid, bpy.data.filepath, edits_of(rig)


def _redraw_when_still() -> None:
    """Schedules a redraw of all 3D Views in `SETTLE_SECONDS`, unless one is scheduled already."""
    if not bpy.app.timers.is_registered(_redraw):
        bpy.app.timers.register(_redraw, first_interval=SETTLE_SECONDS)


def _redraw() -> None:
    try:
        redraw_views()
    except Exception:
        traceback.print_exc()


@persistent
def _on_scene_changed(*_: object) -> None:
    state.scene_changed_at = time.perf_counter()


@persistent
def _on_file_loaded(*_: object) -> None:
    state.files_loaded += 1
    state.reset()
    _on_scene_changed()


handlers: Final = (
    ("depsgraph_update_post", _on_scene_changed),
    ("frame_change_post", _on_scene_changed),
    ("undo_post", _on_scene_changed),
    ("redo_post", _on_scene_changed),
    ("load_post", _on_file_loaded),
)


def unregister() -> None:
    if bpy.app.timers.is_registered(_redraw):
        bpy.app.timers.unregister(_redraw)
    state.reset()
