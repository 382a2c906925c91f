"""The work of one round of the row `eight_hours`: what an artist does with avatars in Blender, in a hurry."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from bench.fault_rows._blender import add_rig, part, stage

VIEW_SIZE: Final = 200
"""Pixels of the 3D View."""
ANSWER_SECONDS: Final = 120.0
SCRUBBED: Final = 3
"""Poses that are set before the splats of one are waited for."""
POSES_FOR_A_REDRAW: Final = 12
SIZES: Final = (64, 96, 128, 160)
"""Pixels of the renders."""


@dataclass
class Day:
    """The artist's files, and how much has been done so far."""

    folder: Path
    avatars: list[Path]
    """All on the bundled head."""
    capture: Path
    draw: random.Random
    blends: list[Path] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, number: int = 1) -> None:
        self.done[name] = self.done.get(name, 0) + number


def prepare(day: Day) -> None:
    """Saves the .blend files that are opened later: one rig, two rigs, and a rig whose avatar is packed. Has the worker
    open as many avatars as it keeps open.
    """
    import bpy

    bpy.utils.register_class(_gpu_engine())
    for avatar in day.avatars:
        part("worker.session").client().call("avatar.open", {"path": avatar})
    for number, avatars in enumerate((day.avatars[:1], day.avatars[1:3], day.avatars[3:4])):
        bpy.ops.wm.read_homefile(use_empty=True)
        stage(SIZES[0])
        for avatar in avatars:
            add_rig(avatar)
        if number == 2:
            bpy.ops.effigy.pack_avatar()
        bpy.context.scene.frame_start, bpy.context.scene.frame_end = 1, 4
        day.blends.append(day.folder / f"shot_{number}.blend")
        bpy.ops.wm.save_as_mainfile(filepath=str(day.blends[-1]))


def work(day: Day, number: int, poses: int, renders: int, undos: int) -> None:
    """Round `number`: opens a file, works in it, and leaves it with requests pending."""
    import bpy

    bpy.ops.wm.open_mainfile(filepath=str(day.blends[number % len(day.blends)]))
    day.count("file loads")
    for rig in rigs():
        if not rig.armature.effigy.packed:
            rig.armature.effigy.avatar = str(day.draw.choice(day.avatars))
    for _ in range(renders):
        render(day)
    pose(day, poses)
    undo_and_redo(day, undos)
    bake(day, on_disk=number % 2 == 1)
    export(day)
    stop_an_import(day)
    add_pack_and_delete(day)
    set_pose(day, rigs()[0])
    update_view()


def rigs() -> list[Any]:
    import bpy

    return list(part("rig.rig_properties").find_rigs(bpy.context.scene.objects))


def set_pose(day: Day, rig: Any) -> None:
    import bpy

    for name in day.draw.sample(rig.expression_names, 3):
        rig.key_blocks[name].value = day.draw.random()
    rig.pose_bone("neck").rotation_quaternion = 1.0, day.draw.uniform(-0.2, 0.2), day.draw.uniform(-0.2, 0.2), 0.0
    bpy.context.view_layer.update()


def pose(day: Day, count: int) -> None:
    """Poses one rig after the other. The viewport asks for each pose and waits for every few; some are drawn."""
    for number in range(count):
        rig = day.draw.choice(rigs())
        set_pose(day, rig)
        update_view()
        if number % SCRUBBED == 0:
            wait_for_splats()
        if number % POSES_FOR_A_REDRAW == 0:
            in_gpu(redraw)
    day.count("poses", count)


def wait_for_splats() -> None:
    client, until = part("worker.session").client(), time.monotonic() + ANSWER_SECONDS
    while not all(avatar.fresh for _, avatar in update_view()):
        if not client.pump():
            time.sleep(0.001)
        if time.monotonic() > until:
            raise RuntimeError("The splats of a pose did not come.")


def update_view() -> list[Any]:
    """What a 3D View does when it begins to draw."""
    import numpy as np

    viewpoint = part("viewport.viewpoint").Viewpoint(np.array((0.0, -1.0, 0.0)), np.array((0.0, 1.0, 0.0)), False)
    return part("viewport.live").update_view(view_context(), 1, viewpoint)


def view_context() -> Any:
    """The context of a 3D View, which Blender as a module does not draw."""
    import bpy
    import numpy as np

    space = next(area.spaces.active for screen in bpy.data.screens for area in screen.areas if area.type == "VIEW_3D")
    view = np.array(((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, -1.0), (0, 0, 0, 1.0)))
    window = np.array(((2.0, 0, 0, 0), (0, 2, 0, 0), (0, 0, -1.0002, -0.02), (0, 0, -1, 0)))
    return SimpleNamespace(
        region=SimpleNamespace(as_pointer=lambda: 1, width=VIEW_SIZE, height=VIEW_SIZE),
        region_data=SimpleNamespace(view_matrix=view, window_matrix=window),
        space_data=space,
        scene=bpy.context.scene,
        window_manager=bpy.context.window_manager,
        preferences=bpy.context.preferences,
        view_layer=SimpleNamespace(
            depsgraph=bpy.context.evaluated_depsgraph_get(), objects=bpy.context.view_layer.objects
        ),
    )


def redraw() -> None:
    """Draws the 3D View as its draw handlers do, in a GPU context. A pixel is read back, as a window waits for its
    picture.
    """
    import gpu

    draw, context = part("viewport.draw"), view_context()
    target = gpu.types.GPUOffScreen(VIEW_SIZE, VIEW_SIZE, format="RGBA32F")
    try:
        with target.bind():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
            draw._update(context)
            draw._draw(context)
            frame.read_color(0, 0, 1, 1, 4, 0, "FLOAT")
    finally:
        target.free()


