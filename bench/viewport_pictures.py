"""Screenshots of the live viewport for the guide, taken by `bench.viewport_checks --pictures`; runs inside Blender."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bpy
import window as w
from mathutils import Quaternion, Vector
from viewport_screen import effigy, in_view, settle, view

FRONT = Quaternion((0.5**0.5, 0.5**0.5, 0, 0))
FRAME = 10


def pictures(order: dict[str, str]) -> Iterator[float]:
    folder = Path(order["pictures"])
    bpy.ops.wm.read_homefile(use_empty=True)
    yield 1.0
    yield from load(order)
    rig = effigy("rig.rig_properties").find_rigs(bpy.context.view_layer.objects)
    rig = next(iter(rig))
    bpy.ops.object.select_all(action="DESELECT")
    bpy.context.scene.frame_set(FRAME)
    space = view()[0].spaces.active
    seen = space.region_3d
    space.overlay.show_relationship_lines = False
    if bpy.context.scene.camera:
        seen.view_perspective = "CAMERA"
        yield from shown(folder / "viewport_camera.png")
    # The camera's frustum, the cursor and the bones would lie across the head.
    space.overlay.show_extras = space.overlay.show_cursor = space.overlay.show_bones = False
    head = Vector(effigy("viewport.live").state_of(rig).motion[:3, 3])
    seen.view_perspective, seen.view_distance, seen.view_location = "PERSP", 0.52, head
    seen.view_rotation = Quaternion((0, 0, 1), 0.2) @ FRONT
    yield from shown(folder / "viewport_perspective.png")
    rig.armature.effigy_view.mode = "BOTH"
    yield from shown(folder / "viewport_wire.png")
    rig.armature.effigy_view.mode = "SPLATS"
    among_objects(head)
    yield from shown(folder / "viewport_objects.png")


def load(order: dict[str, str]) -> Iterator[float]:
    tasks = effigy("tasks")
    with in_view():
        if order["capture"]:
            bpy.ops.effigy.import_capture("EXEC_DEFAULT", directory=order["capture"])
        else:
            bpy.ops.effigy.add_avatar("EXEC_DEFAULT", filepath=order["avatar"], new_rig=True)
    yield 1.0
    while not all(task.finished for task in tasks.all_tasks()):
        yield 0.3
    if order["capture"]:
        with in_view():
            bpy.ops.effigy.add_avatar("EXEC_DEFAULT", filepath=order["avatar"])
    while not any(obj.type == "ARMATURE" and obj.effigy.avatar for obj in bpy.data.objects):
        yield 0.3
    yield 1.0


def among_objects(head: Vector) -> None:
    def paint(color: tuple[float, float, float, float]) -> None:
        material = bpy.data.materials.new("Object")
        material.diffuse_color = color
        bpy.context.object.data.materials.append(material)
        bpy.ops.object.shade_smooth()

    with in_view():
        bpy.ops.mesh.primitive_monkey_add(size=0.09, location=head + Vector((0.08, -0.16, -0.04)), rotation=(0, 0, 0.5))
        paint((0.9, 0.35, 0.05, 1.0))
        bpy.ops.mesh.primitive_torus_add(
            major_radius=0.15,
            minor_radius=0.012,
            major_segments=96,
            minor_segments=24,
            rotation=(0.25, 0.1, 0),
            location=head + Vector((0, 0, 0.05)),
        )
        paint((0.05, 0.3, 0.8, 1.0))
        bpy.ops.object.select_all(action="DESELECT")


def shown(path: Path) -> Iterator[float]:
    settle()
    yield 0.5
    settle()
    w.rest_mouse()
    yield 0.5
    area, _ = view()
    w.shot(path, w.box_of(area))
