"""The running Live: one source moves one rig, a timer takes the faces that have come.

It ends by the artist, by an error, with the rig, and when another file is opened; the rig is then as it was before. A
take that is being recorded is keyed when it ends.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from typing import Any, Final

import bpy
from bpy.app.handlers import persistent

from .. import tasks
from ..errors import EffigyError
from ..redraw import redraw_panels
from ..reporting import report_soon
from ..rig.camera import rate_of
from ..rig.rig_properties import Rig, find_rig
from . import settings, sources
from .calibration import Calibration
from .face import Face
from .puppet import Puppet, evaluate_animation
from .settings import EffigyLive
from .sources import Source
from .take import Take, next_name
from .webcam import WebcamSource

INTERVAL: Final = 1 / 120
"""Seconds between two looks for faces: half of one at 60 a second."""
REDRAW_SECONDS: Final = 0.5
"""Between two redraws of the panel."""


@dataclass
class Live:
    """A source that moves a rig."""

    source: Source
    rig_name: str
    puppet: Puppet
    calibration: Calibration = field(default_factory=Calibration)
    take: Take | None = None
    last: Face | None = None
    """The face that the rig shows."""
    moved: bool = False
    """Whether the rig is not as it was before."""
    redrawn: float = 0.0

    def rig(self) -> Rig:
        """Raises an `EffigyError` if the rig is gone."""
        rig = self.find_rig()
        if rig is None:
            raise EffigyError(f"“{self.rig_name}” is gone from this file or has another name: start Live again.")
        return rig

    def find_rig(self) -> Rig | None:
        found = bpy.data.objects.get(self.rig_name)
        return find_rig(found) if found is not None else None

    def advance(self) -> None:
        """Shows the faces that have come, and records them."""
        arrived = self.source.take()
        if not arrived or bpy.app.is_job_running("RENDER"):
            return
        rig = self.rig()
        # Without a take only the newest one is seen.
        every = self.take is not None or self.calibration.neutral is None
        for face, when in arrived if every else arrived[-1:]:
            seen = face.mirrored() if _settings().mirror else face
            if self.calibration.neutral is None:
                self.calibration.add(seen)
            else:
                self.show(rig, seen)
                if self.take is not None:
                    self.take.add(rig, seen.time, when)
        if self.take is not None and self.take.is_full:
            report_soon(f"Live: {end_take()}", "INFO")

    def show(self, rig: Rig, face: Face) -> None:
        if self.calibration.neutral is not None:
            chosen = _settings()
            self.puppet.show(rig, face, self.calibration.neutral, chosen.intensity, chosen.motion)
            self.last, self.moved = face, True


@dataclass
class _State:
    live: Live | None = None
    starts: int = 0
    """Counts the starts, by which a modal operator knows that its own Live has ended."""


_state: Final = _State()


def current() -> Live | None:
    return _state.live


def count() -> int:
    """Which start the running Live is."""
    return _state.starts


def start(rig: Rig) -> Live:
    """Begins to move a rig by the source of the settings. Raises an `EffigyError` if that cannot be opened."""
    stop()
    puppet = Puppet(rig)
    live = Live(_open(_settings()), rig.armature.name, puppet)
    _state.live, _state.starts = live, _state.starts + 1
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=INTERVAL)
    return live


def stop() -> str:
    """Ends Live and puts the rig back. Returns a sentence about the take that was being recorded, if there was one."""
    live, _state.live = _state.live, None
    if live is None:
        return ""
    live.source.close()
    redraw_panels()
    found = live.find_rig()
    return "" if found is None else _put_back(live, found)


def begin_take(scene: bpy.types.Scene) -> None:
    """Records from now on, from the scene's current frame. Raises an `EffigyError` where no keys can be set."""
    live = _need()
    live.take = Take(live.rig(), scene.frame_current, rate_of(scene))


def end_take() -> str:
    """Keys what was recorded. Returns a sentence."""
    live = _need()
    return _put_back(live, live.rig())


def calibrate() -> None:
    """Takes the performer's neutral face anew, from the next faces."""
    _need().calibration = Calibration()


def _need() -> Live:
    if _state.live is None:
        raise EffigyError("Live does not run: start it first.")
    return _state.live


def _put_back(live: Live, rig: Rig) -> str:
    """Puts the rig back and keys the take, if there is one; returns a sentence about it. If Live goes on, the next face
    moves the rig again.
    """
    take, live.take = live.take, None
    if live.moved:
        live.puppet.restore(rig)
        live.moved = False
    if take is None:
        return ""
    said = take.key(rig, next_name(rig))
    evaluate_animation(rig)
    tasks.push_undo("Live Take")
    return said


def _settings() -> EffigyLive:
    return bpy.context.window_manager.effigy_live


def _open(chosen: EffigyLive) -> Source:
    if chosen.source == settings.WEBCAM:
        return WebcamSource(str(chosen.camera))
    if chosen.network and not bpy.app.online_access:
        raise EffigyError(
            "Blender may not use the network: allow Online Access under Preferences ▸ System, or switch off From the "
            "Network and send from this computer."
        )
    if chosen.source == settings.VMC:
        return sources.vmc(chosen.vmc_port, network=chosen.network)
    return sources.live_link_face(chosen.live_link_port, network=chosen.network)


def _tick() -> float | None:
    """The timer. It must never raise, because Blender removes a timer that does."""
    live = _state.live
    if live is None:
        return None
    try:
        live.advance()
    except EffigyError as error:
        _stop_because(str(error))
        return None
    except Exception as error:
        traceback.print_exc()
        _stop_because(f"a defect in Effigy ({type(error).__name__}: {error}); the console has the details.")
        return None
    now = time.monotonic()
    if now - live.redrawn > REDRAW_SECONDS:
        live.redrawn = now
        redraw_panels()
    return INTERVAL


def _stop_because(reason: str) -> None:
    said = ""
    try:
        said = stop()
    except EffigyError as error:
        reason = f"{reason} {error}"
    report_soon(f"Live has ended: {reason} {said}".rstrip())


@persistent
def _show_again(*_: Any) -> None:
    """On another frame Blender has set the sliders to the animation's values; to save a file `_put_away` has set them
    to what they were.
    """
    live = _state.live
    if live is None or live.last is None or bpy.app.is_job_running("RENDER"):
        return
    try:
        live.show(live.rig(), live.last)
    except EffigyError:
        # The timer notices it as well, and says it.
        return


@persistent
def _put_away(*_: Any) -> None:
    """A file is saved without the performer's face, which it would otherwise open with."""
    live = _state.live
    rig = None if live is None or not live.moved else live.find_rig()
    if live is not None and rig is not None:
        live.puppet.restore(rig)


@persistent
def _end(*_: Any) -> None:
    """Another file is about to be opened."""
    live, _state.live = _state.live, None
    if live is not None:
        live.source.close()


handlers: Final = (
    ("frame_change_post", _show_again),
    ("save_pre", _put_away),
    ("save_post", _show_again),
    ("load_pre", _end),
)


def unregister() -> None:
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    _end()
