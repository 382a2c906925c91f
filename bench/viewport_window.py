"""The part of `bench.viewport` that runs in a real Blender window: redraws per second, and latency during playback.

The empty view and the view with the avatar are measured alternately in the same window, by wall-clock time and by CPU
time, so that other load on the machine affects both or neither. The screen's pixels are compared with the CPU
rasteriser's.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from mathutils import Quaternion

sys.path.insert(0, str(Path(__file__).parent))
from viewport_screen import difference, effigy, end_with, in_view, plain, redraw, resident, until, view

ORDER = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text("utf-8"))
REDRAWS, PLAYED = 8, 8.0
WARMED = 250
"""Frames before memory is measured."""


def cost(turning: bool) -> np.ndarray:
    """(2,) seconds per redraw of the whole window: wall-clock time and CPU time (software drawing runs on the CPU)."""
    seen = view()[0].spaces.active.region_3d
    redraw(2)
    started = time.perf_counter(), time.process_time()
    if not turning:
        redraw(REDRAWS)
    for number in range(REDRAWS if turning else 0):
        seen.view_rotation = seen.view_rotation @ Quaternion((0, 1, 0), 0.02 if number % 2 else -0.02)
        redraw()
    return np.subtract((time.perf_counter(), time.process_time()), started) / REDRAWS


def shares(mesh: bpy.types.Object, turning: bool) -> tuple[np.ndarray, float]:
    """The redraw rate with the avatar relative to the empty view (2,), by wall-clock and by CPU time, and the empty
    view's redraws per second.
    """
    costs: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for _ in range(3):
        for hidden in (True, False):
            mesh.hide_set(hidden)
            costs[hidden].append(cost(turning))
    empty, shown = np.array(costs[True]), np.array(costs[False])
    return np.median(empty / shown, 0), 1 / float(np.median(empty[:, 0]))


def steps() -> Iterator[float]:
    figures = {}
    for count, avatar in ORDER["avatars"].items():
        bpy.ops.wm.read_homefile(use_empty=True)
        yield 0.7
        seen = view()[0].spaces.active.region_3d
        with in_view():
            bpy.ops.effigy.add_avatar("EXEC_DEFAULT", filepath=avatar, new_rig=True)
        yield from until(lambda: any(o.type == "ARMATURE" and o.effigy.avatar for o in bpy.data.objects))
        seen.view_rotation, seen.view_location = Quaternion((0.5**0.5, 0.5**0.5, 0, 0)), (0, 0, 0)
        seen.view_distance, seen.view_perspective = 0.75, "PERSP"
        live = effigy("viewport.live")
        yield from until(lambda: any(avatar.fresh for avatar in live.state.avatars.values()))
        yield 1.0
        mesh = next(o for o in bpy.data.objects if o.type == "MESH")
        bpy.ops.object.select_all(action="DESELECT")
        still, empty = shares(mesh, False)
        turning, _ = shares(mesh, True)
        mesh.hide_set(False)
        row = {
            "empty_redraws_per_s": empty,
            "still_share": still[0],
            "turning_share": turning[0],
            "still_share_of_processors": still[1],
            "turning_share_of_processors": turning[1],
        }
        plain()
        rig = effigy("rig.rig_properties").find_rig(mesh.parent)
        for kind, name in (("ORTHO", "orthographic"), ("PERSP", "perspective")):
            seen.view_perspective = kind
            row[f"{name}_difference"] = difference([rig], [avatar])
        yield from played(mesh, live, row)
        figures[count] = row
        print(count, row, flush=True)
    Path(ORDER["result"]).write_text(json.dumps(figures), "utf-8")


def played(mesh: bpy.types.Object, live: object, row: dict) -> Iterator[float]:
    """Plays a moving jaw and measures the age of the pose that each redraw shows, when it is on the screen."""
    key = mesh.data.shape_keys.key_blocks["jawOpen"]
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 240
    for frame in range(1, 241, 6):
        key.value = 0.5 + 0.5 * np.sin(frame)
        key.keyframe_insert("value", frame=frame)
    latencies, frames = [], set()
    shown = {avatar.shown.pose_changed_at for avatar in live.state.avatars.values() if avatar.shown}

    def after() -> None:
        frames.add(scene.frame_current)
        for avatar in live.state.avatars.values():
            if avatar.shown is None or not scene.frame_current:
                continue
            if avatar.shown.pose_changed_at not in shown:
                shown.add(avatar.shown.pose_changed_at)
                latencies.append(1e3 * (time.perf_counter() - avatar.shown.pose_changed_at))
            if avatar.fresh:
                fresh.add(scene.frame_current)

    fresh: set[int] = set()
    handle = bpy.types.SpaceView3D.draw_handler_add(after, (), "WINDOW", "POST_PIXEL")
    started = time.perf_counter()
    with in_view():
        bpy.ops.screen.animation_play()
    yield PLAYED
    with in_view():
        bpy.ops.screen.animation_cancel(restore_frame=False)
    seconds = time.perf_counter() - started
    bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")
    row |= {
        "played_frames_per_s": len(frames) / seconds,
        "latency_p50_ms": float(np.median(latencies or [np.nan])),
        "latency_p95_ms": float(np.percentile(latencies or [np.nan], 95)),
        "fresh_share": len(fresh) / max(1, len(frames)),
    }
    if ORDER["frames"]:
        sizes = []
        for number in range(ORDER["frames"] + WARMED + 1):
            # Memory that is kept permanently is allocated by the first measurement.
            if number >= WARMED and (number - WARMED) % 500 == 0:
                sizes.append(resident())
                print(f"frame {number}: {sizes[-1]:.1f} MB", flush=True)
            scene.frame_set(1 + number % 240)
            redraw()
            effigy("worker.session").client().pump()
        row["leaked_megabytes"] = sizes[-1] - sizes[0]


def start() -> None:
    bpy.context.preferences.view.show_splash = False
    bpy.ops.extensions.package_install_files(filepath=ORDER["package"], repo="user_default", enable_on_install=True)
    end_with(steps())


start()
