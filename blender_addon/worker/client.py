"""Requests to the worker, from any Python: started when first needed, watched, and started again after it died.

    client = WorkerClient([python, "-m", "backend", "serve"], cwd=folder)
    client.call("head.rig", {})                                             # waits
    client.request("avatar.splats", params, show, complain, latest="head")  # answers arrive in pump()
    job = client.start_job("train", {"capture": …, "avatar": …})            # so do its events
    client.pump()                                                           # main thread, some times a second
    client.close()

Of `latest` requests with the same key one is on its way and at most one waits, the newest: scrubbing never queues. What
a newer one replaced is not answered at all.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import EffigyError
from .connection import Connection
from .jobs import FAILED, STOPPING, Job

SCHEMA = 1
"""The newest protocol that this client speaks."""
KEPT_LOG_LINES = 500


class WorkerError(EffigyError):
    """The worker refused a request or is gone; `data` is the traceback of a defect, if it was one."""

    def __init__(self, sentence: str, data: str | None = None) -> None:
        super().__init__(sentence)
        self.data = data


@dataclass
class _Request:
    method: str
    params: dict[str, Any]
    on_result: Callable[[Any], None] | None
    on_error: Callable[[WorkerError], None] | None
    latest: str | None = None
    answered: threading.Event | None = None
    """Set for a blocking call, whose answer does not go through `pump`."""
    result: Any = None
    error: WorkerError | None = None
    state: _State | None = None
    """Of the connection over which it went."""


@dataclass
class _Latest:
    """One key's requests."""

    sent: _Request
    waiting: _Request | None = None


@dataclass
class _State:
    """What belongs to one connection; all of it ends with it."""

    connection: Connection | None = None
    pending: dict[int, _Request] = field(default_factory=dict)
    latest: dict[str, _Latest] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    refused: str | None = None
    """Why nothing can be asked of this worker."""


