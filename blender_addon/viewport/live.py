"""From the evaluated scene to the splats that each avatar shows: poses read, asked of the worker, kept.

`look` is called as a 3D View begins to draw. It reads the pose of every avatar in that view, and where a pose is new it
asks the worker for its splats; while Blender draws the rest of the scene, the worker is at them already. Of one avatar
one request is on its way and at most one waits, the newest (`worker.client`, `latest`). Until the answer is there, the
last splats stay, carried rigidly along with the head.

Blender's handlers only say that something may have changed: they may run in a render's thread.

Colours depend on where the head is seen from. While a view turns, the last ones stay; once it has stood still for
`SETTLED`, they are asked for again.

**Where a cache plugs in.** `baked` answers instead of the worker: a function of the rig, the scene's frame and the
pose's key (`key_of`) that gives the `Splats` of exactly this pose, always the same object for the same pose, or None
where it has none. It is called on the main thread in the middle of every drawing, so it must take next to no time and
change nothing in Blender. To bake, ask the worker with `request_of` for the pose of each frame, and keep
`Splats.from_answer(answer, pose.head_motion)` under the pose's key.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from bpy.app.handlers import persistent

from ..avatars import avatar_path, has_avatar
from ..errors import EffigyError
from ..redraw import redraw_panels, redraw_views
from ..rig.conventions import points_to_head
from ..rig.pose import RigPose, read_pose
from ..rig.rig_properties import Rig, find_rigs
from ..worker import session
from .splats import Look, Splats

SETTLED: Final = 0.15
"""Seconds without a change after which a view, or a pose, stands still."""
SAME_VIEW: Final = 0.002
"""Radians by which a head may be seen from elsewhere without its colours being asked for again."""
TURNED_FAR: Final = 0.35
"""Radians from which on a view that is still turning does not wait for its colours."""
HEAD_RADIUS: Final = 0.12
"""Metres."""
RETRY: Final = 3.0
"""Seconds after an error until the same is tried again."""

baked: Callable[[Rig, int, bytes], Splats | None] | None = None


@dataclass(frozen=True)
class _Asked:
    key: bytes
    """Of the pose: `key_of`."""
    seen_at: float
    """`perf_counter` when that pose was first seen."""
    seen_from: np.ndarray
    """(4,) `Eye.seen_from`."""
    anchors: bool


@dataclass
class Actor:
    """What is known of one avatar from one look to the next."""

    splats: Splats | None = None
    """The newest that came."""
    version: int = 0
    """Counts the changes of `splats`."""
    motion: np.ndarray = field(default_factory=lambda: np.eye(4))
    """(4, 4) where the head is now."""
    pose: RigPose | None = None
    """As it was last read, at `read_at`."""
    read_at: float = -np.inf
    key: bytes = b""
    seen_at: float = 0.0
    """`perf_counter` when a pose of this key was first seen."""
    moved_at: float = 0.0
    """The same, of anything that moved."""
    asked: _Asked | None = None
    """What the worker was last asked for."""
    shown: _Asked | None = None
    """What `splats` are the answer to."""
    error: str | None = None
    """Why there is nothing new, in a sentence."""
    failed_at: float = -np.inf
    path: tuple[tuple, Path] | None = None
    """The avatar's file, and by which settings it was found: a packed one takes time to find."""

    @property
    def fresh(self) -> bool:
        """Whether the splats are of the pose that the rig has now."""
        return self.shown is not None and self.shown.key == self.key


@dataclass(frozen=True)
class Eye:
    """Where a view looks from, in Blender's world."""

    place: np.ndarray
    """(3,)"""
    forward: np.ndarray
    """(3,) unit."""
    orthographic: bool

    @classmethod
    def of(cls, view_matrix: np.ndarray, orthographic: bool) -> Eye:
        """From (4, 4) world to view, in which the view looks along -z."""
        placed = np.linalg.inv(view_matrix)
        return cls(placed[:3, 3], -placed[:3, 2] / np.linalg.norm(placed[:3, 2]), orthographic)

    def seen_from(self, motion: np.ndarray) -> np.ndarray:
        """(4,) in the moving head's own frame: along which the view looks at it (unit), and by how many radians its rays
        part over the head, which are none in an orthographic view."""
        away = motion[:3, 3] - self.place
        along = motion[:3, :3].T @ (self.forward if self.orthographic else away)
        scale, distance = float(np.cbrt(np.linalg.det(motion[:3, :3]))), max(float(np.linalg.norm(away)), 1e-12)
        parting = 0.0 if self.orthographic else min(HEAD_RADIUS * scale / distance, 1.0)
        return np.append(along / max(float(np.linalg.norm(along)), 1e-12), parting)


