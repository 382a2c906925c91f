"""The installation of the backend as Blender shows it: one at a time, planned without holding up the window."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, Final

import bpy

from . import preferences
from .errors import EffigyError
from .installation import place
from .installation.install import Installation
from .installation.plan import Machine, Plan, make_plan, this_machine
from .redraw import redraw_panels
from .worker import session

OFFLINE: Final = (
    "Blender may not use the network: allow it under Preferences ▸ System ▸ Network ▸ Allow Online "
    "Access, then install. Without a network, point Use This Python at an environment that has the packages."
)
REDRAW_EVERY: Final = 0.3

_installation: Installation | None = None
_machine: Machine | None = None
_looking = False
_findings: list[list[str]] = []
_examining = False


def current() -> Installation | None:
    """The installation that runs or that ran last."""
    return _installation


def look_at_machine() -> None:
    """Ask the graphics driver in a thread, so that the plan is there when it is drawn."""
    global _looking
    if _machine is None and not _looking:
        _looking = True
        threading.Thread(target=_look, name="effigy-machine", daemon=True).start()


def plan(*, wait: bool = False) -> Plan | None:
    """What Install Backend would do here; None while the machine is being looked at."""
    if _machine is None:
        if not wait:
            look_at_machine()
            return None
        _look()
    return make_plan(_machine, preferences.private_folder(), preferences.extension_folder(), base_python())


def base_python() -> str:
    """Blender's own interpreter."""
    return sys.executable


def install() -> Installation:
    """Start it. What an earlier one left, whole or not, is replaced."""
    global _installation
    if _installation and not _installation.finished:
        raise EffigyError("The backend is being installed already.")
    if not bpy.app.online_access:
        raise EffigyError(OFFLINE)
    if client := session.current():
        if client.running_jobs:
            raise EffigyError("A job is running in the backend: wait for it or stop it, then install.")
        # On Windows the files of a running interpreter cannot be replaced.
        session.shutdown()
    chosen = plan(wait=True)
    if shortage := chosen.shortage:
        raise EffigyError(shortage)
    _installation = Installation(chosen, log_path())
    _installation.start()
    if not bpy.app.timers.is_registered(_watch):
        bpy.app.timers.register(_watch, first_interval=REDRAW_EVERY, persistent=True)
    return _installation


def findings() -> list[list[str]]:
    """The rows of the last examination: [what, state, sentence]."""
    return _findings


def is_examining() -> bool:
    return _examining


def examine() -> None:
    """Ask the worker what it can do; the rows arrive later."""
    global _examining
    session.client().request("doctor", {}, _examined, _could_not_examine)
    _examining = True


def state() -> tuple[bool, str]:
    """(whether there is a backend, a sentence)."""
    try:
        if command := preferences.worker_command():
            return True, (
                f"The backend is started by “{' '.join(command)}”. Another machine must find videos, "
                "captures and avatars under the same paths as this one."
            )
        python = preferences.backend_python()
    except EffigyError as error:
        return False, str(error)
    folder = preferences.private_folder()
    if python == place.private_python(folder) and place.is_outdated(
        folder, preferences.extension_folder() / "requirements"
    ):
        return (
            True,
            "The backend was installed by another version of Effigy: install it again to have the same packages.",
        )
    return True, f"The backend runs on {python}."


def forget_findings() -> None:
    """Another interpreter was chosen."""
    _findings.clear()


def _examined(answer: dict[str, Any]) -> None:
    global _examining
    _findings[:] = answer["rows"]
    _examining = False
    redraw_panels()


def _could_not_examine(error: Exception) -> None:
    global _examining
    _findings[:] = [["Backend", "broken", str(error)]]
    _examining = False
    redraw_panels()


def _look() -> None:
    global _machine, _looking
    _machine, _looking = this_machine(), False


def _watch() -> float | None:
    redraw_panels()
    return None if _installation is None or _installation.finished else REDRAW_EVERY


def log_path() -> Path:
    return preferences.user_folder() / "install.log"


def unregister() -> None:
    global _installation
    if _installation and not _installation.finished:
        _installation.cancel()
        # Removing what is half-made takes a moment, and the next start must not find it.
        _installation.wait(10)
    _installation = None
    if bpy.app.timers.is_registered(_watch):
        bpy.app.timers.unregister(_watch)
