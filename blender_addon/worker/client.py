"""The client of the worker, for any Python. It starts the worker for the first request and again after it has ended.

    client = WorkerClient([python, "-m", "backend", "serve"], cwd=folder)
    client.call("head.rig", {})                                                   # waits for the answer
    client.request("avatar.splats", params, on_result, on_error, latest="head")   # the answer arrives in pump()
    job = client.start_job("train", {"capture": …, "avatar": …})                  # so do the job's events
    client.pump()                                                                 # main thread, several times a second
    client.close()

Among `latest` requests with the same key, one is in progress and at most one waits, the newest, so that scrubbing
through the timeline never queues requests. A waiting request that a newer one replaces gets no answer.

A worker that is killed or crashes loses no question: what it had not answered is asked again of the next worker, at
most `REPEATS` times. Jobs are not started again, because they have their own checkpoints.
"""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ..errors import EffigyError
from .arrivals import Arrivals
from .connection import Connection
from .jobs import FAILED, STOPPING, Job
from .messages import Answer, JobEvent, JobNotification, WorkerInfo
from .requests import INSTALL_AGAIN, Latest, Request, State, WorkerEnded, WorkerError, examine_hello
from .results import check_result

STOP_INTERVAL: Final = 0.1
"""Seconds between two looks whether a wait for an answer is to stop."""
PUMP_SECONDS: Final = 0.1
"""After so long, `pump` leaves the rest of what has arrived to its next call, so that Blender stays usable."""


