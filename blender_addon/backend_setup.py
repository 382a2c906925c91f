"""The backend as Blender's interface shows it: whether it is ready, its installation, and what it can do here.

There is one installation at a time. Nothing here blocks Blender's window: the graphics driver is asked in a thread, and
the report comes from the worker.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import bpy

from . import preferences
from .errors import EffigyError
from .installation import place
from .installation.install import DONE, FAILED, Installation
from .installation.machine import Machine, this_machine
from .installation.plan import Plan, make_plan
from .redraw import redraw_panels
from .reporting import report_soon
from .threads import run_in_thread
from .worker import session
from .worker.client import WorkerClient

OFFLINE: Final = (
    "Blender may not use the network: allow it under Preferences ▸ System ▸ Network ▸ Allow Online "
    "Access, then install. Without a network, use Use This Python with an environment that has the packages."
)
REDRAW_INTERVAL: Final = 0.3
"""Seconds between two redraws of the progress bar."""
DETECTION_INTERVAL: Final = 0.1
"""Seconds between two looks whether the graphics driver has answered."""
FRESH_SECONDS: Final = 60.0
"""How long the driver's answer counts as that of now. The artist may have updated the driver after that."""
REPLACING: Final = "effigy-replacing"
"""The name of the thread that ends a replaced worker and removes its environment."""
_CANCEL_TIMEOUT: Final = 10.0
"""Seconds to wait for a cancelled installation when the extension is disabled."""


class Finding(NamedTuple):
    """One row of the report on what the backend can do on this machine."""

    subject: str
    state: str
    """`ok`, `missing` (the backend works without it) or `broken`."""
    message: str


class Readiness(NamedTuple):
    """Whether a backend is configured, and a sentence about it for the artist."""

    ready: bool
    message: str


@dataclass
class _Setup:
    """The module's state; it lives as long as the extension is enabled."""

    installation: Installation | None = None
    """The running installation, or the last one."""
    machine: Machine | None = None
    """None until the graphics driver has answered."""
    detected_at: float = -FRESH_SECONDS
    """`time.monotonic` when the driver answered."""
    detection: Future[Machine] | None = None
    """A thread is asking the graphics driver."""
    examining: WorkerClient | None = None
    """The worker that is preparing a report."""
    findings: list[Finding] = field(default_factory=list)
    """The last report."""
    findings_of: list[str] | None = None
    """The command of the backend that the last report is about."""


_setup = _Setup()


def current() -> Installation | None:
    """The running installation, or the last one; None if there was none."""
    return _setup.installation


def detect_machine() -> None:
    """Starts asking the graphics driver in a thread, so that the plan is available when it is drawn. The preferences
    page is redrawn when the driver has answered.
    """
    if _setup.machine is None and _setup.detection is None:
        _setup.detection = run_in_thread(this_machine, "effigy-machine")
        bpy.app.timers.register(_take_machine, first_interval=DETECTION_INTERVAL, persistent=True)


def machine_is_fresh() -> bool:
    """Whether the graphics driver was asked just now."""
    return time.monotonic() - _setup.detected_at < FRESH_SECONDS


def keep_machine(machine: Machine) -> None:
    """Makes `machine` the one for which `plan` plans."""
    _setup.machine, _setup.detected_at = machine, time.monotonic()


def plan() -> Plan | None:
    """What Install Backend would do on this machine. None while the machine is not known yet, which does not wait."""
    if _setup.machine is None:
        detect_machine()
        return None
    return make_plan(_setup.machine, preferences.environments(), preferences.extension_folder(), base_python())


def base_python() -> str:
    """Blender's own interpreter, from which the environment is made."""
    return sys.executable


def refusal() -> str | None:
    """Why nothing can be installed on this machine. None if it can, or if the machine is not known yet."""
    chosen = plan() if _setup.machine else None
    return chosen.refusal if chosen else None


def check_installable() -> None:
    """Raises an `EffigyError` if nothing can be installed now."""
    if _setup.installation and not _setup.installation.finished:
        raise EffigyError("The backend is already being installed.")
    # Allowing the network would be in vain on such a machine.
    if reason := refusal():
        raise EffigyError(reason)
    if not bpy.app.online_access:
        raise EffigyError(OFFLINE)


