"""A head model as Blender objects: a mesh with shape keys, skinned to an armature of five bones.

FLAME's formula (Li et al. 2017, eq. 1-3) is what Blender does anyway: shape keys are added to the Basis, then the
armature modifier blends linearly. So the head model is translated, not approximated, and Blender's evaluated vertices
are the backend's. Order in the mesh's list: Basis, expressions (the sliders that artists use), correctives, identity.
"""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np

from .armature import add_armature
from .conventions import points_to_blender
from .correctives import corrective_name, drive_corrective
from .data import JOINT_NAMES, RigData
from .paint import paint
from .rig_properties import BONE_NAMES, Rig, identity_name, mark_rig
from .steps import Steps, finish

IDENTITY_REACH: Final = 5.0
"""Standard deviations that an identity slider offers; beyond, a face is none."""
AWAKE: Final = "effigy_awake"

_KEYS_A_STEP: Final = 8


def build_rig(data: RigData, name: str, parent: bpy.types.Collection) -> Rig:
    """A collection `name` under `parent` with the rig of `data`."""
    return finish(build_rig_steps(data, name, parent))


def build_rig_steps(data: RigData, name: str, parent: bpy.types.Collection) -> Steps[Rig]:
    """`build_rig` in steps of a few milliseconds (see `steps`)."""
    collection = bpy.data.collections.new(name)
    parent.children.link(collection)
    try:
        armature = add_armature(data, f"{name} rig", collection)
        mesh = bpy.data.objects.new(name, _mesh(data, name))
        collection.objects.link(mesh)
        mesh.parent = armature
        yield 0.1
        _skin(mesh, armature, data.skinning)
        yield 0.15
        for share in _add_shape_keys(mesh, armature, data):
            yield 0.15 + 0.85 * share
        _keep_awake(armature, mesh.data.shape_keys, data.arkit_names + data.expression_names)
        return mark_rig(armature, mesh, data)
    except BaseException:
        # A stopped import, too, leaves no half rig behind.
        for obj in list(collection.objects):
            bpy.data.batch_remove((obj, obj.data))
        bpy.data.collections.remove(collection)
        raise


def _mesh(data: RigData, name: str) -> bpy.types.Mesh:
    mesh = bpy.data.meshes.new(name)
    corners = len(data.faces) * 3
    mesh.vertices.add(len(data.vertices))
    mesh.vertices.foreach_set("co", _flat(data.vertices))
    mesh.loops.add(corners)
    mesh.loops.foreach_set("vertex_index", data.faces.ravel())
    mesh.polygons.add(len(data.faces))
    mesh.polygons.foreach_set("loop_start", np.arange(0, corners, 3, dtype=np.int32))
    mesh.update(calc_edges=True)
    mesh.shade_smooth()
    paint(mesh, data)
    layer = mesh.uv_layers.new(name="UVMap")
    layer.uv.foreach_set("vector", np.ascontiguousarray(data.uv[data.uv_faces.ravel()], np.float32).ravel())
    return mesh


def _skin(mesh: bpy.types.Object, armature: bpy.types.Object, skinning: np.ndarray) -> None:
    for column, joint in enumerate(JOINT_NAMES):
        group = mesh.vertex_groups.new(name=BONE_NAMES[joint])
        weights = skinning[:, column]
        whole = np.flatnonzero(weights == 1)
        group.add(whole.tolist(), 1.0, "REPLACE")
        for vertex in np.flatnonzero((weights > 0) & (weights != 1)).tolist():
            group.add((vertex,), float(weights[vertex]), "REPLACE")
    modifier = mesh.modifiers.new("Armature", "ARMATURE")
    modifier.object = armature
    # Blended linearly as the backend does; dual quaternions would bulge otherwise than the avatar was trained with.
    modifier.use_deform_preserve_volume = False


def _add_shape_keys(mesh: bpy.types.Object, armature: bpy.types.Object, data: RigData) -> Steps[None]:
    basis = points_to_blender(data.vertices)
    mesh.shape_key_add(name="Basis", from_mix=False)
    mesh.data.shape_keys.use_relative = True
    total = len(data.expression_names) + len(data.arkit_names) + len(data.corrective_index) + len(data.identity)
    made = 0

    def add(name: str, delta: np.ndarray) -> bpy.types.ShapeKey:
        block = mesh.shape_key_add(name=name, from_mix=False)
        block.points.foreach_set("co", np.ascontiguousarray(basis + points_to_blender(delta), np.float32).ravel())
        return block

    sliders = [
        *zip(data.arkit_names, data.arkit_deltas, [(0.0, 1.0)] * len(data.arkit_names)),
        *zip(data.expression_names, data.expression_deltas, data.expression_range),
    ]
    for name, delta, (low, high) in sliders:
        block = add(name, delta)
        block.slider_min, block.slider_max, block.value = float(low), float(high), 0.0
        made += 1
        if made % _KEYS_A_STEP == 0:
            yield made / total
    for feature, delta in zip(data.corrective_index.tolist(), data.corrective_deltas):
        drive_corrective(add(corrective_name(feature), delta), feature, armature)
        made += 1
        if made % _KEYS_A_STEP == 0:
            yield made / total
    for index, delta in enumerate(data.identity_deltas):
        block = add(identity_name(index), delta)
        block.slider_min, block.slider_max, block.value = -IDENTITY_REACH, IDENTITY_REACH, 0.0
        # The Basis is this person already. A muted key costs nothing; unmute it to sculpt her face with it.
        block.mute = True
        made += 1
        if made % _KEYS_A_STEP == 0:
            yield made / total


def _keep_awake(armature: bpy.types.Object, key: bpy.types.Key, names: tuple[str, ...]) -> None:
    """Make the armature depend on the expressions.

    Blender evaluates only what something visible needs. An artist hides the mesh to see the avatar, and its shape keys
    would then stand still, in renders too. A driver on a property of the armature that reads them keeps them moving.
    """
    armature[AWAKE] = 0.0
    driver = armature.driver_add(f'["{AWAKE}"]').driver
    driver.type = "SUM"
    for name in names:
        variable = driver.variables.new()
        variable.type = "SINGLE_PROP"
        target = variable.targets[0]
        target.id_type, target.id = "KEY", key
        target.data_path = f'key_blocks["{bpy.utils.escape_identifier(name)}"].value'


def _flat(points: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(points_to_blender(points), np.float32).ravel()