def _turned(before: np.ndarray, now: np.ndarray) -> float:
    """Radians by which some part of the head is seen from elsewhere, from one `Eye.seen_from` to another."""
    return max(float(np.arccos(np.clip(before[:3] @ now[:3], -1, 1))), abs(float(before[3] - now[3])))


@dataclass
class _View:
    """What is known of a 3D View."""

    eye: Eye
    moved_at: float


_actors: dict[int, Actor] = {}
"""By the armature's `session_uid`, which survives renaming and undo."""
_views: dict[int, _View] = {}
"""By the number of their region."""
_leading: int | None = None
"""The view that moved last: with several open, colours are for this one."""
_changed_at = 0.0
loaded = 0
"""Counts the files that were loaded."""


def look(context: bpy.types.Context, view: int, eye: Eye) -> list[tuple[Rig, Actor]]:
    """The avatars that a 3D View shows, as they are now. `view` tells one view from another."""
    depsgraph = context.view_layer.depsgraph
    if depsgraph is None:
        return []
    _follow(view, eye)
    seen, now = list(_seen(context)), time.perf_counter()
    for rig, actor in seen:
        try:
            if actor.read_at <= _changed_at:
                _read(rig, actor, depsgraph, now)
            if view == _leading:
                _provide(context.scene, rig, actor, eye, now)
        except EffigyError as error:
            _failed(rig.armature.session_uid, str(error))
    return seen


def is_moving(view: int, seen: list[tuple[Rig, Actor]]) -> bool:
    """Whether the view or an avatar in it has just changed; it is drawn again when they stand still."""
    last = max([_views[view].moved_at] + [actor.moved_at for _, actor in seen])
    moving = time.perf_counter() - last < SETTLED
    if moving:
        _look_again()
    return moving


def actor_of(armature: bpy.types.Object) -> Actor | None:
    return _actors.get(armature.session_uid)


def look_of(armature: bpy.types.Object) -> Look:
    chosen = armature.effigy_view
    kind = chosen.mode if chosen.mode in ("ELLIPSOIDS", "POINTS", "DEPTH") else "SPLATS"
    return Look(kind, chosen.scale, chosen.least_opacity)


def request_of(path: Path, pose: RigPose, eye: Eye, anchors: bool = False) -> dict[str, Any]:
    """The parameters of `avatar.splats`."""
    asked: dict[str, Any] = {"avatar": path, "pose": pose.message()}
    if eye.orthographic:
        asked["direction"] = points_to_head(eye.forward)
    else:
        asked["view"] = points_to_head(eye.place)
    if anchors:
        asked["anchors"] = True
    return asked


def forget() -> None:
    """All that is known: another file was loaded, or the extension goes."""
    global _leading
    _actors.clear()
    _views.clear()
    _leading = None


def known() -> set[int]:
    """The `session_uid` of every armature of which anything is known."""
    return set(_actors)


def forget_deleted() -> None:
    for uid in known() - {obj.session_uid for obj in bpy.data.objects if obj.type == "ARMATURE"}:
        del _actors[uid]


def _seen(context: bpy.types.Context) -> Iterator[tuple[Rig, Actor]]:
    """The mesh decides whether an avatar is seen: by the eye icon, its collections, local view."""
    for rig in find_rigs(context.view_layer.objects):
        if has_avatar(rig.armature) and rig.mesh.visible_in_viewport_get(context.space_data):
            yield rig, _actors.setdefault(rig.armature.session_uid, Actor())


def _follow(view: int, eye: Eye) -> None:
    global _leading
    known = _views.get(view)
    if view != _leading and not _is_open(_leading):
        _leading = view
    if known is None or not (
        np.allclose(known.eye.place, eye.place, atol=1e-6)
        and np.allclose(known.eye.forward, eye.forward, atol=1e-6)
        and known.eye.orthographic == eye.orthographic
    ):
        _views[view] = _View(eye, time.perf_counter())
        _leading = view


def _is_open(view: int | None) -> bool:
    """Whether the region of that number is still on a screen: others are, while one fills the window."""
    return any(
        region.as_pointer() == view
        for window in bpy.context.window_manager.windows
        for area in window.screen.areas
        for region in area.regions
    )


