"""The one worker of this Blender: who asks for `client()` gets it, a timer delivers its answers.

The timer and the client outlive the loading of another file, and so do the jobs. Unregistering and quitting end the
worker.
"""

from __future__ import annotations

import atexit
import time
import traceback
from collections import deque
from typing import Final

import bpy

from .. import preferences
from ..child_environment import environment_for_another_python
from ..redraw import redraw_panels
from .client import WorkerClient
from .jobs import Job

QUICK: Final = 1 / 60
"""Seconds between two rounds while answers are on their way."""
IDLE: Final = 0.1
STAYS_QUICK: Final = 2.0
"""Seconds after the last answer: who scrubs asks again."""
BETWEEN_REDRAWS: Final = 0.25
"""Seconds: a bar that moves four times a second is seen to move, and each time Blender draws the whole sidebar."""

log: Final[deque[str]] = deque(maxlen=500)
"""The worker's last words, for a panel or a bug report."""

_client: WorkerClient | None = None
_command: list[str] = []
_last_arrival = _last_redraw = 0.0


def client() -> WorkerClient:
    """The worker of this Blender, of the Python or by the command that the preferences name; an `EffigyError` where there is
    none yet.

    Nothing starts before the first request. When the preferences name another, a new worker takes over as soon as the
    old one has no jobs. One that an artist's own command starts may be on another machine, and shares no files with
    this one but those of the project: its arrays come in the messages.
    """
    global _client, _command
    own = preferences.worker_command()
    command = own or [str(preferences.backend_python()), "-m", "backend", "serve"]
    if _client is not None and command != _command and not _client.running_jobs:
        _client.close(wait=False)
        _client = None
    if _client is None:
        environment = environment_for_another_python()
        _client = WorkerClient(
            command, str(preferences.extension_folder()), environment, _logged, arrays="inline" if own else "files"
        )
        _command = command
    _keep_pumping()
    return _client


def current() -> WorkerClient | None:
    """The client if there is one; for drawing, where nothing may be started and nothing may fail."""
    return _client


def jobs() -> list[Job]:
    return _client.jobs if _client else []


def shutdown() -> None:
    """End the worker; its jobs keep what they have."""
    global _client
    ending, _client = _client, None
    if ending:
        ending.close()


def _logged(line: str) -> None:
    log.append(line)
    print(f"Effigy's worker: {line}")


def _pump() -> float:
    """The timer. It must never raise: Blender drops a timer that does."""
    global _last_arrival, _last_redraw
    if _client is None:
        return IDLE
    try:
        arrived = _client.pump()
    except Exception:
        traceback.print_exc()
        arrived = True
    if arrived:
        _last_arrival = now = time.monotonic()
        # How a job ends is drawn by whoever waits for it (`tasks`).
        if _client is not None and _client.running_jobs and now - _last_redraw >= BETWEEN_REDRAWS:
            _last_redraw = now
            redraw_panels()
    quick = _client is not None and (_client.busy or time.monotonic() - _last_arrival < STAYS_QUICK)
    return QUICK if quick else IDLE


def _keep_pumping() -> None:
    if not bpy.app.timers.is_registered(_pump):
        bpy.app.timers.register(_pump, first_interval=QUICK, persistent=True)


def register() -> None:
    _keep_pumping()
    atexit.register(shutdown)


def unregister() -> None:
    if bpy.app.timers.is_registered(_pump):
        bpy.app.timers.unregister(_pump)
    shutdown()
    atexit.unregister(shutdown)