class WorkerClient:
    repeats_requests: bool = True
    """Whether the next worker can answer what was prepared for the one that ended."""

    def __init__(
        self,
        command: Sequence[str],
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        on_log: Callable[[str], None] | None = None,
        arrays: str = "files",
    ) -> None:
        """Does not start the worker yet. `on_log` receives the lines of the worker's log, in `pump`. `arrays` is
        "inline" for a worker on another machine, and "files" for one that shares files with this process.
        """
        self._command, self._cwd, self._environment, self._arrays = list(command), cwd, environment, arrays
        self._on_log = on_log
        self._numbers = itertools.count(1)
        # Re-entrant, because the callback of an answer may send another request.
        self._lock = threading.RLock()
        self._state = State()
        self._arrived = Arrivals()
        self._closed = False
        self.info: WorkerInfo | None = None
        """About the running worker; None while there is none."""
        self.jobs: list[Job] = []
        """Oldest first. Jobs that have ended stay until the next one starts."""

    @property
    def alive(self) -> bool:
        return self._state.connection is not None

    @property
    def pid(self) -> int | None:
        connection = self._state.connection
        return connection.pid if connection else None

    @property
    def array_folders(self) -> list[str]:
        """The folders through which the running worker passes arrays; none for a worker on another machine."""
        connection = self._state.connection
        return connection.folders.paths if connection and connection.folders else []

    @property
    def busy(self) -> bool:
        """Whether an answer is pending or waits for `pump`."""
        return bool(self._state.pending) or len(self._arrived) > 0

    @property
    def running_jobs(self) -> list[Job]:
        return [job for job in self.jobs if not job.finished]

    def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        on_result: Callable[[Any], None] | None = None,
        on_error: Callable[[WorkerError], None] | None = None,
        latest: str | None = None,
    ) -> None:
        """Sends a request without waiting. `pump` calls `on_result` or `on_error`, unless a newer request with the same
        `latest` key replaced this one.
        """
        self._submit(Request(method, params or {}, on_result, on_error, latest))

    def call(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = 60.0) -> Any:
        """Sends a request and waits for the answer, from any thread. Jobs and other requests continue meanwhile. Raises
        a `WorkerError`, also after `timeout` seconds (None: no limit).
        """
        return self.answer_of(self.send(method, params or {}), timeout)

    def send(self, method: str, params: dict[str, Any]) -> Request:
        """Sends a request whose answer `answer_of` waits for, from any thread."""
        request = Request(method, params, None, None, answered=threading.Event())
        self._submit(request)
        return request

    def answer_of(self, request: Request, timeout: float | None, stop: Callable[[], None] | None = None) -> Any:
        """Waits for the answer to a request of `send`. Raises a `WorkerError`, also after `timeout` seconds. `stop` is
        called several times a second meanwhile; what it raises ends the waiting.
        """
        if not self._wait_for(request, timeout, stop):
            raise WorkerError(
                f"The worker did not answer “{request.method}” within {timeout:g} seconds: it is busy or stuck. "
                "Try again, or restart the worker."
            )
        if request.error:
            raise request.error
        return request.result

    def _wait_for(self, request: Request, timeout: float | None, stop: Callable[[], None] | None) -> bool:
        """Whether the answer has come; if it has not, it is ignored when it comes."""
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                left = None if until is None else max(0.0, until - time.monotonic())
                interval = left if stop is None else min(STOP_INTERVAL, left if left is not None else STOP_INTERVAL)
                if request.answered.wait(interval):
                    return True
                if stop is not None:
                    stop()
                if until is not None and time.monotonic() >= until:
                    break
        finally:
            if not request.answered.is_set():
                self._discard(request)
        return False

    def start_job(self, kind: str, params: dict[str, Any], on_change: Callable[[Job], None] | None = None) -> Job:
        """Starts long work. `pump` updates the returned job and then calls `on_change`."""
        job = Job(kind, params, self._cancel)
        job.on_change = on_change
        # Jobs that have ended hold their previews and curves.
        self.jobs = [*self.running_jobs, job]
        self._begin(job, params)
        return job

    def _begin(self, job: Job, params: dict[str, Any]) -> None:
        """Asks the worker to start a job. `params` are those for the worker."""

        def on_started(result: Any) -> None:
            name = result.get("job") if isinstance(result, Mapping) else None
            if not isinstance(name, str):
                job.end(FAILED, "The worker answered in a way that is unknown here: update Effigy on both machines.")
                return
            running = {known: other for known, other in request.state.jobs.items() if not other.finished}
            request.state.jobs = running | {name: job}
            job.on_started(name)
            if job.state == STOPPING:
                self._cancel(job)

        request = Request(
            "job.start",
            {"kind": job.kind, "params": params},
            on_started,
            lambda error: job.end(FAILED, self._end_of(job, error)),
        )
        self._submit(request)

    def pump(self) -> bool:
        """Delivers the answers and events that have arrived; returns whether there were any. Runs in the main thread
        and never waits. An exception in a callback goes to the console, and what arrived after it is delivered.
        """
        arrived, until = False, time.monotonic() + PUMP_SECONDS
        # Answers to requests that the callbacks send are delivered by a later call.
        for _ in range(len(self._arrived)):
            deliver = self._arrived.take()
            if deliver is None:
                break
            arrived = True
            try:
                deliver()
            except Exception:
                traceback.print_exc()
            if time.monotonic() > until:
                break
        return arrived

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        """Pumps until a job has ended; for scripts and `blender -b`. Raises a `WorkerError` after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while not job.finished:
            if not self.pump():
                time.sleep(0.02)
            if until is not None and time.monotonic() > until:
                raise WorkerError(f"The job “{job.kind}” did not end within {timeout:g} seconds.")
        return job

    def close(self, wait: bool = True) -> None:
        """Ends the worker and its jobs, which stop as if cancelled and keep their checkpoints."""
        with self._lock:
            self._closed, connection = True, self._state.connection
        if connection:
            connection.close(wait)

    def restart(self) -> None:
        """Ends a worker that is stuck, and what it was asked. The next request starts a new one."""
        with self._lock:
            connection = self._state.connection
            for request in self._state.pending.values():
                request.repeats_left = 0
        if connection:
            connection.kill()

    def _submit(self, request: Request) -> None:
        with self._lock:
            if self._closed:
                return self._fail(request, WorkerError("Effigy's worker has been shut down."))
            if self._state.refused:
                return self._fail(request, WorkerError(self._state.refused))
            if self._state.connection is None:
                try:
                    self._connect()
                except EffigyError as error:
                    return self._fail(request, WorkerError(str(error)))
            if request.latest is not None:
                entry = self._state.latest.get(request.latest)
                if entry:
                    entry.waiting = request
                    return None
                self._state.latest[request.latest] = Latest(request)
            self._send(request)
        return None

    def _send(self, request: Request) -> None:
        number = next(self._numbers)
        request.state = self._state
        self._state.pending[number] = request
        try:
            self._state.connection.send(number, request.method, request.params)
        except (TypeError, ValueError, RecursionError) as error:
            del self._state.pending[number]
            if request.latest is not None:
                self._send_next(self._state, request.latest)
            self._fail(request, WorkerError(f"“{request.method}” could not be sent to the worker ({error})."))

    def _connect(self) -> None:
        state = State()
        state.connection = connection = Connection(
            self._command,
            self._cwd,
            self._environment,
            lambda message: self._on_message(state, message),
            lambda _, message: self._on_end(state, message),
            self._on_log_line,
            shares_files=self._arrays == "files",
        )
        self._state = state
        folders = {"folders": connection.folders.paths} if connection.folders else {}
        state.hello = Request("hello", {"arrays": self._arrays} | folders, None, None)
        self._send(state.hello)

    def _on_message(self, state: State, message: Answer | JobNotification) -> None:
        """Called from the reader thread."""
        if isinstance(message, JobNotification):
            self._arrived.put_event(message.event, lambda: self._on_job_event(state, message))
            return
        with self._lock:
            request = state.pending.pop(message.number, None)
            if request is None:
                self._on_log_line(f"An answer of the worker to no request was left out (number {message.number}).")
                return
            if request.latest is not None:
                self._send_next(state, request.latest)
            if request is state.hello:
                self._on_hello(state, message)
        if state.refused:
            self._fail(request, WorkerError(state.refused))
        elif message.error is not None:
            self._fail(request, WorkerError(message.error, message.traceback))
        else:
            self._check_and_answer(request, message.result)

    def _check_and_answer(self, request: Request, result: Any) -> None:
        try:
            check_result(request.method, request.params, result)
        except ValueError as error:
            self._fail(request, WorkerError(f"The worker's answer cannot be used ({error}): {INSTALL_AGAIN}"))
        else:
            self._answer(request, result)

    def _send_next(self, state: State, key: str) -> None:
        """Sends the waiting request with this `latest` key, if there is one."""
        entry = state.latest.pop(key)
        if entry.waiting:
            state.latest[key] = Latest(entry.waiting)
            self._send(entry.waiting)

    def _on_hello(self, state: State, answer: Answer) -> None:
        self.info, state.refused = examine_hello(answer)
        state.greeted = self.info is not None

    def _on_job_event(self, state: State, notification: JobNotification) -> None:
        job = state.jobs.get(notification.job)
        if job:
            self._deliver(job, notification.event)

    def _deliver(self, job: Job, event: JobEvent) -> None:
        """Called in `pump` for each event of a job."""
        job.on_event(event)

    def _end_of(self, job: Job, error: WorkerError) -> str:
        """The sentence for a job that the worker refused, or that ended with the worker."""
        return f"{error} What “{job.kind}” had finished is kept." if isinstance(error, WorkerEnded) else str(error)

    def _on_end(self, state: State, message: str) -> None:
        """Called from a thread of the connection. Every pending request is sent again or fails with the message, and
        every job fails.
        """
        with self._lock:
            may_repeat = self.repeats_requests and state.connection.may_do_better(state.greeted)
            waiting = list(state.pending.values()) + [entry.waiting for entry in state.latest.values() if entry.waiting]
            state.pending.clear()
            state.latest.clear()
            state.connection, self.info = None, None
            repeated = [request for request in waiting if may_repeat and request.repeatable and not self._closed]
            for request in repeated:
                request.repeats_left -= 1
                self._submit(request)
        if repeated:
            self._on_log_line(f"{message} What it was asked is asked again.")
        for request in waiting:
            if request not in repeated:
                self._fail(request, WorkerEnded(message))

        def end_jobs() -> None:
            # One delivery for each, so that no job depends on what another's callback does.
            for job in state.jobs.values():
                self._arrived.put(lambda job=job: job.end(FAILED, self._end_of(job, WorkerEnded(message))))

        self._arrived.put(end_jobs)

    def _answer(self, request: Request, result: Any) -> None:
        if request.answered:
            request.result = result
            request.answered.set()
        elif request.on_result:
            self._arrived.put(lambda: request.on_result(result))

    def _fail(self, request: Request, error: WorkerError) -> None:
        if request.answered:
            request.error = error
            request.answered.set()
        elif request.on_error:
            self._arrived.put(lambda: request.on_error(error))

    def _discard(self, request: Request) -> None:
        """Ignores the answer of this request when it arrives; its arrays are freed by the reader thread."""
        with self._lock:
            for number, pending in list(self._state.pending.items()):
                if pending is request:
                    del self._state.pending[number]

    def _cancel(self, job: Job) -> None:
        # A job that has no name yet is cancelled when it gets one.
        if job.name is not None:
            self.request("job.cancel", {"job": job.name})

    def _on_log_line(self, line: str) -> None:
        if self._on_log:
            self._arrived.put_line(line, self._on_log)
