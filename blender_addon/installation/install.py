"""Runs an installation plan: its commands one after the other in a thread, with progress, a log and cancellation.

    installation = Installation(plan, log_file)
    installation.start()
    … installation.state, .stage, .share, .detail …          # read whenever a panel is drawn
    installation.cancel()

The new environment is made beside the one that is used, and takes its place when its check has passed (`place`). An
installation that fails, is cancelled or is killed leaves the used environment as it was. To try again, make a new plan
and a new `Installation`; pip keeps the packages that it has already downloaded.
"""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import threading
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TextIO

from .. import child_process
from ..child_environment import environment_for_another_python
from ..errors import EffigyError
from .failures import DISK_FULL, OTHER_FILE, explain_failure
from .place import write_stamp
from .plan import Plan, Step

WAITING, RUNNING, STOPPING, DONE, FAILED, CANCELLED = "waiting", "running", "stopping", "done", "failed", "cancelled"
MAX_LINES: Final = 200
"""Lines of the log that are kept in memory for the panel."""
_DOWNLOAD_SHARE: Final = 0.9
"""Share of a step's progress bar that downloading takes. Unpacking comes after it and reports no progress."""
_FULL: Final = 2_000_000
"""Bytes of free space below which a disk counts as full."""
_PIP_VARIABLES: Final = frozenset(
    {"PIP_PREFIX", "PIP_ROOT", "PIP_DRY_RUN", "PIP_REQUIRE_HASHES", "PIP_CONSTRAINT", "PIP_PYTHON"}
)
"""Settings of the user's pip with which packages would not get into the new environment, or other ones would. Those for
an index, a proxy and certificates count."""
_LEAST_WEIGHT: Final = 0.02
"""Share of the whole progress bar of a step that downloads nothing."""


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
        self.notes: list[str] = []
        """After a success: what the check said, and optional steps that failed, as sentences."""
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
                child_process.end_with_children(self._process)

    def wait(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            if self.plan.refusal:
                raise EffigyError(self.plan.refusal)
            with self.plan.environments.locked():
                self._install()
            final_state, self.share = DONE, 1.0
        except _Stopped:
            final_state = CANCELLED
            self.error = f"The installation was stopped, and its incomplete files were removed. {self._what_remains()}"
        except EffigyError as error:
            final_state, self.error = FAILED, f"{error} {self._what_remains()}".strip()
        except OSError as error:
            final_state = FAILED
            sentence = (
                f"The backend could not be installed in {self.plan.environments.root} ({error.strerror or error}): "
                "check that you may write there."
            )
            self.error = f"{DISK_FULL if error.errno == errno.ENOSPC else sentence} {self._what_remains()}".strip()
        except Exception as error:
            # Without an end, the interface would say for ever that the backend is being installed.
            traceback.print_exc()
            final_state = FAILED
            self.error = (
                f"The installation failed because of a defect in Effigy ({type(error).__name__}: {error}); Blender's "
                "console has the details."
            )
        with self._lock:
            self.state, self.detail = final_state, ""
        if self._on_end:
            self._on_end(self)

    def _install(self) -> None:
        """Makes the environment and has it used. Whatever ends it early, the new environment is removed."""
        plan = self.plan
        # Before the disk is looked at: a killed installation may have left gigabytes.
        plan.environments.remove_unused()
        if shortage := plan.shortage:
            raise EffigyError(shortage)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        plan.folder.mkdir()
        complete = False
        try:
            plan.environments.temporary.mkdir(exist_ok=True)
            with self.log_file.open("w", encoding="utf-8", errors="backslashreplace") as log:
                start, weights = 0.0, _weights(plan.steps)
                for step, weight in zip(plan.steps, weights, strict=True):
                    self._run(step, start, weight, log)
                    start += weight
            write_stamp(plan.folder, plan.requirements, plan.torch)
            self._raise_if_stopped()
            plan.environments.use(plan.folder)
            complete = True
        finally:
            if not complete:
                shutil.rmtree(plan.folder, ignore_errors=True)
                shutil.rmtree(plan.environments.temporary, ignore_errors=True)
        shutil.rmtree(plan.environments.downloads, ignore_errors=True)
        plan.environments.remove_unused()

    def _run(self, step: Step, start: float, weight: float, log: TextIO) -> None:
        """Runs one step, which takes the progress bar from `start` to `start + weight`."""
        self._raise_if_stopped()
        self.stage, self.detail, self.share = step.title, "", start
        log.write(f"\n$ {' '.join(step.command)}\n")
        process = self._start(step)
        output: list[str] = []
        package, finished, size = "", 0, 0
        is_full = False
        with process:
            assert process.stdout is not None
            for line in process.stdout:
                # pip takes a failed write for a broken connection, and deletes its files before it ends.
                is_full = is_full or shutil.disk_usage(self.plan.environments.root).free < _FULL
                if progress := re.match(r"Progress (\d+) of (\d+)", line):
                    done, size = int(progress[1]), int(progress[2])
                    self.detail = f"{package}, {done / 1e6:.0f} of {size / 1e6:.0f} MB"
                    if step.download:
                        self.share = start + weight * _DOWNLOAD_SHARE * min(1.0, (finished + done) / step.download)
                    continue
                log.write(line)
                log.flush()
                output.append(line.rstrip())
                self.lines.append(line.rstrip())
                if name := _package_of(line):
                    package, finished, size = name, finished + size, 0
                    self.detail = package
                elif line.startswith("WARNING: Retrying"):
                    self.detail = "no answer, trying again"
                elif line.startswith("Installing collected packages"):
                    self.detail = f"unpacking {line.count(',') + 1} packages"
        self._raise_if_stopped()
        if process.returncode and not step.optional:
            sentence = DISK_FULL if is_full else explain_failure(step, output, process.returncode)
            if sentence in (DISK_FULL, OTHER_FILE):
                # pip has kept the wrong or incomplete file, and would take it again.
                shutil.rmtree(self.plan.environments.downloads, ignore_errors=True)
            raise EffigyError(sentence)
        if process.returncode:
            self.notes.append(f"{step.title} failed; the backend works without it.")
        elif found := _finding_of_check(output):
            self.notes.append(found)

    def _start(self, step: Step) -> subprocess.Popen[str]:
        """Starts a step's command. The pipe to its stdin ends it when this process ends (`run_module`)."""
        temporary = str(self.plan.environments.temporary)
        # Packages are unpacked on the disk whose free space was looked at.
        folders = {"TMPDIR": temporary, "TEMP": temporary, "TMP": temporary}
        environment = environment_for_another_python()
        variables = {name: value for name, value in environment.items() if name.upper() not in _PIP_VARIABLES}
        with self._lock:
            # `cancel` ends the process that it finds, so none may start after it.
            self._raise_if_stopped()
            try:
                # `python -m backend` needs the extension's folder as its working directory.
                self._process = child_process.start(
                    step.command,
                    self.plan.requirements.parent,
                    variables | folders | {"PYTHONUNBUFFERED": "1"},
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            except OSError as error:
                raise EffigyError(
                    f"{step.title} failed: {step.command[0]} could not be started ({error.strerror or error}). If an "
                    "antivirus has quarantined it, allow it there, then install again."
                ) from error
            return self._process

    def _raise_if_stopped(self) -> None:
        if self.state == STOPPING:
            raise _Stopped

    def _what_remains(self) -> str:
        """That the environment which was installed before still works, if there is one."""
        return "The backend that was installed before still works." if self.plan.environments.python() else ""


class _Stopped(Exception):
    """The user has cancelled the installation."""


def _weights(steps: tuple[Step, ...]) -> list[float]:
    """Each step's share of the progress bar: by its download, but `_LEAST_WEIGHT` at least."""
    total = max(1, sum(step.download for step in steps))
    raw = [max(_LEAST_WEIGHT, step.download / total) for step in steps]
    return [weight / sum(raw) for weight in raw]


def _finding_of_check(output: list[str]) -> str:
    """What `backend doctor --check` says about training, in its last row: the device, and why it was chosen. The row
    may continue in further lines. Empty if this is the output of another command.
    """
    start = next((place for place, line in enumerate(output) if re.match(r"Training\s+\w+\s", line)), len(output))
    text = " ".join(line.strip() for line in output[start:])
    return re.sub(r"^Training\s+\w+\s+", "", text).strip()


def _package_of(line: str) -> str | None:
    """The package that a line of pip's output begins with, or None."""
    match = re.match(r"(?:Collecting|Processing) (?:\S*/)?([\w.]+(?:-[A-Za-z_][\w.]*)*)", line)
    return match[1] if match else None
