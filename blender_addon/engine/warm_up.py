"""Starts the worker, reads the avatars and compiles what draws them as soon as the engine is chosen or a .blend with it
is opened, so that the first F12 does not wait for it.

Nothing is read that the artist has not used on this computer before.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import bpy
from bpy.app.handlers import persistent

from ..avatars import has_avatar, is_known
from ..backend_setup import state
from ..errors import EffigyError
from ..rig.rig_properties import find_rigs
from ..worker import session
from .camera import RenderRegion, worker_camera
from .engine_name import ENGINE
from .played_frame import is_playable
from .subjects import collect_subjects

SIDE: Final = 16
"""Pixels of the image that is rendered for it."""
DELAY: Final = 0.5
"""Seconds until then: the window is drawn first, and an opened file is evaluated."""

_subscriber: Final = object()


def warm_up() -> None:
    """Asks the worker for a tiny image of the scene, which nobody sees."""
    scene = bpy.context.scene
    if scene is None or scene.render.engine != ENGINE or scene.camera is None or not state().ready:
        return
    rigs = [rig for rig in find_rigs(scene.objects) if has_avatar(rig.armature)]
    if not rigs or not all(is_known(rig.armature) for rig in rigs):
        return
    depsgraph = bpy.context.evaluated_depsgraph_get()
    # The render itself says what is wrong.
    with suppress(EffigyError):
        camera = worker_camera(
            scene.camera.evaluated_get(depsgraph), depsgraph, (SIDE, SIDE), RenderRegion(0, 0, SIDE, SIDE)
        )
        visible = collect_subjects(depsgraph)
        if is_playable(visible, scene.effigy.enhanced):
            return
        params = {
            "subjects": [subject.message() for subject in visible.subjects],
            "camera": camera.message(),
            "enhanced": scene.effigy.enhanced,
        }
        session.client().request("avatar.render", params, _ignore, _ignore)


def _ignore(answer: object) -> None:
    """Nobody waits for the image, and a render reports its own errors."""


def _soon() -> None:
    if not bpy.app.background and not bpy.app.timers.is_registered(warm_up):
        bpy.app.timers.register(warm_up, first_interval=DELAY)


@persistent
def _after_load(*_: object) -> None:
    _soon()


handlers: Final = (("load_post", _after_load),)


def register() -> None:
    key = bpy.types.RenderSettings, "engine"
    bpy.msgbus.subscribe_rna(key=key, owner=_subscriber, args=(), notify=_soon, options={"PERSISTENT"})


def unregister() -> None:
    bpy.msgbus.clear_by_owner(_subscriber)
    if bpy.app.timers.is_registered(warm_up):
        bpy.app.timers.unregister(warm_up)