def install() -> Installation:
    """Starts the installation. An existing environment is used until the new one is complete, also by running jobs."""
    check_installable()
    chosen = plan()
    if chosen is None:
        raise EffigyError("This machine is still being examined: try again in a few seconds.")
    _setup.installation = Installation(chosen, log_path())
    _setup.installation.start()
    if not bpy.app.timers.is_registered(_redraw_progress):
        bpy.app.timers.register(_redraw_progress, first_interval=REDRAW_INTERVAL, persistent=True)
    return _setup.installation


def finish() -> None:
    """Has an idle worker start again in the new environment, and removes the old one. A worker that runs a job keeps
    its environment, which is removed later.
    """
    client = session.current()
    if _setup.installation is None or _setup.installation.state != DONE or client is None or client.running_jobs:
        return
    # A stuck worker ends late, and neither that nor removing gigabytes may block the window.
    environments, ending = preferences.environments(), session.release()
    threading.Thread(target=_replace, args=(ending, environments), name=REPLACING, daemon=True).start()


def findings() -> list[Finding]:
    """The last report; empty if there was none, or if another backend has been chosen since."""
    return _setup.findings if _setup.findings_of == _backend_command() else []


def is_examining() -> bool:
    """Whether a report is being prepared. A worker that has been replaced since prepares none any more."""
    return _setup.examining is not None and _setup.examining is session.current()


def examine() -> None:
    """Asks the worker for a report on what it can do. The rows arrive later, in `findings`."""
    client = session.client()
    client.request("doctor", {}, _store_report, _store_failure)
    _setup.examining = client


def state() -> Readiness:
    """Whether a backend is configured. Cheap enough to be called while drawing."""
    try:
        if preferences.worker_command():
            typed = preferences.get().worker_command.strip()
            return Readiness(
                True,
                f"The backend is started by “{typed}”. Videos, captures and avatars are sent there, and "
                "results are fetched, unless they are in a shared folder.",
            )
        python = preferences.backend_python()
    except EffigyError as error:
        return Readiness(False, str(error))
    installed = preferences.environments()
    folder = installed.current()
    if (
        folder
        and python == installed.python()
        and place.is_outdated(folder, preferences.extension_folder() / "requirements")
    ):
        return Readiness(
            True,
            "The backend was installed by another version of Effigy: install it again to get this version's packages.",
        )
    return Readiness(True, f"The backend runs on {python}.")


def _backend_command() -> list[str] | None:
    """The artist's worker command or the backend's interpreter; None if no backend is configured."""
    try:
        return preferences.worker_command() or [str(preferences.backend_python())]
    except EffigyError:
        return None


def _store_report(answer: Mapping[str, Any]) -> None:
    _store_findings([Finding(*row) for row in answer["rows"]])


def _store_failure(error: Exception) -> None:
    _store_findings([Finding("Backend", "broken", str(error))])


def _store_findings(rows: list[Finding]) -> None:
    _setup.findings, _setup.findings_of, _setup.examining = rows, _backend_command(), None
    redraw_panels()


def _take_machine() -> float | None:
    """The timer that takes the driver's answer and redraws the page that waits for it."""
    detection = _setup.detection
    if detection is None:
        return None
    if not detection.done():
        return DETECTION_INTERVAL
    _setup.detection = None
    keep_machine(detection.result())
    redraw_panels()
    return None


def _replace(ending: WorkerClient | None, environments: place.Environments) -> None:
    """Ends a worker, then removes replaced environments, unless a Blender is installing, which does it itself."""
    if ending:
        ending.close()
    with suppress(EffigyError), environments.locked():
        environments.remove_unused()


def _redraw_progress() -> float | None:
    """The timer that redraws the progress bar until the installation has ended."""
    redraw_panels()
    if _setup.installation is None:
        return None
    if _setup.installation.finished:
        finish()
        _tell_end(_setup.installation)
        return None
    return REDRAW_INTERVAL


def _tell_end(installation: Installation) -> None:
    """Says how an installation has ended, because the page may be closed by then. Stopping it needs no message."""
    if installation.state == DONE:
        report_soon("The backend is installed.", "INFO")
    elif installation.state == FAILED:
        report_soon(installation.error or "The backend could not be installed.")


def log_path() -> Path:
    return preferences.user_folder() / "install.log"


def unregister() -> None:
    if _setup.installation and not _setup.installation.finished:
        _setup.installation.cancel()
        # Removing the incomplete environment takes a moment, and the next start must not find it.
        _setup.installation.wait(_CANCEL_TIMEOUT)
    _setup.installation = None
    _setup.detection = None
    for timer in (_redraw_progress, _take_machine):
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
