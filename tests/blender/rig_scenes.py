"""Reference data from the backend (see `rig_truth`), and functions that build, pose and measure rigs."""

from __future__ import annotations

import atexit
import functools
import importlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bpy
import numpy as np

PACKAGE = "bl_ext.user_default.effigy.blender_addon.rig"
_MODULES = (
    "action",
    "added_performance",
    "armature",
    "build",
    "camera",
    "conventions",
    "face_angles",
    "joint_limits",
    "data",
    "rig_properties",
    "performance",
    "pose",
    "presets",
    "rotations",
    "sliders",
    "speech",
    "steps",
    "troubles",
    "mending",
    "placement",
)


def rigging() -> SimpleNamespace:
    """The installed extension's rig modules, by name."""
    return SimpleNamespace(**{name: importlib.import_module(f"{PACKAGE}.{name}") for name in _MODULES})


@functools.cache
def truth() -> dict[str, np.ndarray]:
    folder = Path(tempfile.mkdtemp(prefix="effigy-truth-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    script = Path(__file__).with_name("rig_truth.py")
    subprocess.run([os.environ["EFFIGY_BACKEND_PYTHON"], str(script), str(folder / "truth.npz")], check=True)
    with np.load(folder / "truth.npz") as archive:
        return {name: archive[name] for name in archive.files}


def answer(name: str) -> dict[str, Any]:
    """`head.rig` or `track.read` as the worker answers: arrays, and dictionaries of them."""
    result: dict[str, Any] = {}
    for key, value in truth().items():
        first, *rest = key.split(".")
        if first == name and len(rest) == 2:
            result.setdefault(rest[0], {})[rest[1]] = value
        elif first == name:
            result[rest[0]] = value
    return result


def make_rig(name: str = "open", called: str = "Ann") -> Any:
    rig = rigging()
    return rig.build.build_rig(rig.data.RigData.from_answer(answer(name)), called, bpy.context.scene.collection)


def make_track() -> Any:
    return rigging().data.TrackData.from_answer(answer("track"))


def tracked_rig() -> Any:
    made = make_rig()
    rigging().performance.apply_track(made, make_track())
    return made


def set_pose(made: Any, expression: np.ndarray, rotations: np.ndarray) -> None:
    """Expression (E,) on the sliders, axis-angle (5, 3) in head space on the bones."""
    rig = rigging()
    for block, value in zip(made.expression_keys(), expression.tolist()):
        block.slider_min, block.slider_max = min(block.slider_min, value), max(block.slider_max, value)
        block.value = value
    for joint, rotation in zip(rig.data.JOINT_NAMES, rotations):
        axes = rig.conventions.BONE_AXES[joint]
        made.pose_bone(joint).rotation_quaternion = rig.rotations.axis_angle_to_quaternion(rotation @ axes)
    rig.sliders.refresh(made)
    bpy.context.view_layer.update()


def evaluated_vertices(made: Any) -> np.ndarray:
    """(V, 3) vertices as Blender evaluates them, in head space, without the mesh object's transform."""
    mesh = made.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    points = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", points)
    return rigging().conventions.points_to_head(points.reshape(-1, 3))


def read_pose(made: Any) -> dict[str, Any]:
    return rigging().pose.read_pose(made, bpy.context.evaluated_depsgraph_get()).message()


def value_of(made: Any, name: str) -> float:
    """An expression's value in the pose that the worker gets."""
    return float(read_pose(made)["expression"][made.expression_names.index(name)])
