"""Runs an installation plan: its commands one after the other in a thread, with progress, a log and cancellation.

    installation = Installation(plan, log_file)
    installation.start()
    … installation.state, .stage, .share, .detail …          # read whenever a panel is drawn
    installation.cancel()

When the installation fails or is cancelled, the incomplete environment is removed, so that it is never used as a
backend. To try again, make a new `Installation`; pip keeps the packages that it has already downloaded.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

from ..child_environment import environment_for_another_python
from .place import write_stamp
from .plan import Plan, Step

WAITING, RUNNING, STOPPING, DONE, FAILED, CANCELLED = "waiting", "running", "stopping", "done", "failed", "cancelled"
MAX_LINES: Final = 200
"""Lines of the log that are kept in memory for the panel."""
_DOWNLOAD_SHARE: Final = 0.9
"""Share of a step's progress bar that downloading takes. Unpacking comes after it and reports no progress."""


class Installation:
    """One run of a plan. The attributes are written by the installation's thread and may be read from any thread."""

    def __init__(self, plan: Plan, log_file: Path, on_end: Callable[[Installation], None] | None = None) -> None:
        """`on_end` is called from the installation's thread."""
        self.plan, self.log_file = plan, log_file
        self.state = WAITING
        self.stage = ""
        self.detail = ""
        """The package that is being downloaded or unpacked."""
        self.share = 0.0
        """Progress from 0 to 1."""
        self.error: str | None = None
        """Why it failed, or that it was cancelled, as a sentence."""
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        """The end of the log."""
        self._on_end = on_end
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="effigy-installation", daemon=True)

    @property
    def finished(self) -> bool:
        return self.state in (DONE, FAILED, CANCELLED)

    def start(self) -> None:
        self.state = RUNNING
        self._thread.start()

    def cancel(self) -> None:
        """Asks the thread to stop. `state` becomes CANCELLED when it has."""
        with self._lock:
            if not self.finished:
                self.state = STOPPING
                _terminate(self._process)

    def wait(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            if shortage := self.plan.shortage:
                raise _Failed(shortage)
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("w", encoding="utf-8") as log:
                for number, step in enumerate(self.plan.steps):
                    self._run(step, number, log)
            write_stamp(self.plan.folder, self.plan.requirements, self.plan.torch)
            final_state, self.share = DONE, 1.0
        except _Stopped:
            final_state = CANCELLED
            self.error = "The installation was stopped, and its incomplete files were removed."
        except _Failed as error:
            final_state, self.error = FAILED, str(error)
        except OSError as error:
            final_state = FAILED
            self.error = f"The backend could not be installed in {self.plan.folder}: {error.strerror or error}."
        if final_state != DONE:
            shutil.rmtree(self.plan.folder, ignore_errors=True)
        with self._lock:
            self.state, self.detail = final_state, ""
        if self._on_end:
            self._on_end(self)

    def _run(self, step: Step, number: int, log: TextIO) -> None:
        if self.state == STOPPING:
            raise _Stopped
        self.stage, self.detail = step.title, ""
        start, width = number / len(self.plan.steps), 1 / len(self.plan.steps)
        self.share, package_count = start, 0
        output: list[str] = []
        environment = environment_for_another_python() | {"PYTHONUNBUFFERED": "1"}
        log.write(f"\n$ {' '.join(step.command)}\n")
        with self._lock:
            try:
                # `python -m backend` needs the extension's folder as its working directory.
                self._process = subprocess.Popen(
                    step.command,
                    cwd=self.plan.requirements.parent,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    **_process_group(),
                )
            except OSError as error:
                raise _Failed(
                    f"{step.title} failed: {step.command[0]} could not be started ({error.strerror or error})."
                ) from error
        with self._process as process:
            for line in process.stdout:
                log.write(line)
                log.flush()
                output.append(line.rstrip())
                self.lines.append(line.rstrip())
                if name := _package_of(line):
                    self.detail, package_count = name, package_count + 1
                    self.share = start + width * _DOWNLOAD_SHARE * min(1.0, package_count / max(step.packages, 1))
                elif line.startswith("Installing collected packages"):
                    self.detail = f"unpacking {line.count(',') + 1} packages"
        if self.state == STOPPING:
            raise _Stopped
        if process.returncode and not step.optional:
            raise _Failed(explain_failure(step, output))
        if process.returncode:
            self.lines.append(f"{step.title} failed. The backend works without it, on the CPU.")


class _Stopped(Exception):
    """The user has cancelled the installation."""


class _Failed(Exception):
    """The installation cannot go on. The message is a sentence for the user."""


def explain_failure(step: Step, output: list[str]) -> str:
    """The cause of a failed step as a sentence for a user who does not know pip, from the lines of its output."""
    text = "\n".join(output)
    if re.search(r"No space left on device|Errno 28|WinError 112", text):
        return "The disk is full. Free some space, then install again."
    if re.search(r"Permission denied|Errno 13|WinError 5\b", text):
        return (
            "A file could not be written: the folder is read-only, or another program, such as an antivirus, is using "
            "the file."
        )
    if re.search(r"SSLError|CERTIFICATE_VERIFY_FAILED", text):
        return "No secure connection could be made (certificates): check this computer's date and your company's proxy."
    if re.search(
        r"ConnectionError|NewConnectionError|ReadTimeout|name resolution|getaddrinfo|ProxyError|Failed to establish|"
        r"Network is unreachable|Max retries|ConnectionReset|IncompleteRead",
        text,
    ):
        return (
            "The package index could not be reached: check the network connection, then install again. Packages that "
            "were already downloaded are kept."
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in text:
        return (
            "A downloaded package is not the one that Effigy was tested with (its hash differs), so nothing was "
            "installed."
        )
    if "ensurepip" in text:
        return (
            "Blender's Python cannot make virtual environments: on Debian and Ubuntu install python3-venv, or use "
            "Blender from blender.org, then install again."
        )
    if "No matching distribution" in text or "from versions: none" in text:
        return (
            "A package is not available for this system or this version of Python: see the log, and the supported "
            "versions in the guide."
        )
    last = next((line for line in reversed(output) if line.strip()), "no reason was given")
    return f"{step.title} failed: {last.removeprefix('ERROR: ')}"


def _package_of(line: str) -> str | None:
    """The package that a line of pip's output begins with, or None."""
    match = re.match(r"(?:Collecting|Processing) (?:\S*/)?([\w.]+)", line)
    return match[1] if match else None


def _process_group() -> dict[str, Any]:
    """`Popen` arguments that put the process into a group of its own, so that cancelling also ends pip's children."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _terminate(process: subprocess.Popen[str] | None) -> None:
    if process is None or process.poll() is not None:
        return
    with suppress(OSError):
        if os.name == "nt":
            subprocess.run(
                ["taskkill", "/T", "/F", "/PID", str(process.pid)],
                capture_output=True,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
        else:
            os.killpg(process.pid, signal.SIGTERM)
