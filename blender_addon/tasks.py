"""Tasks: a job of the worker, and the work in Blender that follows it.

A task outlives the loading of another file. The work in Blender, such as building a rig, is a generator of which a
timer runs a slice of a few milliseconds at a time, so that the window stays responsive. It runs only in the file in
which the task was started; in another file the task reports where its result is.
"""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import bpy
from bpy.app.handlers import persistent

from .errors import EffigyError
from .file_names import readable
from .redraw import redraw_panels
from .reporting import report_soon
from .rig.steps import Steps
from .worker import session
from .worker.jobs import CANCELLED, DONE, FAILED, STARTING, Job

BUILDING: Final = "building"
"""The state of a task whose work in Blender is running; the other states are those of `worker.jobs`."""
SLICE_SECONDS: Final = 0.015
"""Longest time for which a slice blocks Blender's window."""
LEAST_TELLING: Final = 0.1
"""Completed fraction of the work in Blender from which on the time left is said."""
PAUSE_SECONDS: Final = 0.02
"""Between two slices."""
MOST_FINISHED: Final = 20
"""Finished tasks that stay in the list. Each bake of a long day would otherwise add one."""
ANSWER_SECONDS: Final = 900.0
"""A question of a task's steps is answered within seconds; a worker that takes longer than this is stuck."""


_numbers: Final = itertools.count(1)


