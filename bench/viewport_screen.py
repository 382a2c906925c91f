"""The pixels of a 3D View in a real window, and the image of the CPU rasteriser for the same view.

Imported by scripts that run inside Blender (`viewport_window`, `viewport_checks_in_blender`,
`responsiveness_in_blender`).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
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
"""Overlays that would count as differences between the two images."""


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
    """Switches off everything that is drawn over the scene except the avatars."""
    space = view()[0].spaces.active
    for name in PLAIN:
        if hasattr(space.overlay, name):
            setattr(space.overlay, name, False)
    space.shading.show_object_outline = False
    space.show_gizmo = False


def settle(seconds: float = 120.0) -> None:
    """Redraws until every visible avatar is shown in its current pose, with the colours of this view, at full
    resolution.
    """
    live, client = effigy("viewport.live"), effigy("worker.session").client()
    until, quiet = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        redraw()
        client.pump()
        arrived = all(avatar.fresh and avatar.requested is avatar.shown for avatar in live.state.avatars.values())
        quiet = quiet + 1 if arrived and not client.busy else 0
        if quiet >= 3:
            return
        # A view is still after `SETTLE_SECONDS`, and only then are its colours requested.
        time.sleep(live.SETTLE_SECONDS + 0.05)
    raise RuntimeError(f"The splats did not come: {[avatar.error for avatar in live.state.avatars.values()]}")


def screen() -> np.ndarray:
    """(H, W, 3) pixels of the 3D View on the screen, top row first, [0, 1]."""
    import gpu

    taken: list[np.ndarray] = []

    def take() -> None:
        left, low, width, height = gpu.state.viewport_get()
        pixels = np.empty((height, width, 4), np.float32)
        # The buffer shares the array's memory. Conversion to a list would take seconds.
        buffer = gpu.types.Buffer("FLOAT", pixels.size, pixels.ravel())
        gpu.state.active_framebuffer_get().read_color(left, low, width, height, 4, 0, "FLOAT", data=buffer)
        taken.append(pixels[::-1, :, :3])

    handle = bpy.types.SpaceView3D.draw_handler_add(take, (), "WINDOW", "POST_PIXEL")
    redraw()
    bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")
    return taken[-1]


def rasterised(rigs: Sequence[object], avatars: Sequence[str]) -> dict[str, np.ndarray]:
    """The CPU rasteriser's image of these rigs from the current viewpoint of the 3D View."""
    with in_view():
        view_camera = effigy("viewport.draw").camera_of(bpy.context)
        depsgraph = bpy.context.evaluated_depsgraph_get()
    fx, fy, cx, cy = view_camera.intrinsics()
    view_to_world = np.linalg.inv(view_camera.view)
    if view_camera.orthographic:
        # An orthographic view also shows what is behind its position, which a camera does not.
        view_to_world[:3, 3] += 10 * view_to_world[:3, 2]
    camera = {
        "world_to_camera": effigy("rig.conventions").world_to_camera(view_to_world),
        "orthographic": bool(view_camera.orthographic),
        "intrinsics": np.array(((fx, 0, cx), (0, fy, view_camera.height - cy), (0, 0, 1))),
        "width": view_camera.width,
        "height": view_camera.height,
    }
    subjects = [
        {"avatar": Path(avatar), "pose": effigy("rig.pose").read_pose(rig, depsgraph).message()}
        for rig, avatar in zip(rigs, avatars, strict=True)
    ]
    return (
        effigy("worker.session")
        .client()
        .call("avatar.render", {"subjects": subjects, "camera": camera, "enhanced": False}, timeout=120)
    )


def difference(rigs: Sequence[object], avatars: Sequence[str]) -> float:
    """Mean absolute difference inside the heads, in levels of 255, between the screen and the rasteriser's image over
    the same view without avatars.
    """
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
    """Resident memory in MB, without freed memory that the allocator keeps. Linux only."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def until(done: Callable[[], object], seconds: float = 120.0) -> Iterator[float]:
    """Steps for `end_with` that wait until `done`, or until so many seconds have passed."""
    last = time.monotonic() + seconds
    while not done() and time.monotonic() < last:
        yield 0.2


def end_with(steps: object) -> None:
    """Runs a generator from a timer, then quits Blender. The generator yields the seconds to wait until its next
    step.
    """
    import traceback

    def advance() -> float | None:
        try:
            return next(steps)
        except StopIteration:
            pass
        except BaseException:
            traceback.print_exc()
        bpy.ops.wm.quit_blender()
        return None

    bpy.app.timers.register(advance, first_interval=1.0, persistent=True)
