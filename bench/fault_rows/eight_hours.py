"""Eight hours of work in twenty minutes: memory stays flat, and no handle, thread, file or datablock is left."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench.fault_rows._blender import FILES, blender, copied_avatars, part, worker_pid
from bench.fault_rows._long_day import Day, datablocks, more_than, prepare, work
from bench.fault_rows.outcome import Outcome, Place

TITLE: Final = "eight hours in twenty minutes: 20,000 poses, 300 renders, 100 undo and redo, 50 file loads"
ASKED: Final = "memory of Blender and worker flat within 5 % after warm-up; no handle or thread left"
FULL: Final = 20_000
SHORT: Final = 48
NEEDS_BLENDER: Final = True

POSES: Final = 400
"""In a round of the whole campaign, which has 50 of them."""
LEAST_ROUNDS: Final = 6
WARM_UP: Final = 0.3
"""Share of the rounds after which whatever is kept for good is there."""
GROWTH: Final = 0.05
COPIES: Final = 10
"""Avatars, more than the worker keeps open."""
SHARED_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True)
class State:
    """What Blender and its worker hold after a round, in an empty file."""

    blender_mb: float
    worker_mb: float
    blender_handles: int
    worker_handles: int
    blender_threads: int
    worker_threads: int
    objects: int
    """Python's, in Blender."""
    handlers: int
    temporary: int
    """Files and folders in the temporary folders and in shared memory, without those that the row is asked to make."""
    own_files: int
    """In the extension's folder for the user."""


def run(place: Place, seed: int, count: int) -> Outcome:
    """`count` is the number of poses."""
    with blender(place.scratch):
        return _run(place, random.Random(seed), count)


def _run(place: Place, draw: random.Random, count: int) -> Outcome:
    import bpy

    outcome, rounds = Outcome(), max(LEAST_ROUNDS, count // POSES)
    poses = -(-count // rounds)
    bundled = copied_avatars(place.scratch / "avatars")["bundled"]
    # The worker opens each file as an avatar of its own.
    avatars = [Path(shutil.copy(bundled, bundled.with_name(f"head_{number}.effigy"))) for number in range(COPIES)]
    bpy.ops.effigy.choose_head(filepath=str(FILES / "small_head.npz"))
    capture = shutil.copytree(FILES / "person.capture", place.scratch / "person.capture")
    day = Day(place.scratch, avatars, capture, draw)
    prepare(day)
    grown, figures = _work_rounds(day, poses, rounds, outcome)
    if grown:
        # What is taken once and kept, such as an arena of the allocator, is no leak: the same rounds again tell.
        outcome.figures["again, because"] = "; ".join(grown)
        grown, figures = _work_rounds(day, poses, rounds, outcome, warm_up=0.0)
    outcome.failures += grown
    outcome.figures |= figures
    outcome.figures |= {name: str(number) for name, number in day.done.items()}
    return outcome


def _work_rounds(
    day: Day, poses: int, rounds: int, outcome: Outcome, warm_up: float = WARM_UP
) -> tuple[list[str], dict[str, str]]:
    """Work through the rounds, and return what grows in them after the warm-up, with the figures."""
    import bpy

    empty, states = None, []
    for number in range(rounds):
        started = time.monotonic()
        try:
            work(day, number, poses, renders=max(1, round(poses * 300 / FULL)), undos=max(1, round(poses * 100 / FULL)))
            failure = None
        except RuntimeError as error:
            failure = str(error)
        bpy.ops.wm.read_homefile(use_empty=True)
        empty = empty or datablocks()
        failure = failure or more_than(empty, datablocks()) or None
        outcome.record(f"round {number + 1}", failure)
        states.append(_state(day.folder))
        print(f"{number + 1}: {time.monotonic() - started:.1f} s, {failure}, {states[-1]}", file=sys.stderr, flush=True)
    return _growth(states[round(warm_up * rounds) :])


def _growth(states: list[State]) -> tuple[list[str], dict[str, str]]:
    """What grows from state to state, a line for each, and the figures."""
    grown, figures = [], {}
    for name, unit in (("blender_mb", " MB"), ("worker_mb", " MB"), ("objects", "")):
        values = [float(getattr(state, name)) for state in states]
        growth = _slope(values) * (len(values) - 1) / values[0]
        label = {"blender_mb": "Blender", "worker_mb": "worker", "objects": "Python's objects"}[name]
        figures[label] = f"{values[0]:.0f}{unit} → {values[-1]:.0f}{unit} ({100 * growth:+.1f} %)"
        if growth > GROWTH:
            grown.append(f"{label} grows: {', '.join(f'{value:.0f}' for value in values)}{unit}")
    for name in (
        "blender_handles",
        "worker_handles",
        "blender_threads",
        "worker_threads",
        "handlers",
        "temporary",
        "own_files",
    ):
        values = [getattr(state, name) for state in states]
        figures[name.replace("_", " ")] = f"{values[0]} → {values[-1]}"
        if min(values[len(values) // 2 :]) > max(values[: len(values) // 2]):
            grown.append(f"{name.replace('_', ' ')} are left: {values}")
    return grown, figures


def _slope(values: list[float]) -> float:
    """The median of the slopes between any two values (Theil 1950, Sen 1968), which outliers do not move."""
    return median((values[b] - values[a]) / (b - a) for a in range(len(values)) for b in range(a + 1, len(values)))


def _state(made: Path) -> State:
    import bpy

    client = part("worker.session").client()
    client.call("head.rig", {})
    while client.pump():
        pass
    for _ in range(2):
        gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    # Blender's own temporary folder lies in that of the system.
    folders = (Path(tempfile.gettempdir()), SHARED_MEMORY)
    pid = worker_pid()
    return State(
        _megabytes(os.getpid()),
        _megabytes(pid),
        _entries(f"/proc/{os.getpid()}/fd"),
        _entries(f"/proc/{pid}/fd"),
        threading.active_count(),
        _entries(f"/proc/{pid}/task"),
        len(gc.get_objects()),
        sum(
            len(handlers)
            for name in dir(bpy.app.handlers)
            if isinstance(handlers := getattr(bpy.app.handlers, name), list)
        ),
        sum(1 for folder in folders for path in folder.rglob("*") if not path.is_relative_to(made)),
        sum(1 for path in part("preferences").user_folder().rglob("*") if path.is_file()),
    )


def _entries(folder: Path | str) -> int:
    return sum(1 for _ in os.scandir(folder))


def _megabytes(pid: int | None) -> float:
    """Resident memory of a process without the pages of program files, whose number depends on other programs."""
    status = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return sum(int(line.split()[1]) for line in status if line.startswith(("RssAnon:", "RssShmem:"))) / 1e3