def render(day: Day) -> None:
    import bpy

    scene = bpy.context.scene
    render, draw = scene.render, day.draw
    render.resolution_x, render.resolution_y = draw.choice(SIZES), draw.choice(SIZES)
    render.film_transparent, bpy.context.view_layer.use_pass_z = draw.random() < 0.5, draw.random() < 0.5
    render.use_border = draw.random() < 0.3
    render.border_min_x, render.border_max_x = 0.25, 0.75
    for rig in rigs():
        set_pose(day, rig)
    render.filepath = str(day.folder / "still.png")
    bpy.ops.render.render(write_still=draw.random() < 0.3)
    day.count("renders")


def undo_and_redo(day: Day, count: int) -> None:
    import bpy

    bpy.ops.ed.undo_push(message="before")
    for _ in range(count):
        set_pose(day, rigs()[0])
        update_view()
        bpy.ops.ed.undo_push(message="posed")
        bpy.ops.ed.undo()
        update_view()
        bpy.ops.ed.redo()
        wait_for_splats()
    day.count("undo and redo", count)


def bake(day: Day, *, on_disk: bool) -> None:
    """A bake that is finished and one that an undo interrupts."""
    import bpy

    bpy.context.scene.effigy.bake_to = "DISK" if on_disk else "MEMORY"
    bpy.ops.effigy.bake_playback()
    for frame in range(1, 5):
        bpy.context.scene.frame_set(frame)
        update_view()
    rig = rigs()[0]
    task = part("viewport.baking").bake(bpy.context, [rig], 1, 4)
    client, until = part("worker.session").client(), time.monotonic() + ANSWER_SECONDS
    while task.progress < 0.2 and time.monotonic() < until:
        client.pump()
        task.advance(0.001)
    bpy.ops.ed.undo_push(message="baked")
    bpy.ops.ed.undo()
    if not task.finished:
        raise RuntimeError("An undo did not end the bake.")
    day.count("bakes", 2)


def export(day: Day) -> None:
    import bpy

    bpy.ops.effigy.export_splats(filepath=str(day.folder / "head.ply"))
    day.count("exports")


def stop_an_import(day: Day) -> None:
    """An import of a capture that is stopped shortly before its end, and leaves nothing."""
    import bpy

    before = datablocks()
    task = part("importing").import_capture(bpy.context.scene, day.capture)
    stop, client = day.draw.uniform(0.1, 1.0), part("worker.session").client()
    until = time.monotonic() + ANSWER_SECONDS
    while not task.finished and task.progress < stop and time.monotonic() < until:
        client.pump()
        task.advance(0.001)
    finished = task.finished
    task.cancel()
    if not finished and (left := more_than(before, datablocks())):
        raise RuntimeError(f"A stopped import left {left}.")
    day.count("stopped imports")


def add_pack_and_delete(day: Day) -> None:
    """A rig is added, its avatar packed, unpacked and packed again and then replaced by another; it is then deleted."""
    import bpy

    rig = add_rig(day.draw.choice(day.avatars))
    texts = len(bpy.data.texts)
    bpy.ops.effigy.pack_avatar()
    set_pose(day, rig)
    wait_for_splats()
    bpy.ops.effigy.unpack_avatar()
    bpy.ops.effigy.pack_avatar()
    bpy.ops.effigy.add_avatar(filepath=str(day.draw.choice(day.avatars)))
    if len(bpy.data.texts) > texts:
        raise RuntimeError(f"A packed avatar that was replaced is still in the file: {list(bpy.data.texts)}.")
    bpy.ops.effigy.bake_playback()
    in_gpu(redraw)
    bpy.data.batch_remove([rig.mesh, rig.armature])
    in_gpu(redraw)
    day.count("rigs added and deleted")


def datablocks() -> dict[str, int]:
    """The number of datablocks of each kind."""
    import bpy

    kinds = ("actions", "armatures", "cameras", "collections", "images", "materials", "meshes", "movieclips")
    return {kind: len(getattr(bpy.data, kind)) for kind in (*kinds, "node_groups", "objects", "scenes", "texts")}


def more_than(before: dict[str, int], after: dict[str, int]) -> str:
    """What there is more of, as text; empty if nothing."""
    return ", ".join(f"{after[kind] - number} {kind}" for kind, number in before.items() if after[kind] > number)


_work: list[Callable[[], None]] = []
_errors: list[BaseException] = []


def in_gpu(work: Callable[[], None]) -> None:
    """Calls `work` with a GPU context, which Blender as a module has only while it renders."""
    import bpy

    scene = bpy.context.scene
    render = scene.render
    before = render.engine, render.resolution_x, render.resolution_y, render.use_border
    render.engine, render.resolution_x, render.resolution_y, render.use_border = "EFFIGY_FAULTS_GPU", 8, 8, False
    _work.append(work)
    try:
        bpy.ops.render.render()
    finally:
        render.engine, render.resolution_x, render.resolution_y, render.use_border = before
        _work.clear()
    if _errors:
        raise _errors.pop()


def _gpu_engine() -> type:
    import bpy

    class Engine(bpy.types.RenderEngine):
        bl_idname, bl_label, bl_use_gpu_context = "EFFIGY_FAULTS_GPU", "GPU", True

        def render(self, depsgraph: bpy.types.Depsgraph) -> None:
            try:
                _work[0]()
            except BaseException as error:
                _errors.append(error)

    return Engine
