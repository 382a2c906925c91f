"""Tasks: a job of the worker together with what Blender does when it is done.

A task lives as long as this Blender: loading another file does not stop it. What is to be done in Blender afterwards
(building a rig) is a generator that is taken on a few milliseconds at a time by a timer, so that the window stays
alive; it is done only in the file in which the task was started, else the task says where its result lies.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, Final

import bpy
from bpy.app.handlers import persistent

from .errors import EffigyError
from .redraw import redraw_panels
from .reporting import tell_soon
from .rig.steps import Steps
from .worker import session
from .worker.jobs import CANCELLED, DONE, FAILED, STARTING, Job

BUILDING: Final = "building"
SLICE: Final = 0.015
"""Seconds at a time that Blender's window waits for us."""
PAUSE: Final = 0.02

_tasks: list[Task] = []
_file = 0
"""Counts the files loaded."""


class Task:
    def __init__(self, title: str, after: Callable[[dict[str, Any]], Steps[str]], elsewhere: str) -> None:
        """`after(result)` is what follows in Blender and returns a sentence; `elsewhere` is said instead of it when
        another file is open by then. A step of `after` that waits for something yields None.
        """
        self.title = title
        self._after, self._elsewhere = after, elsewhere
        self._file = _file
        self._steps: Steps[str] | None = None
        self.job: Job | None = None
        """None for a task that has nothing to do but to build."""
        self.state = STARTING
        self.progress = 0.0
        """Of the building in Blender."""
        self.said = ""
        """How it ended, in a sentence."""

    def start_job(self, kind: str, params: dict[str, Any]) -> None:
        self.job = session.client().start_job(kind, params, self._changed)

    def start_building(self, result: dict[str, Any]) -> None:
        self.state, self._steps = BUILDING, self._after(result)
        if not bpy.app.timers.is_registered(_advance_all):
            bpy.app.timers.register(_advance_all, first_interval=0.0, persistent=True)

    @property
    def params(self) -> dict[str, Any]:
        return self.job.params if self.job else {}

    @property
    def finished(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    @property
    def share(self) -> float:
        return self.job.share if self.job and self.state != BUILDING else self.progress

    @property
    def stage(self) -> str:
        return self.job.stage if self.job and self.state != BUILDING else "Building"

    @property
    def left(self) -> str:
        """The time left in this stage, as a person says it."""
        return duration(self.job.eta) if self.job and self.job.eta is not None and self.state != BUILDING else ""

    def cancel(self) -> None:
        if self.state == BUILDING:
            self._steps.close()
            self._end(CANCELLED, self._elsewhere)
        elif self.job and not self.finished:
            self.job.cancel()
            self.state = self.job.state

    def _changed(self, job: Job) -> None:
        if self.finished or self.state == BUILDING:
            return
        if job.state != DONE:
            self.state = job.state
            if job.finished:
                self._end(job.state, job.error or "")
            return
        if self._file != _file:
            self._end(DONE, self._elsewhere)
            return
        self.start_building(job.result)

    def advance(self, seconds: float) -> None:
        """Work for about this long at what follows in Blender."""
        if self.state != BUILDING:
            return
        until = time.perf_counter() + seconds
        try:
            while time.perf_counter() < until:
                progress = next(self._steps)
                if progress is None:
                    return
                self.progress = progress
            redraw_panels()
        except StopIteration as end:
            self._end(DONE, end.value or "")
            _push_undo(self.title)
        except EffigyError as error:
            self._end(FAILED, str(error))
        except ReferenceError:
            self._end(FAILED, f"{self._elsewhere} It was interrupted by an undo.")
        except Exception as error:
            traceback.print_exc()
            self._end(
                FAILED,
                f"A defect in Effigy ({type(error).__name__}: {error}); the console has the details. {self._elsewhere}",
            )

    def interrupt(self) -> None:
        """What it was building in is about to go away."""
        if self.state == BUILDING:
            self._steps.close()
            self._end(DONE, self._elsewhere)

    def _end(self, state: str, said: str) -> None:
        self.state, self.said = state, said
        redraw_panels()
        if state == FAILED:
            tell_soon(f"{self.title}: {said}")


def start(
    title: str, kind: str, params: dict[str, Any], after: Callable[[dict[str, Any]], Steps[str]], elsewhere: str
) -> Task:
    """A job of the worker, and what follows it."""
    task = Task(title, after, elsewhere)
    task.start_job(kind, params)
    _tasks.append(task)
    return task


def start_local(title: str, build: Callable[[], Steps[str]]) -> Task:
    """Only what happens in Blender, a slice at a time."""
    task = Task(title, lambda _: build(), "It was not finished: start it again.")
    _tasks.append(task)
    task.start_building({})
    return task


def all_tasks() -> list[Task]:
    """Newest last; finished ones stay until they are cleared."""
    return list(_tasks)


def running() -> Iterator[Task]:
    return (task for task in _tasks if not task.finished)


def clear_finished() -> None:
    _tasks[:] = list(running())


def wait(task: Task, timeout: float | None = None) -> Task:
    """Until it has ended; for scripts and `blender -b`, where no timer runs."""
    until = None if timeout is None else time.monotonic() + timeout
    while not task.finished:
        client = session.current()
        arrived = client is not None and client.pump()
        task.advance(SLICE)
        if not arrived and task.state != BUILDING:
            time.sleep(0.02)
        if until is not None and time.monotonic() > until:
            raise EffigyError(f"“{task.title}” did not end within {timeout:g} seconds.")
    return task


def wait_for_success(task: Task) -> None:
    """`wait`, and an `EffigyError` where it failed or was stopped."""
    if wait(task).state != DONE:
        raise EffigyError(task.said)


def fetch(method: str, params: dict[str, Any]) -> Steps[Any]:
    """Steps that ask the worker and return its answer, for `yield from` in the steps of a task."""
    answered: list[Any] = []
    session.client().request(method, params, answered.append, answered.append)
    while not answered:
        yield None
    if isinstance(answered[0], Exception):
        raise answered[0]
    return answered[0]


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _advance_all() -> float | None:
    building = [task for task in _tasks if task.state == BUILDING]
    for task in building:
        task.advance(SLICE / len(building))
    return PAUSE if any(task.state == BUILDING for task in _tasks) else None


def _push_undo(title: str) -> None:
    if not bpy.app.background:
        bpy.ops.ed.undo_push(message=title)


@persistent
def _another_file(*_: object) -> None:
    global _file
    _file += 1
    _interrupt_building()


@persistent
def _interrupt_building(*_: object) -> None:
    for task in _tasks:
        task.interrupt()


def register() -> None:
    bpy.app.handlers.load_pre.append(_another_file)
    bpy.app.handlers.undo_pre.append(_interrupt_building)
    bpy.app.handlers.redo_pre.append(_interrupt_building)


def unregister() -> None:
    for handlers, function in (
        (bpy.app.handlers.load_pre, _another_file),
        (bpy.app.handlers.undo_pre, _interrupt_building),
        (bpy.app.handlers.redo_pre, _interrupt_building),
    ):
        if function in handlers:
            handlers.remove(function)
    if bpy.app.timers.is_registered(_advance_all):
        bpy.app.timers.unregister(_advance_all)
    _tasks.clear()
