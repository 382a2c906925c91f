"""The checks of `python3 build.py check`: format, lint, types, import rules and import cycles.

Each check is one program of the environment `.venv-check`. All of them run, also after one has failed, two at a time.
A check that passes prints one line; a check that fails prints what its program says.
"""

from __future__ import annotations

import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from .environments import BACKEND, CHECK, ROOT


@dataclass(frozen=True)
class Check:
    """One program and what its success means."""

    passes: str
    """The line that is printed when the check passes."""
    command: tuple[str, ...]
    required: bool = True
    """Whether the code is wrong if it fails. What is not required has to pass before a release."""

    def run(self) -> tuple[int, str, float]:
        """Exit code, output, and the seconds that the check took."""
        started = time.monotonic()
        ended = subprocess.run(
            self.command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONUTF8": "1", "NO_COLOR": "1"},
        )
        return ended.returncode, ended.stdout, time.monotonic() - started


def _program(name: str) -> str:
    return str(CHECK.python.with_name(f"{name}.exe" if os.name == "nt" else name))


CHECKS: Final = (
    Check("formatted as by `ruff format`", (_program("ruff"), "format", "--check", ".")),
    Check("no findings of `ruff check`", (_program("ruff"), "check", "--output-format", "concise", ".")),
    Check(
        "no type errors in the backend and the build",
        (_program("basedpyright"), "--project", "pyproject.toml", "--pythonpath", str(BACKEND.python)),
    ),
    Check(
        "no type errors in the extension",
        (_program("basedpyright"), "--project", "blender_addon/pyrightconfig.json", "--pythonpath", str(CHECK.python)),
    ),
    Check("imports keep to the contracts", (str(CHECK.python), "-m", "building.import_graph", "contracts")),
    Check("no import cycles", (str(CHECK.python), "-m", "building.import_graph", "cycles")),
    Check("docs/images/rooms.svg shows the imports", (str(CHECK.python), "-m", "building.import_graph", "picture")),
    Check(
        "the guide's pictures show the current panels", (str(CHECK.python), "-m", "building.pictures"), required=False
    ),
)


def run_checks(checks: tuple[Check, ...] = CHECKS) -> int:
    """Run all checks and print one line for each; returns the exit code of the first that failed, else 0."""
    first_failure = 0
    with ThreadPoolExecutor(max_workers=2) as pool:
        for check, (code, output, seconds) in zip(checks, pool.map(Check.run, checks), strict=True):
            if code and not check.required:
                print(f"  note:   {output.rstrip()}", flush=True)
            elif code:
                print(f"  FAILED: {check.passes} ({seconds:.0f} s)\n{output.rstrip()}", flush=True)
                first_failure = first_failure or code
            else:
                print(f"  passed: {check.passes} ({seconds:.0f} s)", flush=True)
    return first_failure
