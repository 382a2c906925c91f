"""The part of `bench.player` that runs in a real Blender window without a backend: an avatar is added with a rig of its
own, an action is played, and a slider is moved.

The view shows in turn nothing, the rig's mesh and the avatar, so that other load on the machine affects all of them. A
frame is fresh if the avatar that is drawn has the value that the slider's curve has in this frame.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
from mathutils import Quaternion

sys.path.insert(0, str(Path(__file__).parent))
from viewport_screen import effigy, end_with, in_view, until, view

ORDER = json.loads(Path(sys.argv[sys.argv.index("--") + 1]).read_text("utf-8"))
SLIDER, FRAMES, ROUNDS, SECONDS = "jawOpen", 240, 4, 4.0
CHANGES = 30
"""Of the slider, of which the first five are not counted."""
VIEWS = ("nothing", "mesh", "avatar")


def steps() -> Iterator[float]:
    assert "EFFIGY_BACKEND_PYTHON" not in os.environ and not effigy("backend_setup").state().ready
    bpy.ops.wm.read_homefile(use_empty=True)
    yield 0.7
    bpy.context.scene.render.fps = 24
    with in_view():
        bpy.ops.effigy.add_avatar("EXEC_DEFAULT", filepath=ORDER["avatar"], new_rig=True)
    yield from until(lambda: any(obj.type == "ARMATURE" and obj.effigy.avatar for obj in bpy.data.objects))
    armature = next(obj for obj in bpy.data.objects if obj.type == "ARMATURE")
    rig = effigy("rig.rig_properties").find_rig(armature)
    # As an animator has it: without the bones' octahedra and the names of a hundred drivers before the face.
    bpy.ops.object.select_all(action="DESELECT")
    seen = view()[0].spaces.active.region_3d
    seen.view_rotation, seen.view_location = Quaternion((0.5**0.5, 0.5**0.5, 0, 0)), (0, 0, 0)
    seen.view_distance, seen.view_perspective = 0.75, "PERSP"
    curve = key_all_frames(rig)
    live = effigy("viewport.live")
    yield from until(lambda: any(avatar.fresh for avatar in live.state.avatars.values()))
    rounds: dict[str, list[SimpleNamespace]] = {name: [] for name in VIEWS}
    for _ in range(ROUNDS):
        for name in VIEWS:
            show(rig, name)
            yield 0.5
            yield from playback(rig, live, curve, rounds[name])
    evaluating, reading = read_poses(rig)
    rig.mesh.data.shape_keys.animation_data_clear()
    latencies: dict[str, list[float]] = {}
    for name in VIEWS:
        show(rig, name)
        yield 0.5
        latencies[name] = []
        yield from slide(rig, live, latencies[name], name == "avatar")
    row = {"fresh_share": sum(each.fresh for each in rounds["avatar"]) / sum(each.drawn for each in rounds["avatar"])}
    for name in VIEWS:
        row[f"{name}_redraws_per_s"] = float(np.median([each.drawn / each.seconds for each in rounds[name]]))
        row[f"{name}_processor_ms"] = float(np.median([1e3 * each.processor / each.drawn for each in rounds[name]]))
        row[f"{name}_latency_p95_ms"] = float(np.percentile(latencies[name], 95))
    row |= {
        "frames_drawn": sum(each.drawn for each in rounds["avatar"]),
        "redraw_share": row["avatar_redraws_per_s"] / row["nothing_redraws_per_s"],
        "redraw_share_of_processors": row["nothing_processor_ms"] / row["avatar_processor_ms"],
        "latency_p50_ms": float(np.median(latencies["avatar"])),
        "latency_p95_ms": row["avatar_latency_p95_ms"],
        "read_pose_ms": reading,
        "read_pose_to_frame_change": reading / evaluating,
    }
    Path(ORDER["result"]).write_text(json.dumps(row), "utf-8")


def key_all_frames(rig: object) -> np.ndarray:
    """Keys the slider; its value in each frame from 0 to FRAMES."""
    scene, block = bpy.context.scene, rig.key_blocks[SLIDER]
    scene.frame_start, scene.frame_end = 1, FRAMES
    for frame in range(1, FRAMES + 1, 6):
        block.value = 0.5 + 0.5 * np.sin(frame)
        block.keyframe_insert("value", frame=frame)
    values = np.zeros(FRAMES + 1)
    for frame in range(1, FRAMES + 1):
        scene.frame_set(frame)
        values[frame] = block.value
    return values


def show(rig: object, name: str) -> None:
    rig.mesh.hide_set(name == "nothing")
    rig.armature.effigy_view.mode = "MESH" if name == "mesh" else "SPLATS"


def read_poses(rig: object) -> tuple[float, float]:
    """Median milliseconds of a change of frame, and of reading the pose after it."""
    read_pose, spent = effigy("rig.pose").read_pose, []
    for frame in range(1, FRAMES + 1, 4):
        started = time.perf_counter()
        bpy.context.scene.frame_set(frame)
        changed = time.perf_counter()
        read_pose(rig, bpy.context.evaluated_depsgraph_get())
        spent.append((changed - started, time.perf_counter() - changed))
    changing, reading = 1e3 * np.median(spent, axis=0)
    return float(changing), float(reading)


def value_seen(rig: object, live: object) -> float:
    """The slider's value in the splats that are drawn."""
    avatar = live.state_of(rig)
    if avatar is None or not avatar.fresh:
        return np.nan
    return float(avatar.pose.expression[rig.expression_names.index(SLIDER)])


