"""Properties of a .blend that a stranger has changed: it is opened, looked at, used and saved in the real Blender.

Each try changes some properties of the rigs in tests/files_of_0_1/person.blend, saves the .blend and opens it in a
Blender with the extension (`_blend_tries`). The changed paths lead to a folder beside that of the .blend, which the row
may write to, so that whatever is written there is really written, and is found.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from .outcome import Outcome, Place

TITLE: Final = "properties of a .blend: paths, JSON, numbers, long texts, missing ones"
ASKED: Final = (
    "0 crashes, 0 tracebacks, 0 hangs over 30 s, each a sentence; nothing read or started without a click, nothing "
    "written outside the folder of the .blend"
)
FULL: Final = 60
SHORT: Final = 3
NEEDS_BLENDER: Final = True
LONGEST_TRY: Final = 300.0
"""Seconds after which a Blender is killed. A single step that hangs ends it sooner (`_blend_tries`)."""


def run(place: Place, seed: int, count: int) -> Outcome:
    from building.extension import build_extension

    outcome, results = Outcome(), place.scratch / "results.jsonl"
    package = build_extension(place.scratch / "package", environment=Path(sys.prefix))
    results.touch()
    while outcome.tried < count:
        ended = _try_from(outcome.tried, place, seed, count, package, results)
        rows = [json.loads(line) for line in results.read_text("utf-8").splitlines()]
        for row in rows[outcome.tried :]:
            outcome.record(row["changes"], row["failure"])
        if outcome.tried < count:
            # The try that has no result is the one at which Blender ended.
            with open(results, "a", encoding="utf-8") as file:
                file.write(json.dumps(_row(f"try {outcome.tried}", ended, 0.0)) + "\n")
            outcome.record(f"try {outcome.tried} (seed {seed})", ended)
    seconds = [json.loads(line)["seconds"] for line in results.read_text("utf-8").splitlines()]
    outcome.figures["longest step"] = f"{max(seconds, default=0):.1f} s"
    return outcome


def _row(changes: str, failure: str | None, seconds: float) -> dict[str, Any]:
    return {"changes": changes, "failure": failure, "seconds": seconds}


def _try_from(first: int, place: Place, seed: int, count: int, package: Path, results: Path) -> str:
    """Runs the tries from `first` on in one Blender; returns how it ended."""
    command = [sys.executable, "-m", "bench.fault_rows._blend_tries"]
    command += [str(place.scratch), str(seed), str(first), str(count), str(package)]
    with open(place.scratch / f"blender-{first}.log", "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        size, changed = results.stat().st_size, time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            if results.stat().st_size != size:
                size, changed = results.stat().st_size, time.monotonic()
            if time.monotonic() - changed > LONGEST_TRY:
                process.kill()
                process.wait()
                return f"it did not end within {LONGEST_TRY:.0f} s"
    tail = (place.scratch / f"blender-{first}.log").read_text("utf-8", "replace")[-600:]
    return f"Blender ended with code {process.returncode}: {tail}"
