"""One worker process and the threads that communicate with it. A connection ends with its process.

One thread starts the process and writes to it, so that neither a slow start nor a full pipe blocks Blender's interface.
A second thread reads the messages and their arrays, a third forwards the worker's log. The end of the worker's stdout
means that the worker has ended, and is noticed at once. However a thread ends, `on_end` is called with a sentence: no
connection stays that nobody reads.
"""

from __future__ import annotations

import json
import queue
import re
import signal
import subprocess
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from .. import child_process
from .array_folders import ArrayFolders
from .arrays import put_arrays
from .messages import Answer, JobNotification, NoMessage, read_message, shown

SSH_FAILED: Final = 255
"""The exit code of `ssh` if it could not connect, or lost the connection. Other codes are those of the worker."""
LONGEST_MESSAGE: Final = 8 << 30
"""Bytes. The largest picture, of 16384 x 16384 pixels with alpha and depth, takes 7.2 GB in a message. A worker that
sends more without an end is ended, because it would fill this machine's memory."""
LONGEST_MESSAGE_WITHOUT_ARRAYS: Final = 1 << 28
"""The same for a worker whose arrays are in files."""
MAX_ODD_LINES: Final = 1000
"""Lines in a row that are no messages; a login banner has less. A program that prints more is no worker."""
LONGEST_LOG_LINE: Final = 1 << 16
"""Bytes; a longer line of the log is shown as several."""
EXIT_TIMEOUT: Final = 12.0
"""Seconds that a worker gets to end after it was asked to, before it is killed. In this time its jobs save their
checkpoints."""


