"""The client of a worker on another machine, which does not share this machine's files.

Before a request or a job starts, the files that it reads are sent; when a job has ended, what it has written is fetched
(`transfer`). Both are stages of the job's progress, and both happen in threads of their own, so that the viewport keeps
being answered. Files in shared folders (`path_map`) stay where they are.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ..errors import EffigyError
from .client import STOP_INTERVAL, WorkerClient
from .file_fetcher import FileFetcher
from .file_sender import FileSender
from .jobs import CANCELLED, FAILED, STOPPING, Job
from .messages import JobDone, JobEvent, JobFailed, JobMessage, JobProgress
from .path_fields import JOBS, METHODS, PathField, paths_in, with_paths
from .path_map import PathMap
from .requests import REPEATS, WorkerEnded, WorkerError
from .transfer import Transfer

ANSWER_SECONDS: Final = 600.0
"""For the answer to one message of the exchange. The worker hashes a whole capture for some of them."""
LAST_ANSWER_SECONDS: Final = 30.0
"""The same while the rest of a cancelled job is fetched, for which nobody waits long."""
REPORT_SECONDS: Final = 0.1
"""Least time between two reports of progress."""
KEPT: Final = "What was sent and what is finished is kept on the worker: start it again, and it goes on from there."


class _Stopped(Exception):
    """The artist has cancelled a job while its files were being sent or fetched."""


class RemoteWorkerClient(WorkerClient):
    repeats_requests = False
    """A new connection begins with the files that the request reads, so only `call` repeats it."""

    def __init__(
        self,
        command: Sequence[str],
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        on_log: Callable[[str], None] | None = None,
        *,
        path_map: PathMap,
        staging: Path,
        head: Path | None = None,
    ) -> None:
        """`command` starts the worker, for instance through ssh. `staging`: a folder for what is being fetched. `head`:
        the user's FLAME file, which the worker gets as well, because tracks and avatars name it by its fingerprint.
        """
        super().__init__(command, cwd, environment, on_log, arrays="inline")
        self._map, self._head = path_map, head
        self._head_known = threading.Event()
        """Set when the running worker knows `head`."""
        self._head_lock = threading.Lock()
        self.sender = FileSender(self._ask)
        self.fetcher = FileFetcher(self._ask, staging)
        self._transfers: dict[Job, Transfer] = {}
        self._in_this_thread = threading.local()
        """`job`: the job whose files this thread sends or fetches."""
        self._sending: dict[str, Callable[[], None] | None] = {}
        """By `latest` key: a file is being sent for a request; the newest request that waits for it."""

    def request(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        on_result: Callable[[Any], None] | None = None,
        on_error: Callable[[WorkerError], None] | None = None,
        latest: str | None = None,
    ) -> None:
        """As in `WorkerClient`; files that the worker lacks are sent first."""
        fields, params = METHODS.get(method, ()), params or {}
        remote = {
            path: self._map.to_remote(path) or self.sender.opened(Path(path)) for _, path in paths_in(fields, params)
        }
        writes = any(field.writes is not None for field in fields)
        if not writes and all(remote.values()) and (latest is None or latest not in self._sending):
            self._request_there(fields, method, params, remote, on_result, on_error, latest)
            return

        def again() -> None:
            self.request(method, params, on_result, on_error, latest)

        key = latest or ""
        if latest is not None:
            waits = latest in self._sending
            self._sending[latest] = again
            if waits:
                return

        def work() -> None:
            try:
                if latest is None:
                    result = self.call(method, params, timeout=None)
                    self._arrived.put(lambda: on_result(result) if on_result else None)
                else:
                    self._share_head()
                    self._transfer(fields).prepare(method, params)
                    self._arrived.put(send)
            except WorkerError as error:
                self._arrived.put(lambda error=error: fail(error))
            except EffigyError as error:
                self._arrived.put(lambda error=error: fail(WorkerError(str(error))))
            except Exception as error:
                traceback.print_exc()
                defect = WorkerError(f"A defect in Effigy ({type(error).__name__}: {error}); the console has details.")
                self._arrived.put(lambda: fail(defect))

        def send() -> None:
            if newest := self._sending.pop(key, None):
                newest()

        def fail(error: WorkerError) -> None:
            self._sending.pop(key, None)
            if on_error:
                on_error(error)

        self._in_thread(work)

    def call(self, method: str, params: dict[str, Any] | None = None, timeout: float | None = 60.0) -> Any:
        """As in `WorkerClient`; files are sent before it and fetched after it, for which `timeout` does not count."""
        fields = METHODS.get(method, ())
        if not fields:
            return super().call(method, params, timeout)
        for _ in range(REPEATS):
            with suppress(WorkerEnded):
                return self._call_there(fields, method, params or {}, timeout)
            if self._closed:
                break
        return self._call_there(fields, method, params or {}, timeout)

    def _call_there(
        self, fields: tuple[PathField, ...], method: str, params: dict[str, Any], timeout: float | None
    ) -> Any:
        transfer = self._transfer(fields)
        try:
            self._share_head()
            answer = super().call(method, transfer.prepare(method, params), timeout)
        except WorkerError as error:
            raise type(error)(transfer.to_local(str(error)), error.data) from error
        if any(field.writes is not None for field in fields):
            transfer.fetch()
        return transfer.to_local(answer)

    def _begin(self, job: Job, params: dict[str, Any]) -> None:
        fields = JOBS.get(job.kind)
        if fields is None:
            super()._begin(job, params)
            return
        # A job that ended with its connection has left its transfer here.
        self._transfers = {running: transfer for running, transfer in self._transfers.items() if not running.finished}
        transfer = self._transfers[job] = self._transfer(fields, job)

        def work() -> None:
            self._share_head()
            there = transfer.prepare(job.kind, params)
            if transfer.result is not None:
                # The connection was lost after the same job had ended.
                self._fetch(job, transfer, JobDone(transfer.result))
                return
            if transfer.continued:
                text = "Going on from where it was when the connection was lost."
                self._arrived.put(lambda: job.on_event(JobMessage(text)))
            if job.state == STOPPING:
                raise _Stopped
            # The worker's first report comes when its process has started.
            self._arrived.put(lambda: job.on_event(JobProgress("Starting", 0, 0)))
            super(RemoteWorkerClient, self)._begin(job, there)

        self._in_thread(lambda: self._guarded(job, work, "Sending was stopped. What was sent is kept on the worker."))

    def _deliver(self, job: Job, event: JobEvent) -> None:
        transfer = self._transfers.get(job)
        match event:
            case JobMessage() if transfer:
                super()._deliver(job, JobMessage(transfer.to_local(event.text)))
            case JobDone() | JobFailed() if transfer:
                stopped = "Fetching was stopped. The result is kept on the worker: start it again to fetch it."
                self._in_thread(lambda: self._guarded(job, lambda: self._fetch(job, transfer, event), stopped))
            case _:
                super()._deliver(job, event)

    def _fetch(self, job: Job, transfer: Transfer, event: JobDone | JobFailed) -> None:
        """Fetches what a job has left, and then delivers its last event."""
        last: JobEvent
        match event:
            case JobDone():
                transfer.note_result(event.result)
                transfer.fetch()
                last = JobDone(transfer.to_local(event.result))
            case JobFailed():
                message = transfer.to_local(event.message)
                try:
                    transfer.fetch_unfinished()
                except EffigyError as error:
                    message = f"{message} {error}"
                last = JobFailed(message, event.cancelled)
        self._arrived.put(lambda: self._end(job, last))

    def _end(self, job: Job, event: JobEvent) -> None:
        self._transfers.pop(job, None)
        job.on_event(event)

    def _guarded(self, job: Job, work: Callable[[], None], stopped: str) -> None:
        """Runs a part of a job in its thread; whatever goes wrong ends the job with a sentence."""
        self._in_this_thread.job = job
        self._in_this_thread.stopping = job.state == STOPPING
        try:
            work()
        except _Stopped:
            last = JobFailed(stopped, cancelled=True)
        except EffigyError as error:
            ended = isinstance(error, WorkerEnded)
            last = JobFailed(self._end_of(job, error) if ended else str(error), cancelled=False)
        except Exception as error:
            traceback.print_exc()
            text = f"The job failed because of a defect in Effigy ({type(error).__name__}: {error}). {KEPT}"
            last = JobFailed(text, cancelled=False)
        else:
            return
        self._arrived.put(lambda: self._end(job, last))

    def _end_of(self, job: Job, error: WorkerError) -> str:
        transfer = self._transfers.get(job)
        if transfer is None:
            return super()._end_of(job, error)
        return f"{error} {KEPT}" if isinstance(error, WorkerEnded) else transfer.to_local(str(error))

    def _share_head(self) -> None:
        """Gives the worker the user's FLAME file, once in each connection."""
        while not self._head_lock.acquire(timeout=STOP_INTERVAL):
            self._raise_if_stopped()
        try:
            if self._head is None or self._head_known.is_set() or not self._head.is_file():
                return
            transfer = self._transfer(METHODS["head.remember"])
            there = transfer.prepare("head.remember", {"file": str(self._head)})
            self._ask("head.remember", there)()
            self._head_known.set()
        finally:
            self._head_lock.release()

    def _connect(self) -> None:
        self.sender.forget()
        self._head_known.clear()
        super()._connect()

    def _request_there(
        self,
        fields: tuple[PathField, ...],
        method: str,
        params: dict[str, Any],
        remote: Mapping[str, str | None],
        on_result: Callable[[Any], None] | None,
        on_error: Callable[[WorkerError], None] | None,
        latest: str | None,
    ) -> None:
        """Sends a request whose files the worker has, with its paths."""

        def deliver_error(error: WorkerError) -> None:
            text = str(error)
            for here, there in remote.items():
                text = text.replace(there or here, here)
            on_error(WorkerError(text, error.data))

        there = with_paths(fields, params, lambda _, path: remote[path] or path)
        super().request(method, there, on_result, deliver_error if on_error else None, latest)

    def _transfer(self, fields: tuple[PathField, ...], job: Job | None = None) -> Transfer:
        return Transfer(self.sender, self.fetcher, self._map, _report_to(job, self._arrived.put), fields)

    def _ask(self, method: str, params: dict[str, Any]) -> Callable[[], Any]:
        request = self.send(method, params)
        job: Job | None = getattr(self._in_this_thread, "job", None)
        if job is None:
            return lambda: self.answer_of(request, ANSWER_SECONDS)
        if self._in_this_thread.stopping:
            return lambda: self.answer_of(request, LAST_ANSWER_SECONDS)
        return lambda: self.answer_of(request, ANSWER_SECONDS, self._raise_if_stopped)

    def _raise_if_stopped(self) -> None:
        """Raises if this thread works for a job that is being cancelled or has ended."""
        job: Job | None = getattr(self._in_this_thread, "job", None)
        if job is not None and not self._in_this_thread.stopping:
            _raise_if_stopped(job)

    @staticmethod
    def _in_thread(work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="effigy-worker-files", daemon=True).start()


def _raise_if_stopped(job: Job) -> None:
    if job.state == STOPPING:
        raise _Stopped
    if job.state in (FAILED, CANCELLED):
        raise WorkerEnded("The job has ended.")


def _report_to(job: Job | None, put: Callable[[Callable[[], None]], None]) -> Callable[[str, int, int], None]:
    """A function that reports progress in bytes to a job, and raises `_Stopped` once the job is being cancelled."""
    if job is None:
        return lambda stage, done, total: None
    began: dict[str, tuple[float, int]] = {}
    reported = [0.0]

    def report(stage: str, done: int, total: int) -> None:
        _raise_if_stopped(job)
        now = time.monotonic()
        started, first = began.setdefault(stage, (now, done))
        if stage in began and now - reported[0] < REPORT_SECONDS and done < total:
            return
        reported[0] = now
        rate = (done - first) / (now - started) if now > started else 0.0
        eta = (total - done) / rate if rate else None
        progress = JobProgress(stage, round(done / 1e6), max(1, round(total / 1e6)), eta, unit="MB")
        put(lambda: job.on_event(progress))

    return report
