"""The worker of this Blender. `client()` returns its client, and a timer delivers its answers.

The timer, the client and the jobs outlive the loading of another file. The worker ends when the extension is
unregistered and when Blender quits.
"""

from __future__ import annotations

import atexit
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import bpy

from .. import preferences
from ..child_environment import environment_for_another_python
from ..redraw import redraw_panels
from .client import WorkerClient
from .jobs import Job
from .path_map import PathMap
from .remote import RemoteWorkerClient

PUMP_INTERVAL: Final = 1 / 60
"""Seconds between two calls of `WorkerClient.pump` while answers are pending."""
IDLE_INTERVAL: Final = 0.1
"""The same while nothing is pending."""
ACTIVE_SECONDS: Final = 2.0
"""The short interval stays for this long after the last answer, because an artist who scrubs soon requests again."""
REDRAW_INTERVAL: Final = 0.25
"""Least seconds between two redraws for a job's progress. Four a second look continuous, and each one redraws the whole
sidebar."""
QUIET_REDRAW_INTERVAL: Final = 1.0
"""The same while a job reports nothing: its bar goes on by time."""

log: Final[deque[str]] = deque(maxlen=500)
"""The last lines of the worker's log, for a panel or a bug report."""


@dataclass
class _Session:
    """The module's state."""

    client: WorkerClient | None = None
    command: list[str] = field(default_factory=list)
    """The command of `client`."""
    path_map: PathMap = field(default_factory=PathMap)
    """The shared folders of `client`."""
    head: Path | None = None
    """The user's FLAME file that a worker on another machine gets."""
    last_arrival: float = 0.0
    """`time.monotonic` of the last answer."""
    last_redraw: float = 0.0


_session: Final = _Session()


def client() -> WorkerClient:
    """The client of this Blender. Raises an `EffigyError` if no backend is configured.

    The worker starts with the first request. After the preferences were changed, a new worker replaces the old one as
    soon as that has no jobs. A worker that is started by the artist's own command may be on another machine: files
    outside the shared folders are sent to it and fetched from it.
    """
    own_command = preferences.worker_command()
    command = own_command or [str(preferences.backend_python()), "-m", "backend", "serve"]
    path_map = PathMap.from_rows(preferences.shared_folders()) if own_command else PathMap()
    head = preferences.chosen_head_file() if own_command else None
    changed = (command, path_map, head) != (_session.command, _session.path_map, _session.head)
    if _session.client is not None and changed and not _session.client.running_jobs:
        _session.client.close(wait=False)
        _session.client = None
    if _session.client is None:
        folder, environment = str(preferences.extension_folder()), environment_for_another_python()
        if own_command:
            _session.client = RemoteWorkerClient(
                command,
                folder,
                environment,
                _on_log,
                path_map=path_map,
                staging=preferences.user_folder("fetched"),
                head=head,
            )
        else:
            _session.client = WorkerClient(command, folder, environment, _on_log)
        _session.command, _session.path_map, _session.head = command, path_map, head
    _keep_pumping()
    return _session.client


def current() -> WorkerClient | None:
    """The client if there is one. Neither starts anything nor fails, so it can be called while drawing."""
    return _session.client


def jobs() -> list[Job]:
    return _session.client.jobs if _session.client else []


def shutdown() -> None:
    """Ends the worker and waits for its end, half a minute at most. Its jobs keep their checkpoints."""
    ending = release()
    if ending:
        if ending.running_jobs:
            print("Effigy: waiting until the running jobs have saved their checkpoints.")
        ending.close()


def release() -> WorkerClient | None:
    """Hands over the client, which the caller closes. The next request starts another worker."""
    ending, _session.client = _session.client, None
    return ending


def end_stuck_worker() -> None:
    """Ends a worker that has not answered for long, so that the next request starts another. One that runs jobs is
    left alone, because they would end with it.
    """
    if _session.client is not None and not _session.client.running_jobs:
        _session.client.restart()


def _on_log(line: str) -> None:
    # A terminal obeys control characters, and the line may come from another machine or name a stranger's file.
    line = "".join(letter if letter.isprintable() or letter == "\t" else "\ufffd" for letter in line)
    log.append(line)
    print(f"Effigy's worker: {line}")


def _pump() -> float:
    """The timer. It must never raise, because Blender removes a timer that does."""
    if _session.client is None:
        return IDLE_INTERVAL
    try:
        arrived = _session.client.pump()
    except Exception:
        traceback.print_exc()
        arrived = True
    now = time.monotonic()
    if arrived:
        _session.last_arrival = now
    # The end of a job is redrawn by the task that waits for it (`tasks`).
    running = _session.client is not None and _session.client.running_jobs
    if running and now - _session.last_redraw >= (REDRAW_INTERVAL if arrived else QUIET_REDRAW_INTERVAL):
        _session.last_redraw = now
        redraw_panels()
    active = _session.client is not None and (
        _session.client.busy or time.monotonic() - _session.last_arrival < ACTIVE_SECONDS
    )
    return PUMP_INTERVAL if active else IDLE_INTERVAL


def _keep_pumping() -> None:
    if not bpy.app.timers.is_registered(_pump):
        bpy.app.timers.register(_pump, first_interval=PUMP_INTERVAL, persistent=True)


def register() -> None:
    _keep_pumping()
    atexit.register(shutdown)


def unregister() -> None:
    if bpy.app.timers.is_registered(_pump):
        bpy.app.timers.unregister(_pump)
    shutdown()
    atexit.unregister(shutdown)