class WorkerClient:
    def __init__(
        self,
        command: Sequence[str],
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        on_log: Callable[[str], None] | None = None,
        arrays: str = "files",
    ) -> None:
        """`on_log` gets the worker's log line by line, in `pump`. `arrays` is "inline" for a worker that shares no
        files with this machine. Nothing is started yet.
        """
        self._command, self._cwd, self._environment, self._arrays = list(command), cwd, environment, arrays
        self._on_log = on_log
        self._numbers = itertools.count(1)
        # Re-entrant: an answer's callback may ask again.
        self._lock = threading.RLock()
        self._state = _State()
        self._arrived: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._closed = False
        self.hello: dict[str, Any] | None = None
        """What the worker said of itself; None while there is none."""
        self.jobs: list[Job] = []
        """All jobs of this client, oldest first, finished ones too."""

    @property
    def alive(self) -> bool:
        return self._state.connection is not None

    @property
    def pid(self) -> int | None:
        connection = self._state.connection
        return connection.pid if connection else None

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way, or one waits for `pump`."""
        return bool(self._state.pending) or not self._arrived.empty()

    @property
    def running_jobs(self) -> list[Job]:
        return [job for job in self.jobs if not job.finished]

    # --- asking

    def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        on_result: Callable[[Any], None] | None = None,
        on_error: Callable[[WorkerError], None] | None = None,
        latest: str | None = None,
    ) -> None:
        """Ask without waiting: one of the two is called by `pump`, unless a newer request of the key `latest` replaced
        it.
        """
        self._ask(_Request(method, params or {}, on_result, on_error, latest))

    def call(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = 60.0) -> Any:
        """Ask and wait, from any thread; raises `WorkerError`. Jobs and other requests go on meanwhile."""
        request = _Request(method, params or {}, None, None, answered=threading.Event())
        self._ask(request)
        if not request.answered.wait(timeout):
            self._forget(request)
            raise WorkerError(
                f"The worker did not answer “{method}” within {timeout:g} seconds: it is busy or stuck. "
                "Try again, or restart the worker."
            )
        if request.error:
            raise request.error
        return request.result

    def start_job(self, kind: str, params: dict[str, Any], on_change: Callable[[Job], None] | None = None) -> Job:
        """Start long work; the job is filled in by `pump`."""
        job = Job(kind, params, self._cancel)
        job.on_change = on_change
        self.jobs.append(job)

        def named(result: dict[str, Any]) -> None:
            request.state.jobs[result["job"]] = job
            job.named(result["job"])
            if job.state == STOPPING:
                self._cancel(job)

        request = _Request(
            "job.start", {"kind": kind, "params": params}, named, lambda error: job.end(FAILED, str(error))
        )
        self._ask(request)
        return job

    def pump(self) -> bool:
        """Deliver what arrived; True when anything did. For the main thread; never waits."""
        arrived = False
        # What the callbacks ask for is answered in a later round.
        for _ in range(self._arrived.qsize()):
            try:
                deliver = self._arrived.get_nowait()
            except queue.Empty:
                break
            arrived = True
            deliver()
        return arrived

    def wait(self, job: Job, timeout: float | None = None) -> Job:
        """Pump until a job has ended; for scripts and `blender -b`."""
        until = None if timeout is None else time.monotonic() + timeout
        while not job.finished:
            if not self.pump():
                time.sleep(0.02)
            if until is not None and time.monotonic() > until:
                raise WorkerError(f"The job “{job.kind}” did not end within {timeout:g} seconds.")
        return job

    def close(self, wait: bool = True) -> None:
        """End the worker, and its jobs with it: they stop as if cancelled and keep their checkpoints."""
        with self._lock:
            self._closed, connection = True, self._state.connection
        if connection:
            connection.close(wait)

    def restart(self) -> None:
        """End a worker that is stuck; the next request starts a new one."""
        with self._lock:
            connection = self._state.connection
        if connection:
            connection.kill()

    # --- the inside

    def _ask(self, request: _Request) -> None:
        with self._lock:
            if self._closed:
                return self._fail(request, WorkerError("Effigy's worker has been shut down."))
            if self._state.refused:
                return self._fail(request, WorkerError(self._state.refused))
            if self._state.connection is None:
                self._connect()
            if request.latest is not None:
                entry = self._state.latest.get(request.latest)
                if entry:
                    entry.waiting = request
                    return None
                self._state.latest[request.latest] = _Latest(request)
            self._send(request)
        return None

    def _send(self, request: _Request) -> None:
        number = next(self._numbers)
        request.state = self._state
        self._state.pending[number] = request
        message = {"jsonrpc": "2.0", "id": number, "method": request.method, "params": request.params}
        self._state.connection.send(message)

    def _connect(self) -> None:
        self._state = state = _State()
        state.connection = Connection(
            self._command,
            self._cwd,
            self._environment,
            lambda message: self._received(state, message),
            lambda _, sentence: self._ended(state, sentence),
            self._logged,
        )
        self._send(_Request("hello", {"arrays": self._arrays}, lambda hello: None, None))

    def _received(self, state: _State, message: dict[str, Any]) -> None:
        """From the reader's thread: an answer, or news of a job."""
        if "id" not in message:
            event, params = message.get("method", ""), message.get("params") or {}
            if event.startswith("job."):
                self._arrived.put(lambda: self._job_news(state, event.removeprefix("job."), params))
            return
        with self._lock:
            request = state.pending.pop(message["id"], None)
            if request is None:
                return
            if request.latest is not None:
                self._next_of(state, request.latest)
            if request.method == "hello":
                self._greeted(state, message)
        if error := message.get("error"):
            self._fail(request, WorkerError(error["message"], error.get("data")))
        else:
            self._answer(request, message["result"])

    def _next_of(self, state: _State, key: str) -> None:
        entry = state.latest.pop(key)
        if entry.waiting:
            state.latest[key] = _Latest(entry.waiting)
            self._send(entry.waiting)

    def _greeted(self, state: _State, message: dict[str, Any]) -> None:
        hello = message.get("result")
        if hello is None:
            return
        state.connection.folders = list(hello.get("folders", ()))
        if hello["schema"] > SCHEMA:
            state.refused = "The backend is newer than this extension: update the extension, or install its backend."
        self.hello = hello

    def _job_news(self, state: _State, event: str, params: dict[str, Any]) -> None:
        job = state.jobs.get(params.pop("job", ""))
        if job:
            job.told(event, params)

    def _ended(self, state: _State, sentence: str) -> None:
        """From a thread of the connection: every request that waits gets the sentence, and so does every job."""
        with self._lock:
            waiting = list(state.pending.values()) + [entry.waiting for entry in state.latest.values() if entry.waiting]
            state.pending.clear()
            state.latest.clear()
            state.connection, self.hello = None, None
        for request in waiting:
            self._fail(request, WorkerError(sentence))

        def end_jobs() -> None:
            for job in state.jobs.values():
                job.end(FAILED, f"{sentence} What “{job.kind}” had finished is kept.")

        self._arrived.put(end_jobs)

    def _answer(self, request: _Request, result: Any) -> None:
        if request.answered:
            request.result = result
            request.answered.set()
        elif request.on_result:
            self._arrived.put(lambda: request.on_result(result))

    def _fail(self, request: _Request, error: WorkerError) -> None:
        if request.answered:
            request.error = error
            request.answered.set()
        elif request.on_error:
            self._arrived.put(lambda: request.on_error(error))

    def _forget(self, request: _Request) -> None:
        """Its answer, when it comes, is dropped (and its arrays released by the reader)."""
        with self._lock:
            for number, pending in list(self._state.pending.items()):
                if pending is request:
                    del self._state.pending[number]

    def _cancel(self, job: Job) -> None:
        # A job without a name yet is cancelled as soon as it has one.
        if job.name is not None:
            self.request("job.cancel", {"job": job.name})

    def _logged(self, line: str) -> None:
        if self._on_log:
            self._arrived.put(lambda: self._on_log(line))
