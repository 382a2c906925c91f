"""Runs inside Blender's window for `bench.responsiveness`: idle, an import, a training, each watched."""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "docs" / "pictures")]
import window as w
from viewport_screen import PACKAGE, effigy, end_with

ORDER = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text("utf-8"))
FOLDER = Path(ORDER["folder"])
LOOK = 0.004
"""Seconds between two looks of the timer, at best."""
IDLE_SECONDS = 5.0

looks: list[float] = []
calls: list[tuple[float, float, float, str]] = []
"""(begun at, seconds, seconds on the processor, name) of each call of ours that no other one contains."""
_depth = 0


def watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def timed(*arguments: Any) -> Any:
        global _depth
        begun, begun_cpu, _depth = time.perf_counter(), time.thread_time(), _depth + 1
        try:
            return function(*arguments)
        finally:
            _depth -= 1
            if not _depth:
                calls.append((begun, time.perf_counter() - begun, time.thread_time() - begun_cpu, name))

    return timed


def watch() -> None:
    """Time what Blender calls of ours: timers, panels, the status bar."""
    for module, name in (("worker.session", "_pump"), ("tasks", "_advance_all"), ("panels.status_bar", "_redraw")):
        owner = effigy(module)
        timer = getattr(owner, name)
        setattr(owner, name, watched(timer, name))
        if bpy.app.timers.is_registered(timer):
            bpy.app.timers.unregister(timer)
            bpy.app.timers.register(getattr(owner, name), persistent=True)
    for panel in bpy.types.Panel.__subclasses__():
        if panel.__module__.startswith(PACKAGE) and panel.is_registered and "draw" in vars(panel):
            panel.draw = _with_two(watched(panel.draw, panel.__name__))
    drawn = bpy.types.STATUSBAR_HT_header.draw._draw_funcs
    drawn[:] = [watched(draw, "status bar") if draw.__module__.startswith(PACKAGE) else draw for draw in drawn]


def _with_two(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    # Blender counts the parameters of what it calls.
    return lambda self, context: function(self, context)  # noqa: PLW0108


def look() -> float:
    looks.append(time.perf_counter())
    return LOOK


def figures() -> dict[str, Any]:
    """Of what was seen since the last time."""
    times = np.array(looks)
    gaps = np.diff(times)
    ours, ours_cpu = np.zeros(len(gaps)), np.zeros(len(gaps))
    for begun, seconds, processor, _ in calls:
        index = min(max(int(np.searchsorted(times, begun)) - 1, 0), len(gaps) - 1)
        ours[index] += seconds
        ours_cpu[index] += processor
    longest = max(calls, key=lambda call: call[1], default=(0, 0.0, 0.0, "none"))
    worst = int(gaps.argmax())
    before = max((call for call in calls if call[0] < times[worst]), key=lambda call: call[0], default=longest)
    told = {"gap": gaps.max(), "gap_99": np.percentile(gaps, 99), "ours": ours.max(), "ours_cpu": ours_cpu.max()}
    forget()
    return {name: float(value) for name, value in told.items()} | {
        "longest": f"{longest[3]} {1e3 * longest[1]:.1f} ms",
        "before": f"{before[3]} {times[worst] - before[0]:.2f} s before",
    }


def forget() -> None:
    looks.clear()
    calls.clear()


def walk() -> Iterator[float]:
    bpy.ops.wm.read_homefile(use_empty=True)
    yield 1.0
    bpy.ops.wm.save_as_mainfile(filepath=str(FOLDER / "shot.blend"))
    yield from w.open_tab("Effigy")
    watch()
    bpy.app.timers.register(look, persistent=True)
    found = {}
    yield IDLE_SECONDS
    found["idle"] = figures()
    with w.context():
        clip = Path(importlib.import_module(PACKAGE).__file__).parent / "assets" / "demo.mp4"
        bpy.ops.effigy.import_video(
            "EXEC_DEFAULT", filepath=str(clip), last=ORDER["frames"], size=256, capture=str(FOLDER / "demo.capture")
        )
    yield from ended()
    yield 0.5
    found["import"] = figures()
    print(json.dumps(found, indent=1), flush=True)
    settings = bpy.context.view_layer.objects.active.effigy
    settings.minutes, settings.size = ORDER["minutes"], 128
    yield 1.0
    forget()
    with w.context():
        bpy.ops.effigy.train_avatar("EXEC_DEFAULT")
    yield from ended()
    found["training"] = figures()
    Path(ORDER["result"]).write_text(json.dumps(found), "utf-8")


def ended() -> Iterator[float]:
    task = effigy("tasks").all_tasks()[-1]
    while not task.finished:
        yield 0.2
    if task.state != "done":
        raise RuntimeError(task.said)


bpy.context.preferences.view.show_splash = False
bpy.ops.extensions.package_install_files(filepath=ORDER["package"], repo="user_default", enable_on_install=True)
end_with(walk())
