"""One worker process and the threads that talk to it. When the process is gone, so is the connection.

A starter thread starts the process and writes, so that neither a slow start nor a full pipe ever holds up Blender's
interface; a reader thread reads, and takes the arrays out of their files; a third passes the worker's log on. The end
of the worker's stdout is the end of the worker, and is noticed at once.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from .arrays import put_arrays, take_arrays

SECONDS_TO_LEAVE = 12.0
"""How long a worker that was told to end is waited for before it is killed: its jobs keep their checkpoints
meanwhile."""


class Connection:
    def __init__(
        self,
        command: Sequence[str],
        cwd: str | None,
        environment: Mapping[str, str] | None,
        on_message: Callable[[dict[str, Any]], None],
        on_end: Callable[[Connection, str], None],
        on_log: Callable[[str], None],
    ) -> None:
        """`on_message`, `on_end` (once, with a sentence) and `on_log` are called from this connection's threads."""
        self._command, self._cwd, self._environment = list(command), cwd, environment
        self._on_message, self._on_end, self._on_log = on_message, on_end, on_log
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._last_log: deque[str] = deque(maxlen=5)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_thread: threading.Thread | None = None
        self.folders: list[str] = []
        """Where the worker puts its arrays; removed when it ends, since a killed one cannot."""
        self._writer = threading.Thread(target=self._start_and_write, name="effigy-worker-writer", daemon=True)
        self._writer.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def send(self, message: dict[str, Any]) -> None:
        self._outbox.put(json.dumps(put_arrays(message), separators=(",", ":")).encode() + b"\n")

    def close(self, wait: bool) -> None:
        """End the worker by closing its stdin. With `wait`, until it and its jobs are gone."""
        self._outbox.put(None)
        if wait:
            self._writer.join(SECONDS_TO_LEAVE)
            if self._process is not None:
                try:
                    self._process.wait(SECONDS_TO_LEAVE)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._remove_folders()

    def kill(self) -> None:
        """For a worker that answers nothing any more; its jobs notice and stop."""
        if self._process:
            self._process.kill()

    def _start_and_write(self) -> None:
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=None if self._environment is None else dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                **_detached(),
            )
        except OSError as error:
            self._on_end(
                self,
                f"The worker could not be started with {self._command[0]} ({error.strerror or error}): "
                "look at the backend in Effigy's preferences.",
            )
            return
        self._log_thread = threading.Thread(target=self._pass_log_on, name="effigy-worker-log", daemon=True)
        self._log_thread.start()
        threading.Thread(target=self._read, name="effigy-worker-reader", daemon=True).start()
        _survive_broken_pipe()
        # A worker that is gone is told by the reader.
        with suppress(OSError, ValueError):
            while (line := self._outbox.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        with suppress(OSError, ValueError):
            self._process.stdin.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            try:
                message = take_arrays(json.loads(line))
            except (ValueError, KeyError, TypeError, OSError) as error:
                self._on_log(f"A message of the worker could not be read: {error}")
                continue
            self._on_message(message)
        code = self._process.wait()
        self._outbox.put(None)
        # Its last words may still be on their way; a job that outlives it for a moment holds the log open.
        self._log_thread.join(0.3)
        self._remove_folders()
        self._on_end(self, self._sentence(code))

    def _sentence(self, code: int) -> str:
        if code == 0:
            return "The worker has ended; the next request starts it again."
        why = {-9: "it was killed, perhaps because memory ran out", -11: "it crashed"}.get(
            code, f"signal {-code}" if code < 0 else f"exit code {code}"
        )
        said = next((line for line in reversed(self._last_log) if line.strip()), "")
        if missing := re.search(r"No module named '([\w.]+)'", said):
            return (
                f"The backend's Python lacks the package {missing[1]}, so the worker could not start: press Install "
                "Backend in Effigy's preferences, or point Use This Python at an interpreter that has its packages."
            )
        return f"The worker ended unexpectedly ({why}); the next request starts it again." + (
            f" Its log ends with: {said.strip()}" if said and code > 0 else ""
        )

    def _pass_log_on(self) -> None:
        for line in self._process.stderr:
            text = line.decode("utf-8", "replace").rstrip()
            self._last_log.append(text)
            self._on_log(text)

    def _remove_folders(self) -> None:
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)


def _survive_broken_pipe() -> None:
    """Have this thread's writes to a worker that is gone fail, as in any Python.

    Blender starts its Python without signal handlers, so there the signal SIGPIPE would end Blender itself. It is
    blocked in this thread only, and after the worker was started, which would inherit it.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})


def _detached() -> dict[str, Any]:
    """A Ctrl-C in the terminal of Blender is not the worker's business, and no console window opens on Windows."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
