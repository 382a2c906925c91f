"""One break is tried: its tests run in a process of their own, which is watched until it ends, fails or hangs.

The limits are processor seconds, which are the same on a machine that is busy with something else. Elapsed time only
ends what does nothing any more.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from .covering_tests import Workplace
    from .mutations import Mutation

SECONDS_TO_START: Final = 60.0
"""Processor seconds for Python, the imports and kernels that a change makes numba compile again, before a run counts as
hung."""
TIMES_LONGER: Final = 4.0
"""By how much more processor time than recorded the tests may take beyond that."""
IDLE_SECONDS: Final = 120.0
"""After so long without a processor second a run counts as hung: its processes wait for each other."""
SECONDS_BETWEEN_LOOKS: Final = 0.5


@dataclass(frozen=True)
class Break:
    """One mutation of one file, and the tests that could notice it, in the order in which they are run."""

    file: str
    mutation: Mutation
    text: str
    tests: tuple[str, ...]
    depending: int
    """How many tests depend on the line, with those beyond the budget."""
    seconds: float
    """Processor seconds of the tests without a change."""

    def difference(self, unchanged: str) -> list[str]:
        """The lines of a unified diff, without its header."""
        lines = difflib.unified_diff(unchanged.splitlines(), self.text.splitlines(), n=0, lineterm="")
        return list(lines)[3:]


@dataclass(frozen=True)
class Outcome:
    noticed: bool
    how: str
    seconds: float
    """Elapsed."""


class Interrupted(Exception):
    """The bench, or the tests of this break, were ended from outside; nothing is known about this break."""


class KeptOutcomes:
    """The outcomes of breaks that were tried before, one file for each, so that a bench that was ended goes on where it
    was.

    An outcome holds for the changed text, the tests that were run and the content of their files; the folder holds for
    one state of all other sources.
    """

    def __init__(self, workplace: Workplace) -> None:
        self._folder, self._tree = workplace.folder / "outcomes", workplace.tree
        self._folder.mkdir(exist_ok=True)

    def _place(self, change: Break) -> Path:
        digest = hashlib.sha256(f"{change.file}\0{change.text}\0".encode())
        for test in change.tests:
            digest.update(f"{test}\0".encode())
        for file in sorted({test.split("::")[0] for test in change.tests}):
            digest.update((self._tree / file).read_bytes())
        return self._folder / f"{digest.hexdigest()[:24]}.json"

    def find(self, change: Break) -> Outcome | None:
        try:
            return Outcome(**json.loads(self._place(change).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def keep(self, change: Break, outcome: Outcome) -> None:
        place = self._place(change)
        unfinished = place.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
        unfinished.write_text(json.dumps(asdict(outcome)), "utf-8")
        unfinished.replace(place)


def try_break(workplace: Workplace, change: Break, stop: threading.Event) -> Outcome:
    """Run the tests of a break until one fails. Raises `Interrupted` as soon as `stop` is set."""
    with tempfile.TemporaryDirectory(prefix="try-", dir=workplace.folder, ignore_cleanup_errors=True) as name:
        return _run_tests(workplace, change, Path(name), stop)


def _run_tests(workplace: Workplace, change: Break, folder: Path, stop: threading.Event) -> Outcome:
    # A change may spoil what is cached, so each gets a copy. numba knows a kernel by the time at which its file was
    # changed, which stays as it was: where the change may concern a kernel, all are compiled anew.
    compiled = re.search(r"numba|\bkernel\b", change.text) or change.file.startswith("backend/splatting/")
    ignored = shutil.ignore_patterns("numba", "splatting-*") if compiled else None
    shutil.copytree(workplace.caches, folder / "caches", ignore=ignored)
    (folder / "text.py").write_text(change.text, "utf-8")
    environment = workplace.environment(folder / "caches") | {
        "MUTANT_FILE": os.path.realpath(workplace.tree / change.file),
        "MUTANT_TEXT": str(folder / "text.py"),
        "TMPDIR": str(folder),
    }
    options = ("-x", "-q", "--no-header", "--tb=no", "-rfE", "-p", "no:cacheprovider")
    started = time.monotonic()
    with open(folder / "output.txt", "w+b") as output:
        process = subprocess.Popen(
            (workplace.python, "-m", "pytest", *options, *change.tests),
            cwd=workplace.tree,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ended = watch(process, SECONDS_TO_START + TIMES_LONGER * change.seconds, stop)
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    took = time.monotonic() - started
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    if process.returncode in (-signal.SIGTERM, -signal.SIGINT):
        # Whoever ends the bench may end its tests first, and a failure of theirs would say nothing about the break.
        raise Interrupted
    if not ended:
        return Outcome(True, "the tests hung", took)
    if process.returncode == 0:
        return Outcome(False, f"{len(change.tests)} of {change.depending} tests ran", took)
    return Outcome(True, failed[1] if failed else f"the tests ended with code {process.returncode}", took)


def watch(
    process: subprocess.Popen[bytes], limit: float, stop: threading.Event, idle_seconds: float = IDLE_SECONDS
) -> bool:
    """Wait for a process that leads a session; returns whether it ended on its own.

    It is ended, with all that it started, when it and its children have used more than `limit` processor seconds, less
    than one in the last `idle_seconds`, or when `stop` is set, which raises `Interrupted`.
    """
    family: set[psutil.Process] = {psutil.Process(process.pid)}
    used, moved = 0.0, time.monotonic()
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_BETWEEN_LOOKS)
                return True
            if stop.is_set():
                raise Interrupted
            family, now = _look(family)
            if now > limit:
                return False
            # The figure falls when a process ends that nothing has waited for.
            if abs(now - used) >= 1:
                used, moved = now, time.monotonic()
            elif time.monotonic() - moved > idle_seconds:
                return False
    finally:
        # A worker that a failed test left behind goes as well.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for member in family:
            with contextlib.suppress(psutil.Error):
                member.kill()
        process.wait()


def _look(family: set[psutil.Process]) -> tuple[set[psutil.Process], float]:
    """The processes with those that they have started since, and the processor seconds of all that still run and of
    those that these have waited for.
    """
    running, seconds = set(), 0.0
    for member in family:
        with contextlib.suppress(psutil.Error):
            running |= {member, *member.children(recursive=True)}
    for member in running:
        with contextlib.suppress(psutil.Error):
            times = member.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return running, seconds
