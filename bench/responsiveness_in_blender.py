"""Runs inside Blender's window for `bench.responsiveness` and measures while it is idle, imports and trains."""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "docs" / "pictures")]
import window as w
from viewport_screen import PACKAGE, effigy, end_with

ORDER = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text("utf-8"))
FOLDER = Path(ORDER["folder"])
TICK = 0.004
"""Seconds between two ticks of the timer, at best."""
IDLE_SECONDS = 5.0


@dataclass(frozen=True)
class Call:
    """One call of Effigy by Blender that is not made inside another one."""

    begin: float
    """`time.perf_counter()` seconds."""
    seconds: float
    cpu_seconds: float
    name: str


NO_CALL = Call(0.0, 0.0, 0.0, "none")


@dataclass
class Recording:
    ticks: list[float] = field(default_factory=list)
    """`time.perf_counter()` seconds of the timer's ticks."""
    calls: list[Call] = field(default_factory=list)
    depth: int = 0
    """Number of Effigy's calls that are running now, one inside the other."""

    def clear(self) -> None:
        self.ticks.clear()
        self.calls.clear()


recording = Recording()


def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, which adds its outermost calls to the recording."""

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        begin, begin_cpu = time.perf_counter(), time.thread_time()
        recording.depth += 1
        try:
            return function(*arguments)
        finally:
            recording.depth -= 1
            if not recording.depth:
                seconds, cpu_seconds = time.perf_counter() - begin, time.thread_time() - begin_cpu
                recording.calls.append(Call(begin, seconds, cpu_seconds, name))

    return call


def time_calls() -> None:
    """Time Effigy's functions that Blender calls: timers, panels, the status bar."""
    for module, name in (("worker.session", "_pump"), ("tasks", "_advance_all"), ("panels.status_bar", "_redraw")):
        owner = effigy(module)
        timer = getattr(owner, name)
        setattr(owner, name, timed(timer, name))
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
            bpy.app.timers.register(getattr(owner, name), persistent=True)
    for panel in bpy.types.Panel.__subclasses__():
        if panel.__module__.startswith(PACKAGE) and panel.is_registered and "draw" in vars(panel):
            panel.draw = _with_two_parameters(timed(panel.draw, panel.__name__))
    functions = bpy.types.STATUSBAR_HT_header.draw._draw_funcs
    functions[:] = [timed(each, "status bar") if each.__module__.startswith(PACKAGE) else each for each in functions]


def _with_two_parameters(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    # Blender checks the number of parameters of a panel's `draw`.
    return lambda self, context: function(self, context)  # noqa: PLW0108


def tick() -> float:
    recording.ticks.append(time.perf_counter())
    return TICK


def figures() -> dict[str, Any]:
    """The figures of the recording, which is then cleared."""
    times = np.array(recording.ticks)
    gaps = np.diff(times)
    ours, ours_cpu = np.zeros(len(gaps)), np.zeros(len(gaps))
    for call in recording.calls:
        index = min(max(int(np.searchsorted(times, call.begin)) - 1, 0), len(gaps) - 1)
        ours[index] += call.seconds
        ours_cpu[index] += call.cpu_seconds
    longest = max(recording.calls, key=lambda call: call.seconds, default=NO_CALL)
    gap_begin = times[int(gaps.argmax())]
    before = max(
        (call for call in recording.calls if call.begin < gap_begin), key=lambda call: call.begin, default=longest
    )
    values = {"gap": gaps.max(), "gap_99": np.percentile(gaps, 99), "ours": ours.max(), "ours_cpu": ours_cpu.max()}
    recording.clear()
    return {name: float(value) for name, value in values.items()} | {
        "longest": f"{longest.name} {1e3 * longest.seconds:.1f} ms",
        "before": f"{before.name} {gap_begin - before.begin:.2f} s before",
    }


def measure() -> Iterator[float]:
    """The steps of the measurement; each yields the seconds to wait before the next."""
    bpy.ops.wm.read_homefile(use_empty=True)
    yield 1.0
    bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "shot.blend"))
    yield from w.open_tab("Effigy")
    time_calls()
    bpy.app.timers.register(tick, persistent=True)
    phases = {}
    yield IDLE_SECONDS
    phases["idle"] = figures()
    with w.context():
        clip = Path(importlib.import_module(PACKAGE).__file__).parent / "assets" / "demo.mp4"
        bpy.ops.effigy.import_video(
            "EXEC_DEFAULT", filepath=str(clip), last=ORDER["frames"], size=256, capture=str(FOLDER / "demo.capture")
        )
    yield from wait_for_task()
    yield 0.5
    phases["import"] = figures()
    print(json.dumps(phases, indent=1), flush=True)
    settings = bpy.context.view_layer.objects.active.effigy
    settings.minutes, settings.size = ORDER["minutes"], 128
    yield 1.0
    recording.clear()
    with w.context():
        bpy.ops.effigy.train_avatar("EXEC_DEFAULT")
    yield from wait_for_task()
    phases["training"] = figures()
    Path(ORDER["result"]).write_text(json.dumps(phases), "utf-8")


def wait_for_task() -> Iterator[float]:
    task = effigy("tasks").all_tasks()[-1]
    while not task.finished:
        yield 0.2
    if task.state != "done":
        raise RuntimeError(task.message)


bpy.context.preferences.view.show_splash = False
bpy.ops.extensions.package_install_files(filepath=ORDER["package"], repo="user_default", enable_on_install=True)
end_with(measure())
