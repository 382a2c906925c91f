"""The worker's jobs: each runs in a process of its own, so that posing keeps its rate and a crash ends only the job."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from .. import child_process
from ..errors import EffigyError
from ..storage import is_same_path
from .job_messages import CANCEL, DONE, FAILED, LAST_EVENTS, JobEvent, JobOrder
from .job_specs import JOB_REQUESTS, read_job
from .messages import NoMessage, lines_of, shown
from .parameters import Parameters
from .protocol import Channel

AFTER_A_CRASH: Final = {
    "import": "Nothing half-made is left; import again.",
    "capture": "Nothing half-made is left; make the capture again.",
    "track": "The capture is as it was; track again.",
    "train": "Its last checkpoint is kept: train again with resume.",
    "refine": "The capture is as it was; refine the track again.",
    "light": "The capture is as it was; find the light again.",
    "bake": "The avatar is as it was; bake it again.",
    "evaluate": "Evaluate again.",
    "render": "Render again.",
    "retarget": "Transfer the performance again.",
    "speak": "Make the lip sync again.",
    "live": "Start Live again.",
    "doctor": "The backend's packages may be damaged: install it again.",
}
"""Kind of a job -> what a process leaves that ended without its last event, and what to do."""

IN_REAL_TIME: Final = ("live",)
"""Kinds of jobs whose process does not wait for others."""


class JobProcess:
    """A child process that carries out one job (`backend.service.job_process`), and the events that it reports."""

    def __init__(
        self,
        kind: str,
        params: dict[str, Any],
        channel: Channel | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`channel` leads to the client, which gets the job's previews. Without a channel there are no previews, and
        Ctrl-C in the terminal does not reach the job. `environment`: variables beside those of this process.
        """
        self.kind = kind
        # On Windows, a program without a console gets no Ctrl-C either.
        own_session = {"start_new_session": True} if channel is None and os.name == "posix" else {}
        try:
            self._process = child_process.start(
                [sys.executable, "-m", "backend.service.job_process"],
                cwd=Path(__file__).resolve().parents[2],
                environment=os.environ | dict(environment or {}),
                low_priority=kind not in IN_REAL_TIME,
                **own_session,
            )
        except OSError as error:
            raise EffigyError(f"No process could be started ({error.strerror}): close other programs.") from error
        inline, folders = (channel.arrays.inline, channel.arrays.folders) if channel else (False, [])
        self._send(JobOrder(kind, params, inline, folders, previews=channel is not None).to_message())

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._send(CANCEL)

    def events(self) -> Iterator[JobEvent]:
        """Until the process ends; the last event is always one of LAST_EVENTS."""
        sentence = None
        try:
            for line in lines_of(_pipe(self._process.stdout)):
                try:
                    event = JobEvent.from_line(line)
                except NoMessage as problem:
                    report = f"A line of the job's process was left out ({problem}): {shown(line)}"
                    print(report, file=sys.stderr, flush=True)
                    continue
                yield event
                if event.name in LAST_EVENTS:
                    break
            else:
                sentence = (
                    f"The job's process ended unexpectedly ({child_process.describe_exit(self._process.wait())})."
                )
        except Exception as error:
            # A job whose events nobody reads must not go on working and writing.
            traceback.print_exc()
            self._process.kill()
            sentence = f"The job was ended because of a defect in Effigy ({type(error).__name__}: {error})."
        if sentence:
            yield JobEvent.with_sentence(FAILED, f"{sentence} {AFTER_A_CRASH[self.kind]}")
        # What a job prints after its last event is read to the end, so that its process can end.
        for _ in lines_of(_pipe(self._process.stdout)):
            pass
        self._process.wait()

    def _send(self, message: dict[str, Any]) -> None:
        stdin = _pipe(self._process.stdin)
        # A child that has just ended cannot read; its end shows in `events`.
        with suppress(OSError, ValueError):
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise TypeError("The process was started without this pipe.")
    return stream


@dataclass(frozen=True)
class _RunningJob:
    process: JobProcess
    output: Path | None
    """The file or folder that the job writes, if it writes one."""


class Jobs:
    """The worker's methods `job.start`, `job.cancel` and `doctor`; the reading thread calls all of them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._running: dict[str, _RunningJob] = {}
        self._lock = threading.Lock()
        self._names = (f"job-{number}" for number in itertools.count(1))
        self._not_forwarded: list[str] = []
        """Jobs that were started and whose events are not passed on yet."""

    def start(self, parameters: Parameters) -> dict[str, Any]:
        """Start a job's process. Its events are passed on from `forward_events` on, so that this method's answer is
        sent before them.
        """
        parameters.allow_only("kind", "params")
        kind = parameters.text("kind", choices=tuple(JOB_REQUESTS))
        params = parameters.group("params").values if parameters.has("params") else {}
        output = read_job(kind, params).output
        name = next(self._names)
        with self._lock:
            others = [job.output for job in self._running.values() if job.output is not None]
            if output is not None and any(is_same_path(other, output) for other in others):
                raise EffigyError(f"Another job is writing {output}: wait for it or stop it, then start again.")
            self._running[name] = _RunningJob(JobProcess(kind, params, self._channel), output)
        self._not_forwarded.append(name)
        return {"job": name}

    def forward_events(self) -> None:
        """Begin to pass on the events of the jobs that were started."""
        while self._not_forwarded:
            name = self._not_forwarded.pop()
            threading.Thread(target=self._forward_events_of, args=(name,), daemon=True).start()

    def cancel(self, parameters: Parameters) -> dict[str, Any]:
        """Ask a job to stop. A job that has ended already is no error: its last event and this request may cross."""
        parameters.allow_only("job")
        with self._lock:
            running = self._running.get(parameters.text("job"))
        if running:
            running.process.stop()
        return {"stopping": running is not None}

    def examine(self, answer: Callable[[Callable[[], dict[str, Any]]], object]) -> None:
        """`doctor`, in a process of its own, because its checks may crash. `answer` is called from another thread with
        a function that returns the result or raises.
        """

        def result_of(event: JobEvent) -> dict[str, Any]:
            if event.name == DONE:
                return event.fields["result"]
            raise EffigyError(event.fields["message"])

        def work() -> None:
            try:
                *_, last = JobProcess("doctor", {}, self._channel).events()
            except EffigyError as error:
                last = JobEvent.with_sentence(FAILED, str(error))
            answer(lambda: result_of(last))

        threading.Thread(target=work, daemon=True).start()

    def _forward_events_of(self, name: str) -> None:
        running = self._running[name]
        try:
            for event in running.process.events():
                if event.name in LAST_EVENTS:
                    self._forget(name)
                self._send(name, event)
        except Exception as error:
            traceback.print_exc()
            running.process.stop()
            self._forget(name)
            sentence = f"The job's end is unknown because of a defect in Effigy ({type(error).__name__}: {error})."
            self._send(name, JobEvent.with_sentence(FAILED, sentence))

    def _forget(self, name: str) -> None:
        with self._lock:
            self._running.pop(name, None)

    def _send(self, name: str, event: JobEvent) -> None:
        self._channel.send({"jsonrpc": "2.0", "method": f"job.{event.name}", "params": event.fields | {"job": name}})
