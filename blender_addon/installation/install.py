"""An installation under way: the plan's programs one after the other in a thread, told, logged and stoppable.

    installation = Installation(plan, log_file)
    installation.start()
    … installation.state, .stage, .share, .said …            # as often as a panel is drawn
    installation.cancel()

What is half-made when it fails or is stopped is removed, so that nothing half-made is ever taken for a backend; trying
again is a new `Installation`, and pip has kept what it had downloaded."""

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
from typing import Final

from .place import write_stamp
from .plan import Plan, Step

WAITING, RUNNING, STOPPING, DONE, FAILED, CANCELLED = "waiting", "running", "stopping", "done", "failed", "cancelled"
SHOWN_LINES: Final = 200
NOT_FOR_ANOTHER_PYTHON: Final = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONSAFEPATH",
    "PYTHONUSERBASE",
    "VIRTUAL_ENV",
    "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__",
)
"""What a program that hosts Python sets for itself; a child of another Python must not inherit it."""


class Installation:
    def __init__(self, plan: Plan, log_file: Path, on_end: Callable[[Installation], None] | None = None) -> None:
        """`on_end` is called from the installation's thread."""
        self.plan, self.log_file = plan, log_file
        self.state = WAITING
        self.stage = ""
        self.detail = ""
        """The package being worked on."""
        self.share = 0.0
        """How much is done, 0 to 1."""
        self.error: str | None = None
        """The sentence of a failed or stopped one."""
        self.lines: deque[str] = deque(maxlen=SHOWN_LINES)
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
        """Ask it to stop; `state` says when it has."""
        with self._lock:
            if not self.finished:
                self.state = STOPPING
                _end(self._process)

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
            ended, self.share = DONE, 1.0
        except _Stopped:
            ended, self.error = CANCELLED, "The installation was stopped; nothing half-made is left."
        except _Failed as error:
            ended, self.error = FAILED, str(error)
        except OSError as error:
            ended, self.error = (
                FAILED,
                f"The backend could not be installed in {self.plan.folder}: {error.strerror or error}.",
            )
        if ended != DONE:
            shutil.rmtree(self.plan.folder, ignore_errors=True)
        with self._lock:
            self.state, self.detail = ended, ""
        if self._on_end:
            self._on_end(self)

    def _run(self, step: Step, number: int, log) -> None:
        if self.state == STOPPING:
            raise _Stopped
        self.stage, self.detail = step.title, ""
        start, width = number / len(self.plan.steps), 1 / len(self.plan.steps)
        self.share, seen = start, 0
        said: list[str] = []
        environment = {name: value for name, value in os.environ.items() if name not in NOT_FOR_ANOTHER_PYTHON}
        environment["PYTHONUNBUFFERED"] = "1"
        log.write(f"\n$ {' '.join(step.command)}\n")
        with self._lock:
            try:
                # The backend is run from the extension's folder, where it lies.
                self._process = subprocess.Popen(
                    step.command,
                    cwd=self.plan.requirements.parent,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    **_own_group(),
                )
            except OSError as error:
                raise _Failed(
                    f"{step.title} failed: {step.command[0]} could not be started ({error.strerror or error})."
                ) from error
        with self._process as process:
            for line in process.stdout:
                log.write(line)
                log.flush()
                said.append(line.rstrip())
                self.lines.append(line.rstrip())
                if name := _package_of(line):
                    self.detail, seen = name, seen + 1
                    # Downloading is most of the time; unpacking moves the bar no more.
                    self.share = start + width * 0.9 * min(1.0, seen / max(step.packages, 1))
                elif line.startswith("Installing collected packages"):
                    self.detail = f"unpacking {line.count(',') + 1} packages"
        if self.state == STOPPING:
            raise _Stopped
        if process.returncode and not step.optional:
            raise _Failed(why_failed(step, said))
        if process.returncode:
            self.lines.append(f"{step.title} failed; the backend works without it, on the CPU.")


class _Stopped(Exception):
    """The user asked."""


class _Failed(Exception):
    """A sentence."""


def why_failed(step: Step, said: list[str]) -> str:
    """What a program's output means to somebody who has never seen pip."""
    text = "\n".join(said)
    if re.search(r"No space left on device|Errno 28|WinError 112", text):
        return "The disk is full. Free some space, then install again."
    if re.search(r"Permission denied|Errno 13|WinError 5\b", text):
        return (
            "A file could not be written: the folder is read-only for you, or another program (an antivirus) "
            "holds the file."
        )
    if re.search(r"SSLError|CERTIFICATE_VERIFY_FAILED", text):
        return (
            "The connection could not be made safely (certificates): check the date of this computer, or your "
            "company's proxy."
        )
    if re.search(
        r"ConnectionError|NewConnectionError|ReadTimeout|name resolution|getaddrinfo|ProxyError|Failed to establish|"
        r"Network is unreachable|Max retries|ConnectionReset|IncompleteRead",
        text,
    ):
        return (
            "The package index could not be reached: check the network connection, then install again. What was "
            "downloaded is kept."
        )
    if "THESE PACKAGES DO NOT MATCH THE HASHES" in text:
        return (
            "A downloaded package is not the one that Effigy was made with (its hash differs), so nothing was "
            "installed."
        )
    if "ensurepip" in text:
        return (
            "This Python cannot make environments: on Debian and Ubuntu install python3-venv, or use the "
            "Blender of blender.org, then install again."
        )
    if "No matching distribution" in text or "from versions: none" in text:
        return (
            "Some package has no build for this system or this version of Python: see the log, and the supported "
            "systems in the guide."
        )
    last = next((line for line in reversed(said) if line.strip()), "no reason was given")
    return f"{step.title} failed: {last.removeprefix('ERROR: ')}"


def _package_of(line: str) -> str | None:
    match = re.match(r"(?:Collecting|Processing) (?:\S*/)?([\w.]+)", line)
    return match[1] if match else None


def _own_group() -> dict[str, object]:
    """So that a stopped pip takes along whatever it has started."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _end(process: subprocess.Popen[str] | None) -> None:
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