class Task:
    """One task. Its fields change only in the main thread."""

    def __init__(
        self,
        title: str,
        build: Callable[[dict[str, Any]], Steps[str]],
        message_if_not_built: str,
        building_share: float = 0.0,
    ) -> None:
        """`build(result)` is the work in Blender after the job with this result. It returns a message for the artist,
        and yields None while it waits for something. `message_if_not_built` replaces that message if `build` did not
        finish, for instance because another file is open. `building_share`: how much of the task's time `build` takes,
        0 to 1.
        """
        self.title = readable(title)
        self.number = next(_numbers)
        """No other task of this Blender has it."""
        self._build: Callable[[dict[str, Any]], Steps[str]] | None = build
        self._message_if_not_built = message_if_not_built
        self._building_share = building_share
        self._file = _state.files_loaded
        self._steps: Steps[str] | None = None
        self.job: Job | None = None
        """None for a task that only works in Blender."""
        self.state = STARTING
        self.progress = 0.0
        """Completed fraction of the work in Blender."""
        self._started = self._built_since = time.monotonic()
        """When the task and its work in Blender began."""
        self.message = ""
        """How the task ended, as a sentence."""

    def start_job(self, kind: str, params: dict[str, Any]) -> None:
        self.job = session.client().start_job(kind, params, self._on_job_change)

    def start_building(self, result: dict[str, Any]) -> None:
        self.state, self._steps = BUILDING, self._build(result)
        self._built_since = time.monotonic()
        if not bpy.app.timers.is_registered(_advance_all):
            bpy.app.timers.register(_advance_all, first_interval=0.0, persistent=True)

    @property
    def params(self) -> dict[str, Any]:
        return self.job.params if self.job else {}

    @property
    def finished(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def fraction(self) -> float:
        """Completed fraction, 0 to 1: of the job and of the work in Blender after it together."""
        if self.state == DONE:
            return 1.0
        own = self._building_share
        if self.state == BUILDING or self.job is None:
            return 1 - own + own * self.progress if self.job else self.progress
        return (1 - own) * self.job.fraction

    @property
    def step(self) -> str:
        """`Step 3 of 8: Shape of the head`, empty where the steps are not known."""
        whole = self.job.whole if self.job else None
        if whole is None or self.job.unit:
            return ""
        steps = whole.steps + bool(self._building_share)
        if self.state == BUILDING:
            return f"Step {steps} of {steps}: {self.stage}"
        return f"Step {whole.step} of {steps}: {whole.title}"

    @property
    def stage(self) -> str:
        return self.job.stage if self.job and self.state != BUILDING else "Building in Blender"

    @property
    def time_left(self) -> str:
        """The time left as text, empty if it is not known."""
        seconds = self._seconds_left()
        return "" if seconds is None else duration(seconds)

    def _seconds_left(self) -> float | None:
        now = time.monotonic()
        if self.state == BUILDING:
            # Its first moments tell little.
            known = self.progress > LEAST_TELLING
            return (now - self._built_since) * (1 - self.progress) / self.progress if known else None
        left = self.job.seconds_left if self.job else None
        if left is None or self.job.whole is None:
            return left
        share = self._building_share
        return left + share / (1 - share) * (now - self._started + left)

    def cancel(self) -> None:
        if self.state == BUILDING:
            self._steps.close()
            self._end(CANCELLED, self._message_if_not_built)
        elif self.job and not self.finished:
            self.job.cancel()
            self.state = self.job.state

    def _on_job_change(self, job: Job) -> None:
        if self.finished or self.state == BUILDING:
            return
        if job.state != DONE:
            self.state = job.state
            if job.finished:
                self._end(job.state, job.error or "")
            return
        if self._file != _state.files_loaded:
            self._end(DONE, self._message_if_not_built)
            return
        self.start_building(job.result)

    def advance(self, seconds: float) -> None:
        """Runs the work in Blender for about this many seconds."""
        if self.state != BUILDING:
            return
        end = time.perf_counter() + seconds
        try:
            while time.perf_counter() < end:
                progress = next(self._steps)
                if progress is None:
                    return
                # Parts of the work that follow one another each count from 0.
                self.progress = max(self.progress, progress)
            redraw_panels()
        except StopIteration as finished:
            self._end(DONE, finished.value or "")
            push_undo(self.title)
        except EffigyError as error:
            self._end(FAILED, str(error))
        except ReferenceError:
            self._end(FAILED, f"{self._message_if_not_built} It was interrupted by an undo.")
        except Exception as error:
            traceback.print_exc()
            self._end(
                FAILED,
                f"A defect in Effigy ({type(error).__name__}: {error}); the console has the details. "
                f"{self._message_if_not_built}",
            )

    def interrupt(self) -> None:
        """Stops the work in Blender, because the data that it works on is about to be replaced."""
        if self.state == BUILDING:
            self._steps.close()
            self._end(DONE, self._message_if_not_built)

    def _end(self, state: str, message: str) -> None:
        self.state, self.message = state, message
        # They hold the rigs and arrays that were worked on.
        self._steps = self._build = None
        redraw_panels()
        if state == FAILED:
            report_soon(f"{self.title}: {message}")
        elif state == DONE and message and not bpy.app.background:
            # Jobs may be closed, and the tab hidden.
            report_soon(f"{self.title}: {message}", "INFO")


@dataclass
class _TaskState:
    """The module's state. Tasks end when the extension is unregistered."""

    tasks: list[Task] = field(default_factory=list)
    """Oldest first."""
    files_loaded: int = 0
    """Counts the loaded files."""


_state: Final = _TaskState()


def start(
    title: str,
    kind: str,
    params: dict[str, Any],
    build: Callable[[dict[str, Any]], Steps[str]],
    message_if_not_built: str,
    building_share: float = 0.0,
) -> Task:
    """Starts a job of the worker, and `build` after it (see `Task`)."""
    task = Task(title, build, message_if_not_built, building_share)
    task.start_job(kind, params)
    _add(task)
    return task


def start_local(
    title: str, build: Callable[[], Steps[str]], if_stopped: str = "It was not finished: start it again."
) -> Task:
    """Starts work that runs only in Blender, a slice at a time. `if_stopped` is its message when it does not finish."""
    task = Task(title, lambda _: build(), if_stopped)
    _add(task)
    task.start_building({})
    return task


def _add(task: Task) -> None:
    """Appends a task to the list, and removes the oldest finished ones beyond `MOST_FINISHED`."""
    finished = [other for other in _state.tasks if other.finished]
    for old in finished[: max(0, len(finished) - MOST_FINISHED)]:
        _state.tasks.remove(old)
    _state.tasks.append(task)


def all_tasks() -> list[Task]:
    """Oldest first. Finished tasks stay until they are cleared."""
    return list(_state.tasks)


def running() -> Iterator[Task]:
    return (task for task in _state.tasks if not task.finished)


def clear_finished() -> None:
    _state.tasks[:] = list(running())


def wait(task: Task, timeout: float | None = None) -> Task:
    """Waits until a task has ended; for scripts and `blender -b`, where no timer runs. Raises an `EffigyError` after
    `timeout` seconds.
    """
    until = None if timeout is None else time.monotonic() + timeout
    said = ""
    while not task.finished:
        if task.stage != said:
            said = task.stage
            print(f"Effigy: {task.title}: {said}")
        client = session.current()
        arrived = client is not None and client.pump()
        task.advance(SLICE_SECONDS)
        if not arrived:
            time.sleep(0.001 if task.state == BUILDING else 0.02)
        if until is not None and time.monotonic() > until:
            raise EffigyError(f"“{task.title}” did not end within {timeout:g} seconds.")
    return task


def wait_for_success(task: Task) -> None:
    """Waits for a task, and raises an `EffigyError` if it failed or was stopped."""
    if wait(task).state != DONE:
        raise EffigyError(task.message)


def wait_if_asked(operator: Any, task: Task) -> None:
    """Waits for the task that an operator has started, and reports its message, where the operator's `wait` asks for it
    or Blender has no window. Raises as `wait_for_success` does.
    """
    if operator.wait or bpy.app.background:
        wait_for_success(task)
        operator.report({"INFO"}, task.message)


def fetch(method: str, params: dict[str, Any]) -> Steps[Any]:
    """Steps that ask the worker and return its answer, for `yield from` in the steps of a task. Raises an `EffigyError`
    if there is none after `ANSWER_SECONDS`.
    """
    outcome: list[Any] = []
    session.client().request(method, params, outcome.append, outcome.append)
    until = time.monotonic() + ANSWER_SECONDS
    while not outcome:
        if time.monotonic() > until:
            session.end_stuck_worker()
            raise EffigyError(
                f"The worker did not answer “{method}” within {ANSWER_SECONDS / 60:g} minutes, so it is stuck: try "
                "again, which starts another. A job that is running must be stopped first."
            )
        yield None
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def duration(seconds: float) -> str:
    """Seconds as text: `40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _advance_all() -> float | None:
    building = [task for task in _state.tasks if task.state == BUILDING]
    for task in building:
        task.advance(SLICE_SECONDS / len(building))
    return PAUSE_SECONDS if any(task.state == BUILDING for task in _state.tasks) else None


def push_undo(title: str) -> None:
    """Adds a step of undo for a change that no operator has made."""
    if not bpy.app.background:
        bpy.ops.ed.undo_push(message=title)


@persistent
def _before_load(*_: object) -> None:
    _state.files_loaded += 1
    _interrupt_building()


@persistent
def _interrupt_building(*_: object) -> None:
    for task in _state.tasks:
        task.interrupt()


handlers: Final = (
    ("load_pre", _before_load),
    ("undo_pre", _interrupt_building),
    ("redo_pre", _interrupt_building),
)


def unregister() -> None:
    if bpy.app.timers.is_registered(_advance_all):
        bpy.app.timers.unregister(_advance_all)
    _state.tasks.clear()
