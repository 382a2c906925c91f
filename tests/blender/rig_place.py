"""Where a rig's avatar lies and where Blender draws its mesh, of a rig that is moved, turned, scaled and posed."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
from rig_scenes import answer, make_rig, read_pose, rigging, set_pose

TOLERANCE = 1e-4
"""Of the head's size."""
SIZE = 0.25
"""Metres: about the height of a head."""
JOINTS = ("neck", "jaw", "eye_L", "eye_R")


def save_shot(path: Path) -> None:
    """Saves a .blend with that rig, and two empties."""
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    truth, made = answer("open"), make_rig()
    made.armature.location, made.armature.rotation_euler, made.armature.scale = (
        (0.3, -0.2, 0.1),
        (0.2, 0.4, -0.9),
        [1.3] * 3,
    )
    made.pose_bone("root").location = (0.02, 0.05, -0.03)
    set_pose(made, truth["pose_expression"][0], truth["pose_rotations"][0])
    for name, place in (("other", (0.4, 0.1, 0.3)), ("target", (2, -3, 1))):
        empty = bpy.data.objects.new(name, None)
        bpy.context.scene.collection.objects.link(empty)
        empty.location, empty.rotation_euler = place, (0.1, 0.7, 0.3)
    made.armature.effigy.avatar = "//ann.effigy"
    bpy.context.view_layer.objects.active = made.armature
    bpy.ops.wm.save_as_mainfile(filepath=str(path))


def rig(name: str = "Ann"):
    return rigging().rig_properties.find_rig(bpy.data.objects[name])


def armature() -> bpy.types.Object:
    return bpy.data.objects["Ann rig"]


def mesh() -> bpy.types.Object:
    return bpy.data.objects["Ann"]


def select(*objects: bpy.types.Object) -> None:
    for obj in bpy.context.view_layer.objects:
        obj.select_set(obj in objects)
    bpy.context.view_layer.objects.active = objects[0]


def sentence(made) -> str:
    depsgraph = bpy.context.evaluated_depsgraph_get()
    return rigging().troubles.sentence_of(made, depsgraph) or ""


def drawn(made) -> np.ndarray:
    """(V, 3) the mesh's vertices in Blender's world as it is evaluated."""
    evaluated = made.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())
    points = np.empty(3 * len(evaluated.data.vertices), np.float32)
    evaluated.data.vertices.foreach_get("co", points)
    world = np.array(evaluated.matrix_world, np.float64)
    return points.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3]


def of_avatar(made) -> np.ndarray:
    """(V, 3) the head that the backend makes of the pose, in Blender's world."""
    root = read_pose(made)["root"]
    points = answer("open")["posed_without_root"][0] @ root[:3, :3].T + root[:3, 3]
    return rigging().conventions.points_to_blender(points)


def size_of(made) -> float:
    return SIZE * float(np.cbrt(np.linalg.det(read_pose(made)["root"][:3, :3])))


def assert_where_drawn(made, only: np.ndarray | None = None) -> None:
    """The avatar lies where Blender draws the mesh. `only`: these vertices."""
    truth, pose = answer("open"), read_pose(made)
    assert np.allclose(pose["expression"], truth["pose_expression"][0], atol=1e-6)
    for joint, rotation in zip(JOINTS, truth["pose_rotations"][0][1:]):
        assert np.allclose(pose[joint], rotation, atol=1e-5), joint
    apart = np.linalg.norm(of_avatar(made) - drawn(made), axis=1)[slice(None) if only is None else only]
    assert apart.max() < TOLERANCE * size_of(made), f"{apart.max():.6f} m"


def skull() -> np.ndarray:
    """The vertices that follow the neck alone."""
    return answer("open")["skinning"][:, 1] == 1