def playback(rig: object, live: object, curve: np.ndarray, rounds: list[SimpleNamespace]) -> Iterator[float]:
    """Plays the action for SECONDS."""
    found = SimpleNamespace(drawn=0, fresh=0, seconds=0.0, processor=0.0)

    def after() -> None:
        found.drawn += 1
        found.fresh += abs(value_seen(rig, live) - curve[bpy.context.scene.frame_current]) < 1e-4

    bpy.context.scene.frame_set(1)
    handle = bpy.types.SpaceView3D.draw_handler_add(after, (), "WINDOW", "POST_PIXEL")
    started = time.perf_counter(), time.process_time()
    with in_view():
        bpy.ops.screen.animation_play()
    yield SECONDS
    with in_view():
        bpy.ops.screen.animation_cancel(restore_frame=False)
    found.seconds, found.processor = np.subtract((time.perf_counter(), time.process_time()), started).tolist()
    bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")
    rounds.append(found)


def slide(rig: object, live: object, latencies: list[float], avatar: bool) -> Iterator[float]:
    """Moves the slider, and measures until a pixel of the view that shows it was read back, milliseconds."""
    import gpu

    block, asked = rig.key_blocks[SLIDER], SimpleNamespace(at=0.0, value=None)

    def after() -> None:
        if asked.value is None or (avatar and not abs(value_seen(rig, live) - asked.value) < 1e-4):
            return
        left, low, width, height = gpu.state.viewport_get()
        # Reading a pixel forces the driver to finish drawing.
        gpu.state.active_framebuffer_get().read_color(left + width // 2, low + height // 2, 1, 1, 4, 0, "FLOAT")
        latencies.append(1e3 * (time.perf_counter() - asked.at))
        asked.value = None

    handle = bpy.types.SpaceView3D.draw_handler_add(after, (), "WINDOW", "POST_PIXEL")
    for number in range(CHANGES):
        asked.value, asked.at = 0.1 + 0.025 * (number % 32), time.perf_counter()
        block.value = asked.value
        if not avatar:
            view()[0].tag_redraw()
        yield from until(lambda: asked.value is None, 10.0)
        # Until a head at rest has been drawn at full resolution.
        yield 1.0
    bpy.types.SpaceView3D.draw_handler_remove(handle, "WINDOW")
    del latencies[:5]


def start() -> None:
    bpy.context.preferences.view.show_splash = False
    bpy.ops.extensions.package_install_files(filepath=ORDER["package"], repo="user_default", enable_on_install=True)
    end_with(steps())


start()
