"""The part of `bench.viewport` that runs in a real Blender: redraws a second, and what playing an action shows.

The empty view is measured in turns with the avatar's, in the same window, and by the clock as well as by the
processors' time: what else the machine does then counts against both, or not at all. The screen's pixels are held
against the CPU rasteriser's.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import bpy
import numpy as np
from mathutils import Quaternion

ORDER = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text("utf-8"))
PACKAGE = "bl_ext.user_default.effigy"
REDRAWS, PLAYED = 8, 8.0


def effigy(path: str) -> object:
    return importlib.import_module(f"{PACKAGE}.blender_addon.{path}")


def window() -> bpy.types.Window:
    return bpy.context.window_manager.windows[0]


def view() -> tuple[bpy.types.Area, bpy.types.Region]:
    area = next(area for area in window().screen.areas if area.type == "VIEW_3D")
    return area, next(region for region in area.regions if region.type == "WINDOW")


def cost(turning: bool) -> np.ndarray:
    """(2,) seconds of a redraw of the whole window: by the clock, and of the processors (drawing is done there)."""
    area, region = view()
    seen = area.spaces.active.region_3d
    with bpy.context.temp_override(window=window(), area=area, region=region):
        bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=2)
        started = time.perf_counter(), time.process_time()
        if not turning:
            bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=REDRAWS)
        for number in range(REDRAWS if turning else 0):
            seen.view_rotation = seen.view_rotation @ Quaternion((0, 1, 0), 0.02 if number % 2 else -0.02)
            bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=1)
        return np.subtract((time.perf_counter(), time.process_time()), started) / REDRAWS


def shares(mesh: bpy.types.Object, turning: bool) -> tuple[np.ndarray, float]:
    """(2,) the avatar's redraw rate over the empty view's, by clock and by processors; the latter a second."""
    costs: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for _ in range(3):
        for hidden in (True, False):
            mesh.hide_set(hidden)
            costs[hidden].append(cost(turning))
    empty, shown = np.array(costs[True]), np.array(costs[False])
    return np.median(empty / shown, 0), 1 / float(np.median(empty[:, 0]))


def steps() -> Iterator[float]:
    figures = {}
    area, _ = view()
    seen = area.spaces.active.region_3d
    for count, avatar in ORDER["avatars"].items():
        bpy.ops.wm.read_homefile(use_empty=True)
        yield 0.7
        area, region = view()
        seen = area.spaces.active.region_3d
        with bpy.context.temp_override(window=window(), area=area, region=region):
            bpy.ops.effigy.add_avatar("EXEC_DEFAULT", filepath=avatar, new_rig=True)
        yield from until(lambda: any(o.type == "ARMATURE" and o.effigy.avatar for o in bpy.data.objects))
        seen.view_rotation, seen.view_location = Quaternion((0.5**0.5, 0.5**0.5, 0, 0)), (0, 0, 0)
        seen.view_distance, seen.view_perspective = 0.75, "PERSP"
        live = effigy("viewport.live")
        yield from until(lambda: any(actor.fresh for actor in live._actors.values()))
        yield 1.0
        mesh = next(o for o in bpy.data.objects if o.type == "MESH")
        bpy.ops.object.select_all(action="DESELECT")
        still, empty = shares(mesh, False)
        turning, _ = shares(mesh, True)
        mesh.hide_set(False)
        row = {"empty_redraws_per_s": empty, "still_share": still[0], "turning_share": turning[0],
               "still_share_of_processors": still[1], "turning_share_of_processors": turning[1]}
        seen.view_perspective = "PERSP"
        row["perspective_difference"] = yield from difference(mesh, avatar)
        seen.view_perspective = "ORTHO"
        row["orthographic_difference"] = yield from difference(mesh, avatar)
        seen.view_perspective = "PERSP"
        yield from played(mesh, live, row)
        figures[count] = row
        print(count, row, flush=True)
    Path(ORDER["result"]).write_text(json.dumps(figures), "utf-8")


def difference(mesh: bpy.types.Object, avatar: str) -> Iterator[float]:
    """The screen's pixels against the CPU rasteriser's picture of the same view over the empty view: the mean absolute
    difference inside the head, in levels of 255."""
    area, region = view()
    space = area.spaces.active
    overlay, armature = space.overlay, mesh.parent
    live, draw = effigy("viewport.live"), effigy("viewport.draw")
    for name in ("show_floor", "show_axis_x", "show_axis_y", "show_cursor", "show_text", "show_bones", "show_extras"):
        setattr(overlay, name, False)
    space.shading.show_object_outline = False
    # Everything is drawn once it stands still.
    yield from until(lambda: all(actor.fresh for actor in live._actors.values()))
    yield 1.0
    yield from until(lambda: all(actor.asked is actor.shown for actor in live._actors.values()))
    with bpy.context.temp_override(window=window(), area=area, region=region):
        lens = draw.lens_of(bpy.context)
        depsgraph = bpy.context.evaluated_depsgraph_get()
    fx, fy, cx, cy = lens.pixels()
    conventions, pose = effigy("rig.conventions"), effigy("rig.pose")
    camera = {
        "world_to_camera": conventions.world_to_camera(np.linalg.inv(lens.view)), "orthographic": bool(lens.orthographic),
        "intrinsics": np.array(((fx, 0, cx), (0, fy, lens.height - cy), (0, 0, 1))), "width": lens.width,
        "height": lens.height}
    subject = {"avatar": Path(avatar), "pose": pose.read_pose(effigy("rig.marks").find_rig(armature), depsgraph)}
    truth = effigy("worker.session").client().call(
        "avatar.render", {"subjects": [subject], "camera": camera, "enhanced": False}, timeout=120)
    ours = screen()
    mesh.hide_set(True)
    empty = screen()
    mesh.hide_set(False)
    expected = np.clip(truth["color"] + (1 - truth["alpha"][..., None]) * empty, 0, 1)
    inside = truth["alpha"] > 0.02
    return 255 * float(np.abs(ours - expected)[inside].mean())


def screen() -> np.ndarray:
    """(H, W, 3) the 3D View as it is on the screen, top row first, [0, 1]."""
    import gpu

    area, region = view()
    taken: list[np.ndarray] = []

    def take() -> None:
        left, low, width, height = gpu.state.viewport_get()
        buffer = gpu.state.active_framebuffer_get().read_color(left, low, width, height, 4, 0, "FLOAT")
        taken.append(np.array(buffer.to_list(), np.float32).reshape(height, width, 4)[::-1, :, :3])

    handle = bpy.types.SpaceView3D.draw_handler_add(take, (), "WINDOW", "POST_PIXEL")
    with bpy.context.temp_override(window=window(), area=area, region=region):
        bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=1)
    bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")
    return taken[-1]


def played(mesh: bpy.types.Object, live: object, row: dict) -> Iterator[float]:
    """Play a talking jaw; how old the pose is that a redraw shows, once it is on the screen."""
    key = mesh.data.shape_keys.key_blocks["jawOpen"]
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 240
    for frame in range(1, 241, 6):
        key.value = 0.5 + 0.5 * np.sin(frame)
        key.keyframe_insert("value", frame=frame)
    latencies, shown, frames = [], set(), set()

    def after() -> None:
        frames.add(scene.frame_current)
        for actor in live._actors.values():
            if actor.shown is None or not scene.frame_current:
                continue
            if actor.shown.seen_at not in shown:
                shown.add(actor.shown.seen_at)
                latencies.append(1e3 * (time.perf_counter() - actor.shown.seen_at))
            if actor.fresh:
                fresh.add(scene.frame_current)

    fresh: set[int] = set()
    handle = bpy.types.SpaceView3D.draw_handler_add(after, (), "WINDOW", "POST_PIXEL")
    area, region = view()
    before = resident()
    started = time.perf_counter()
    with bpy.context.temp_override(window=window(), area=area, region=region):
        bpy.ops.screen.animation_play()
    yield PLAYED
    with bpy.context.temp_override(window=window(), area=area, region=region):
        bpy.ops.screen.animation_cancel(restore_frame=False)
    seconds = time.perf_counter() - started
    bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")
    row |= {"played_frames_per_s": len(frames) / seconds, "latency_p50_ms": float(np.median(latencies or [np.nan])),
            "latency_p95_ms": float(np.percentile(latencies or [np.nan], 95)),
            "fresh_share": len(fresh) / max(1, len(frames))}
    if ORDER["frames"]:
        with bpy.context.temp_override(window=window(), area=area, region=region):
            for number in range(ORDER["frames"]):
                if number == 100:
                    # What is kept for good is there by now.
                    before = resident()
                scene.frame_set(1 + number % 240)
                bpy.ops.wm.redraw_timer(type="DRAW_WIN", iterations=1)
                effigy("worker.session").client().pump()
        row["leaked_megabytes"] = resident() - before


def resident() -> float:
    """MB of memory in use, on Linux."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def until(done: object, seconds: float = 120.0) -> Iterator[float]:
    last = time.monotonic() + seconds
    while not done() and time.monotonic() < last:
        yield 0.2


def start() -> None:
    bpy.context.preferences.view.show_splash = False
    bpy.ops.extensions.package_install_files(filepath=ORDER["package"], repo="user_default", enable_on_install=True)
    walk = steps()

    def take_on() -> float | None:
        try:
            return next(walk)
        except StopIteration:
            pass
        except BaseException:
            traceback.print_exc()
        bpy.ops.wm.quit_blender()
        return None

    bpy.app.timers.register(take_on, first_interval=1.0, persistent=True)


start()