class Connection:
    def __init__(
        self,
        command: Sequence[str],
        cwd: str | None,
        environment: Mapping[str, str] | None,
        on_message: Callable[[Answer | JobNotification], None],
        on_end: Callable[[Connection, str], None],
        on_log: Callable[[str], None],
        shares_files: bool = True,
    ) -> None:
        """Starts the process. `on_message`, `on_end` (once, with a sentence) and `on_log` (with a line) are called from
        this connection's threads. `environment` None: that of this process. `shares_files`: whether the worker's
        arrays are in files; those of a worker on another machine are in the messages, and a message that names a
        file of this machine is refused. Raises an `EffigyError` if there is no place for these files.
        """
        self.folders = ArrayFolders() if shares_files else None
        """For the worker's arrays; removed here, because a killed worker cannot."""
        self._command, self._cwd, self._environment = list(command), cwd, environment
        self._on_message, self._on_end, self._on_log = on_message, on_end, on_log
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._last_log: deque[str] = deque(maxlen=5)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_thread: threading.Thread | None = None
        self._reason: str | None = None
        """Why this side has ended the worker, as a sentence."""
        self._writer = threading.Thread(target=self._start_and_write, name="effigy-worker-writer", daemon=True)
        self._writer.start()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def may_do_better(self, greeted: bool) -> bool:
        """Whether the next process may answer what this one, which has ended, did not. `greeted`: it had answered at
        all. One that could not start, or that sent nonsense, would do so the next time as well.
        """
        was_killed = self._process is not None and (self._process.poll() or 0) < 0
        return (greeted or was_killed) and self._reason is None

    def send(self, number: int, method: str, params: Mapping[str, Any]) -> None:
        """Queues a request; never blocks. Raises a TypeError, ValueError or RecursionError for parameters that no
        message can hold, such as a number that is not finite.
        """
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        plain = put_arrays(message)
        try:
            line = json.dumps(plain, separators=(",", ":"), allow_nan=False)
        except ValueError as error:
            raise ValueError("one of its numbers is not finite") from error
        self._outbox.put(line.encode() + b"\n")

    def close(self, wait: bool) -> None:
        """Ends the worker by closing its stdin. With `wait`, returns when it and its jobs have ended."""
        self._outbox.put(None)
        if wait:
            self._writer.join(EXIT_TIMEOUT)
            if self._process is not None:
                try:
                    self._process.wait(EXIT_TIMEOUT)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
            self._remove_folders()

    def kill(self) -> None:
        """Ends a worker that no longer answers. Its jobs notice that and stop."""
        if self._process:
            self._process.kill()
        # Closes the pipe, so that a worker which a shell has started ends as well.
        self._outbox.put(None)

    def _start_and_write(self) -> None:
        try:
            self._process = child_process.start(self._command, self._cwd, self._environment)
        except OSError as error:
            self._not_started(error.strerror or str(error))
            return
        except Exception as error:
            # A command with a character that no command may contain, for instance.
            self._not_started(str(error))
            return
        self._log_thread = threading.Thread(target=self._forward_log, name="effigy-worker-log", daemon=True)
        self._log_thread.start()
        threading.Thread(target=self._read, name="effigy-worker-reader", daemon=True).start()
        _block_sigpipe()
        # The end of the worker is reported by the reader thread.
        with suppress(OSError, ValueError):
            while (line := self._outbox.get()) is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()
        with suppress(OSError, ValueError):
            self._process.stdin.close()

    def _not_started(self, reason: str) -> None:
        self._remove_folders()
        self._on_end(
            self,
            f"The worker could not be started with {self._command[0]} ({reason}): "
            "check the backend in Effigy's preferences.",
        )

    def _read(self) -> None:
        """The reader thread. However it ends, the worker has then ended and `on_end` is called."""
        try:
            self._read_messages()
        except Exception as error:
            self._reason = (
                f"The worker was ended because of a defect in Effigy ({type(error).__name__}: {error}), of which the "
                "console has details. The next request starts it again."
            )
            traceback.print_exc()
        if self._reason:
            self._process.kill()
        code = self._wait()
        self._outbox.put(None)
        # The end of the log may still be in the pipe, and a job that outlives the worker for a moment keeps it open.
        self._log_thread.join(0.3)
        self._remove_folders()
        self._on_end(self, self._reason or self._end_message(code))

    def _read_messages(self) -> None:
        """Until the worker's stdout ends, or for a reason that ends the worker."""
        odd_lines = 0
        longest = LONGEST_MESSAGE_WITHOUT_ARRAYS if self.folders else LONGEST_MESSAGE
        while line := self._process.stdout.readline(longest):
            if len(line) == longest and not line.endswith(b"\n"):
                self._reason = (
                    "The worker was ended because it sent a message without an end: check that the Worker Command in "
                    "Effigy's preferences starts the backend of this version."
                )
                return
            try:
                message = read_message(line, self.folders)
                odd_lines = 0
            except NoMessage as problem:
                self._on_log(f"A line of the worker that is no message was left out ({problem}): {shown(line)}")
                if problem.number is None:
                    odd_lines += 1
                    if odd_lines < MAX_ODD_LINES:
                        continue
                    self._reason = (
                        f"The worker was ended because it sent {odd_lines} lines that are no messages: check that the "
                        "Worker Command in Effigy's preferences starts the backend and prints nothing else."
                    )
                    return
                message = Answer(problem.number, error=f"The worker's answer could not be read ({problem}): try again.")
            if message is not None:
                self._on_message(message)

    def _wait(self) -> int:
        """The exit code of a worker whose stdout has ended."""
        try:
            return self._process.wait(EXIT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _end_message(self, code: int) -> str:
        """Why the worker ended, for the user. `code`: exit code, negative for a signal."""
        if code == 0:
            return "The worker has ended; the next request starts it again."
        last_line = next((line for line in reversed(self._last_log) if line.strip()), "")
        if code == SSH_FAILED and Path(self._command[0]).stem.lower() == "ssh":
            reason = f" ({last_line.strip()})" if last_line else ""
            return (
                f"The connection to the worker's machine was lost or could not be made{reason}: check the network and "
                "the Worker Command in Effigy's preferences. The next request connects again."
            )
        if missing := re.search(r"No module named '([\w.]+)'", last_line):
            return (
                f"The backend's Python lacks the package {missing[1]}, so the worker could not start: press Install "
                "Backend in Effigy's preferences, or point Use This Python at an interpreter that has its packages."
            )
        return (
            f"The worker ended unexpectedly ({child_process.describe_exit(code)}); the next request starts it again."
            + (f" Its log ends with: {last_line.strip()}" if last_line and code > 0 else "")
        )

    def _forward_log(self) -> None:
        while line := self._process.stderr.readline(LONGEST_LOG_LINE):
            text = line.decode("utf-8", "replace").rstrip()
            self._last_log.append(text)
            self._on_log(text)

    def _remove_folders(self) -> None:
        if self.folders:
            self.folders.remove()


def _block_sigpipe() -> None:
    """Makes writing to an ended worker raise an error in this thread, as in any other Python.

    Blender starts its Python without signal handlers, so the signal SIGPIPE would end Blender itself. It is blocked
    only in this thread, and after the worker was started, which would inherit the blocked signal.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
