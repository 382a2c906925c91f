"""A 3D View in a real window as the benches see it: its pixels, and what the CPU rasteriser makes of the same view.

Imported by scripts that run inside Blender (`viewport_window`, `viewport_checks_in_blender`, `responsiveness_in_blender`).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import bpy
import numpy as np

PACKAGE = "bl_ext.user_default.effigy"
PLAIN = (
    "show_floor",
    "show_axis_x",
    "show_axis_y",
    "show_cursor",
    "show_text",
    "show_bones",
    "show_extras",
    "show_relationship_lines",
    "show_outline_selected",
)
"""Overlays that would be counted as differences."""


def effigy(path: str) -> object:
    return importlib.import_module(f"{PACKAGE}.blender_addon.{path}")


def window() -> bpy.types.Window:
    return bpy.context.window_manager.windows[0]


def view() -> tuple[bpy.types.Area, bpy.types.Region]:
    area = next(area for area in window().screen.areas if area.type == "VIEW_3D")
    return area, next(region for region in area.regions if region.type == "WINDOW")


def in_view() -> object:
    area, region = view()
    return bpy.context.temp_override(window=window(), area=area, region=region)


def redraw(times: int = 1) -> None:
    with in_view():
        bpy.ops.wm.redraw_timer(type="DRAW_WIN_SWAP", iterations=times)


def plain() -> None:
    """Nothing over the scene but the avatars."""
    space = view()[0].spaces.active
    for name in PLAIN:
        if hasattr(space.overlay, name):
            setattr(space.overlay, name, False)
    space.shading.show_object_outline = False
    space.show_gizmo = False


def settle(seconds: float = 120.0) -> None:
    """Redraw until every avatar that is seen is shown in its pose, with the colours of this view, at full resolution."""
    live, client = effigy("viewport.live"), effigy("worker.session").client()
    until, quiet = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        redraw()
        client.pump()
        arrived = all(actor.fresh and actor.asked is actor.shown for actor in live._actors.values())
        quiet = quiet + 1 if arrived and not client.busy else 0
        if quiet >= 3:
            return
        # A view stands still after `SETTLED`, and only then are its colours asked for.
        time.sleep(live.SETTLED + 0.05)
    raise RuntimeError(f"The splats did not come: {[actor.error for actor in live._actors.values()]}")


def screen() -> np.ndarray:
    """(H, W, 3) the 3D View as it is on the screen, top row first, [0, 1]."""
    import gpu

    taken: list[np.ndarray] = []

    def take() -> None:
        left, low, width, height = gpu.state.viewport_get()
        pixels = np.empty((height, width, 4), np.float32)
        # A buffer lies over the array's own memory; as a list it would take seconds.
        buffer = gpu.types.Buffer("FLOAT", pixels.size, pixels.ravel())
        gpu.state.active_framebuffer_get().read_color(left, low, width, height, 4, 0, "FLOAT", data=buffer)
        taken.append(pixels[::-1, :, :3])

    handle = bpy.types.SpaceView3D.draw_handler_add(take, (), "WINDOW", "POST_PIXEL")
    redraw()
    bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")
    return taken[-1]


def rasterised(rigs: Sequence[object], avatars: Sequence[str]) -> dict[str, np.ndarray]:
    """What the CPU rasteriser makes of these rigs in the 3D View as it is."""
    with in_view():
        lens = effigy("viewport.draw").lens_of(bpy.context)
        depsgraph = bpy.context.evaluated_depsgraph_get()
    fx, fy, cx, cy = lens.pixels()
    placed = np.linalg.inv(lens.view)
    if lens.orthographic:
        # Such a view sees what is behind its own place as well, and a camera does not.
        placed[:3, 3] += 10 * placed[:3, 2]
    camera = {
        "world_to_camera": effigy("rig.conventions").world_to_camera(placed),
        "orthographic": bool(lens.orthographic),
        "intrinsics": np.array(((fx, 0, cx), (0, fy, lens.height - cy), (0, 0, 1))),
        "width": lens.width,
        "height": lens.height,
    }
    subjects = [
        {"avatar": Path(avatar), "pose": effigy("rig.pose").read_pose(rig, depsgraph).message()}
        for rig, avatar in zip(rigs, avatars)
    ]
    return (
        effigy("worker.session")
        .client()
        .call("avatar.render", {"subjects": subjects, "camera": camera, "enhanced": False}, timeout=120)
    )


def difference(rigs: Sequence[object], avatars: Sequence[str]) -> float:
    """The screen's pixels against the rasteriser's over the same view without avatars: the mean absolute difference
    inside the heads, in levels of 255."""
    settle()
    ours = screen()
    for rig in rigs:
        rig.mesh.hide_set(True)
    empty = screen()
    for rig in rigs:
        rig.mesh.hide_set(False)
    truth = rasterised(rigs, avatars)
    expected = np.clip(truth["color"] + (1 - truth["alpha"][..., None]) * empty, 0, 1)
    inside = truth["alpha"] > 0.02
    if inside.sum() < 2000:
        raise RuntimeError("There is no head in the view to compare.")
    return 255 * float(np.abs(ours - expected)[inside].mean())


def resident() -> float:
    """MB of memory in use, on Linux, without what the allocator was given back and keeps."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def end_with(walk: object) -> None:
    """Let a timer walk through a generator that yields how many seconds to wait, then quit Blender."""
    import traceback

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
