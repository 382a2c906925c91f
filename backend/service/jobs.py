"""Long work, each in a process of its own, so that posing keeps its rate and a crash takes nothing else with it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import EffigyError
from .job_kinds import KINDS
from .parameters import Parameters
from .protocol import Channel

LAST_EVENTS = ("done", "failed", "cancelled")
CONSEQUENCES = {
    "import": "Nothing half-made is left; import again.",
    "track": "The capture is as it was; track again.",
    "train": "Its last checkpoint is kept: train again with resume.",
    "evaluate": "Evaluate again.",
    "render": "Render again.",
    "retarget": "Transfer the performance again.",
    "doctor": "The backend's packages may be damaged: install it again.",
}
"""What a process that died without a word leaves behind."""


class JobProcess:
    """A child process and its events."""

    def __init__(self, kind: str, commands: list[list[str]], params: dict[str, Any], channel: Channel) -> None:
        self.kind = kind
        order = {
            "kind": kind,
            "commands": commands,
            "params": params,
            "inline": channel.arrays.inline,
            "folders": channel.arrays.folders,
        }
        flags: dict[str, Any] = {}
        if os.name == "nt":
            flags["creationflags"] = subprocess.CREATE_NO_WINDOW | subprocess.BELOW_NORMAL_PRIORITY_CLASS
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "backend.service.job_process"],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                **flags,
            )
        except OSError as error:
            raise EffigyError(f"No process could be started ({error.strerror}): close other programs.") from error
        if hasattr(os, "setpriority"):
            # Posing, and Blender itself, come first.
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, 10)
        self._tell(order)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._tell({"cancel": True})

    def events(self) -> Iterator[dict[str, Any]]:
        """Until the process ends; the last is always one of LAST_EVENTS."""
        last = None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            last = event["event"]
            yield event
        code = self._process.wait()
        if last not in LAST_EVENTS:
            yield {
                "event": "failed",
                "message": f"The process of this job ended without a word ({_reason(code)}). "
                + CONSEQUENCES[self.kind],
            }

    def _tell(self, message: dict[str, Any]) -> None:
        # A child that has just ended is heard of through its events.
        with suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()


def _reason(code: int) -> str:
    if code == -9:
        return "it was killed, perhaps because memory ran out"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


class Jobs:
    """The worker's methods `job.start`, `job.cancel` and `doctor`; all are called by the reading thread."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._running: dict[str, tuple[JobProcess, Path]] = {}
        self._lock = threading.Lock()
        self._names = (f"job-{number}" for number in itertools.count(1))
        self._started: list[str] = []

    def start(self, parameters: Parameters) -> dict[str, Any]:
        """Start the process. Its events are passed on from `begin` on, so that the answer goes out before them."""
        parameters.known("kind", "params")
        kind = parameters.text("kind", choices=tuple(KINDS))
        given = parameters.group("params") if parameters.has("params") else Parameters({}, kind)
        given.of = kind
        order = KINDS[kind](given)
        name = next(self._names)
        with self._lock:
            if any(place == order.writes for _, place in self._running.values()):
                raise EffigyError(f"Another job is writing {order.writes}: wait for it or stop it, then start again.")
            self._running[name] = JobProcess(kind, order.commands, given.values, self._channel), order.writes
        self._started.append(name)
        return {"job": name}

    def begin(self) -> None:
        """Pass on the events of what was started."""
        while self._started:
            threading.Thread(target=self._pass_on, args=(self._started.pop(),), daemon=True).start()

    def cancel(self, parameters: Parameters) -> dict[str, Any]:
        """Ask a job to stop. One that has ended is none to stop, and that is no error: the two may cross."""
        parameters.known("job")
        with self._lock:
            running = self._running.get(parameters.text("job"))
        if running:
            running[0].stop()
        return {"stopping": running is not None}

    def examine(self, answer: Callable[[Callable[[], dict[str, Any]]], None]) -> None:
        """`doctor` in a process of its own, since what it tries may crash; `answer` gets a function that returns or
        raises."""

        def outcome(event: dict[str, Any]) -> dict[str, Any]:
            if event["event"] == "done":
                return event["result"]
            raise EffigyError(event["message"])

        def work() -> None:
            try:
                *_, last = JobProcess("doctor", [], {}, self._channel).events()
            except EffigyError as error:
                last = {"event": "failed", "message": str(error)}
            answer(lambda: outcome(last))

        threading.Thread(target=work, daemon=True).start()

    def _pass_on(self, name: str) -> None:
        process, _ = self._running[name]
        for event in process.events():
            kind = event.pop("event")
            if kind in LAST_EVENTS:
                with self._lock:
                    self._running.pop(name, None)
            self._channel.send({"jsonrpc": "2.0", "method": f"job.{kind}", "params": {"job": name} | event})
