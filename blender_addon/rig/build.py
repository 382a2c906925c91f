"""Builds a head model as Blender objects: a mesh with shape keys, skinned to an armature of five bones.

Blender computes the same formula as FLAME (Li et al. 2017, eq. 1-3): shape keys are added to the Basis, then the
armature modifier applies linear blend skinning. The head model is therefore represented exactly, and Blender's
evaluated vertices are those of the backend. Order of the shape keys: Basis, expressions (the sliders that artists use),
correctives, identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import bpy
import numpy as np

from ..file_names import datablock_name
from .action import value_path
from .armature import add_armature
from .conventions import points_to_blender
from .correctives import corrective_name, drive_corrective
from .data import JOINT_NAMES, RigData
from .paint import paint
from .rig_properties import BONE_NAMES, JOINT_PROPERTY, NOTED, RIG_PROPERTY, SCHEMA, Rig, identity_name
from .steps import Steps, finish

MAX_IDENTITY: Final = 5.0
"""Limit of the identity sliders, in standard deviations. Beyond it, shapes no longer look like faces."""
DEPENDENCY_PROPERTY: Final = "effigy_awake"
"""Custom property on the armature whose driver reads all expressions (see `_depend_on_expressions`)."""

_KEYS_PER_STEP: Final = 8


def build_rig(data: RigData, name: str, parent: bpy.types.Collection) -> Rig:
    """Makes a collection `name` in `parent` with the rig of `data`."""
    return finish(build_rig_steps(data, name, parent))


def build_rig_steps(data: RigData, name: str, parent: bpy.types.Collection) -> Steps[Rig]:
    """`build_rig` in steps of a few milliseconds (see `steps`)."""
    collection = bpy.data.collections.new(datablock_name(name))
    parent.children.link(collection)
    try:
        armature = add_armature(data, datablock_name(name, " rig"), collection)
        mesh = bpy.data.objects.new(datablock_name(name), _mesh(data, datablock_name(name)))
        collection.objects.link(mesh)
        mesh.parent = armature
        yield 0.1
        _skin(mesh, armature, data.skinning)
        yield 0.15
        for share in _add_shape_keys(mesh, armature, data):
            yield 0.15 + 0.85 * share
        _depend_on_expressions(armature, mesh.data.shape_keys, data.arkit_names + data.expression_names)
        return _store_properties(armature, mesh, data)
    except BaseException:
        # A cancelled import closes this generator, and must not leave an incomplete rig behind.
        for obj in list(collection.objects):
            bpy.data.batch_remove((obj, obj.data))
        bpy.data.collections.remove(collection)
        raise


def _mesh(data: RigData, name: str) -> bpy.types.Mesh:
    """The mesh at rest, smooth, with its UV map and its viewport colours."""
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
        rigid = np.flatnonzero(weights == 1)
        group.add(rigid.tolist(), 1.0, "REPLACE")
        for vertex in np.flatnonzero((weights > 0) & (weights != 1)).tolist():
            group.add((vertex,), float(weights[vertex]), "REPLACE")
    modifier = mesh.modifiers.new("Armature", "ARMATURE")
    modifier.object = armature
    # Linear blend skinning, as in the backend. Dual quaternions would give other vertices than the avatar was trained
    # on.
    modifier.use_deform_preserve_volume = False


def _add_shape_keys(mesh: bpy.types.Object, armature: bpy.types.Object, data: RigData) -> Iterator[float]:
    basis = points_to_blender(data.vertices)
    mesh.shape_key_add(name="Basis", from_mix=False)
    mesh.data.shape_keys.use_relative = True
    # The Nonlinear Animation editor shows this name above the strips of the face.
    mesh.data.shape_keys.name = datablock_name(mesh.name, " face")
    total = len(data.expression_names) + len(data.arkit_names) + len(data.corrective_index) + len(data.identity)
    made = 0

    def add(name: str, delta: np.ndarray) -> bpy.types.ShapeKey:
        block = mesh.shape_key_add(name=name, from_mix=False)
        block.points.foreach_set("co", np.ascontiguousarray(basis + points_to_blender(delta), np.float32).ravel())
        return block

    sliders = [
        *zip(data.arkit_names, data.arkit_deltas, [(0.0, 1.0)] * len(data.arkit_names), strict=True),
        *zip(data.expression_names, data.expression_deltas, data.expression_range, strict=True),
    ]
    for name, delta, (low, high) in sliders:
        block = add(name, delta)
        block.slider_min, block.slider_max, block.value = float(low), float(high), 0.0
        made += 1
        if made % _KEYS_PER_STEP == 0:
            yield made / total
    for feature, delta in zip(data.corrective_index.tolist(), data.corrective_deltas, strict=True):
        drive_corrective(add(corrective_name(feature), delta), feature, armature)
        made += 1
        if made % _KEYS_PER_STEP == 0:
            yield made / total
    for index, delta in enumerate(data.identity_deltas):
        block = add(identity_name(index), delta)
        block.slider_min, block.slider_max, block.value = -MAX_IDENTITY, MAX_IDENTITY, 0.0
        # The Basis already has this person's identity. A muted shape key costs no time; unmute it to change the face.
        block.mute = True
        made += 1
        if made % _KEYS_PER_STEP == 0:
            yield made / total


def _depend_on_expressions(armature: bpy.types.Object, key: bpy.types.Key, names: tuple[str, ...]) -> None:
    """Makes the armature depend on the expressions.

    Blender evaluates only data that something visible depends on. If an artist hides the mesh, its shape keys would no
    longer be evaluated, neither in the viewport nor in renders. A driver on a property of the armature that reads them
    keeps them evaluated.
    """
    armature[DEPENDENCY_PROPERTY] = 0.0
    driver = armature.driver_add(f'["{DEPENDENCY_PROPERTY}"]').driver
    driver.type = "SUM"
    for name in names:
        variable = driver.variables.new()
        variable.type = "SINGLE_PROP"
        target = variable.targets[0]
        target.id_type, target.id = "KEY", key
        target.data_path = value_path(name)


def _store_properties(armature: bpy.types.Object, mesh: bpy.types.Object, data: RigData) -> Rig:
    """Writes the custom properties that make these two objects a rig."""
    armature[RIG_PROPERTY] = {
        "schema": SCHEMA,
        "part": "armature",
        "head_name": data.head_name,
        "head_fingerprint": data.head_fingerprint,
        "expression_names": "\n".join(data.expression_names),
        **_arkit_properties(data),
        # Blender's custom properties can only hold flat arrays.
        "identity": data.identity.astype(np.float64).tolist(),
        "joints": data.joints.astype(np.float64).ravel().tolist(),
        "joint_identity": data.joint_identity.astype(np.float64).ravel().tolist(),
    }
    vertices = np.unique(np.linspace(0, len(data.vertices) - 1, NOTED).round().astype(int))
    mesh[RIG_PROPERTY] = {
        "schema": SCHEMA,
        "part": "mesh",
        "vertices": vertices.tolist(),
        "vertex_positions": points_to_blender(data.vertices[vertices]).astype(np.float64).ravel().tolist(),
    }
    for joint in JOINT_NAMES:
        armature.data.bones[BONE_NAMES[joint]][JOINT_PROPERTY] = joint
    return Rig(armature, mesh)


def _arkit_properties(data: RigData) -> dict[str, str | list[float]]:
    if not data.arkit_names:
        return {}
    return {
        "arkit_names": "\n".join(data.arkit_names),
        "arkit_expression": data.arkit_expression.astype(np.float64).ravel().tolist(),
        "arkit_jaw": data.arkit_jaw.astype(np.float64).ravel().tolist(),
    }


def _flat(points: np.ndarray) -> np.ndarray:
    """(V, 3) in head space -> (3 V,) float32 in Blender space, for `foreach_set`."""
    return np.ascontiguousarray(points_to_blender(points), np.float32).ravel()