def _read(rig: Rig, actor: Actor, depsgraph: bpy.types.Depsgraph, now: float) -> None:
    pose = read_pose(rig, depsgraph)
    motion = pose.head_motion
    key, actor.read_at = key_of(pose), now
    if key != actor.key:
        actor.seen_at = now
    if key != actor.key or not np.array_equal(motion, actor.motion):
        actor.moved_at = now
    actor.pose, actor.motion, actor.key = pose, motion, key


def _provide(scene: bpy.types.Scene, rig: Rig, actor: Actor, eye: Eye, now: float) -> None:
    """Have the actor's pose answered: by the bake at once, else by the worker in some time."""
    seen_from = eye.seen_from(actor.motion)
    if baked is not None and (found := baked(rig, scene.frame_current, actor.key)) is not None:
        if found is not actor.splats:
            actor.splats, actor.version = found, actor.version + 1
        actor.asked = actor.shown = _Asked(actor.key, actor.seen_at, seen_from, False)
        return
    if actor.error and now - actor.failed_at < RETRY:
        return
    still = now - max(actor.moved_at, _views[_leading].moved_at) >= SETTLED
    anchors = scene.effigy_view.quality == "ANCHORS" and not still and actor.splats is not None
    if actor.asked is not None and actor.asked.key == actor.key:
        turned = _turned(actor.asked.seen_from, seen_from)
        if turned < SAME_VIEW and not (actor.asked.anchors and still):
            return
        if not still and turned < TURNED_FAR:
            _look_again()
            return
    asked = _Asked(actor.key, actor.seen_at, seen_from, anchors)
    uid, motion = rig.armature.session_uid, actor.motion
    session.client().request(
        "avatar.splats",
        request_of(_path_of(rig, actor), actor.pose, eye, anchors),
        lambda answer: _came(uid, asked, answer, motion),
        lambda error: _failed(uid, str(error)),
        latest=f"viewport {uid}",
    )
    actor.asked = asked
    if anchors:
        _look_again()


def key_of(pose: RigPose) -> bytes:
    """Two poses of one avatar with the same key have the same splats, but for where the head is and who looks."""
    return b"".join(
        np.ascontiguousarray(value, np.float32).tobytes()
        for name, value in sorted(pose.message().items())
        if name != "root"
    )


def _came(uid: int, asked: _Asked, answer: dict[str, np.ndarray], motion: np.ndarray) -> None:
    actor = _actors.get(uid)
    if actor is None:
        return
    actor.splats, actor.version = Splats.from_answer(answer, motion), actor.version + 1
    actor.shown, actor.error = asked, None
    redraw_views()


def _failed(uid: int, sentence: str) -> None:
    actor = _actors.get(uid)
    if actor is None:
        return
    if sentence != actor.error:
        redraw_panels()
    actor.error, actor.failed_at, actor.asked = sentence, time.perf_counter(), None


def _path_of(rig: Rig, actor: Actor) -> Path:
    settings = rig.armature.effigy
    packed = settings.packed
    by = (settings.avatar, packed and packed.session_uid, bpy.data.filepath)
    if actor.path is None or actor.path[0] != by or not actor.path[1].is_file():
        actor.path = by, avatar_path(rig.armature)
    return actor.path[1]


def _look_again() -> None:
    if not bpy.app.timers.is_registered(_wake):
        bpy.app.timers.register(_wake, first_interval=SETTLED)


def _wake() -> None:
    try:
        redraw_views()
    except Exception:
        traceback.print_exc()


@persistent
def _mark_changed(*_: object) -> None:
    global _changed_at
    _changed_at = time.perf_counter()


@persistent
def _mark_loaded(*_: object) -> None:
    global loaded
    loaded += 1
    forget()
    _mark_changed()


_HANDLERS: Final = (
    ("depsgraph_update_post", _mark_changed),
    ("frame_change_post", _mark_changed),
    ("undo_post", _mark_changed),
    ("redo_post", _mark_changed),
    ("load_post", _mark_loaded),
)


def register() -> None:
    for name, handler in _HANDLERS:
        getattr(bpy.app.handlers, name).append(handler)


def unregister() -> None:
    for name, handler in _HANDLERS:
        handlers = getattr(bpy.app.handlers, name)
        if handler in handlers:
            handlers.remove(handler)
    if bpy.app.timers.is_registered(_wake):
        bpy.app.timers.unregister(_wake)
    forget()
