"""The point cloud object of an avatar: made beside its rig, filled with the splats of a frame, and removed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import bpy
import numpy as np

from ..errors import EffigyError
from ..native_clouds import TYPE, cloud_of, clouds
from ..rig.rig_properties import Rig
from . import mesh_rays
from .frame import NativeSplats, aligned

MOTION: Final = "Effigy Motion"
"""Name of the modifier, and of its node group, that changes nothing (see the package)."""
MOTION_PROPERTY: Final = "effigy_motion"
FROM_DISK: Final = "Splats from Disk"
"""Name of the modifier that reads them from a file."""


def make(rig: Rig, splats: NativeSplats) -> bpy.types.Object:
    """Makes the native splats of a rig, a child of its mesh, or fills those that it has, and hides the mesh from
    renders. What an artist has set or keyed on an existing point cloud stays.
    """
    cloud = cloud_of(rig, bpy.data.objects)
    if cloud is None:
        data = bpy.data.pointclouds.new(f"{rig.armature.name} splats")
        data.type = TYPE
        cloud = bpy.data.objects.new(data.name, data)
        cloud.effigy_native.mesh = rig.mesh
        for collection in rig.mesh.users_collection:
            collection.objects.link(cloud)
    cloud.effigy_native.baked = False
    own_data()
    write(cloud.data, splats)
    place(cloud, rig.mesh)
    _remove_modifiers(cloud)
    modifier = cloud.modifiers.new(MOTION, "NODES")
    modifier.node_group, modifier.show_expanded = _nothing(), False
    mesh_rays.hide(rig.mesh)
    return cloud


def make_baked(rig: Rig, splats: NativeSplats, file: bpy.types.CacheFile, prim: str) -> bpy.types.Object:
    """The same for native splats that Blender reads from a file. `splats` are those of any frame, in the world."""
    cloud = make(rig, splats)
    place(cloud, None)
    cloud.effigy_native.baked = True
    _remove_modifiers(cloud)
    modifier = cloud.modifiers.new(FROM_DISK, "MESH_SEQUENCE_CACHE")
    modifier.cache_file, modifier.object_path = file, prim
    return cloud


def place(cloud: bpy.types.Object, parent: bpy.types.Object | None) -> None:
    """Puts a point cloud where its parent is, or at the world's origin."""
    cloud.parent = parent
    cloud.matrix_parent_inverse.identity()
    cloud.matrix_basis.identity()


def _remove_modifiers(cloud: bpy.types.Object) -> None:
    """Removes those that this module has made."""
    for modifier in list(cloud.modifiers):
        tree = modifier.node_group if modifier.type == "NODES" else None
        if modifier.type == "MESH_SEQUENCE_CACHE" or (tree is not None and tree.get(MOTION_PROPERTY)):
            cloud.modifiers.remove(modifier)


def remove(rig: Rig) -> None:
    """Removes the native splats of a rig, if it has any, and shows its mesh in renders again."""
    while (cloud := cloud_of(rig, bpy.data.objects)) is not None:
        data = cloud.data
        bpy.data.objects.remove(cloud)
        if not data.users:
            bpy.data.pointclouds.remove(data)
    mesh_rays.show(rig.mesh)


def check_own(rig: Rig) -> None:
    """Raises an `EffigyError` for a rig whose mesh belongs to another file."""
    if rig.mesh.library is not None:
        raise EffigyError(
            f"“{rig.mesh.name}” is linked from another file: make a library override of the rig, or add native splats "
            "in that file."
        )


def own_data() -> None:
    """Gives each point cloud of this file data of its own, where it shares them with another rig's, as the copies that
    *Duplicate Linked* and library overrides make do.
    """
    taken: set[bpy.types.ID] = set()
    for cloud in clouds(bpy.data.objects):
        if cloud.library is None and not cloud.effigy_native.baked:
            if cloud.data in taken or cloud.data.library is not None:
                cloud.data = cloud.data.copy()
            taken.add(cloud.data)


def fits(data: bpy.types.PointCloud, splats: NativeSplats) -> bool:
    """Whether splats can be written without adding or removing anything."""
    return len(data.points) == splats.count and all(name in data.attributes for name, *_ in _columns(splats))


def write(data: bpy.types.PointCloud, splats: NativeSplats) -> None:
    """Fills a point cloud, and tells Blender."""
    if len(data.points) != splats.count:
        data.resize(splats.count)
    elif "rotation" in data.attributes:
        # A render blends the numbers between two times of an exposure.
        before = np.empty(4 * splats.count, np.float32)
        data.attributes["rotation"].data.foreach_get("value", before)
        splats = replace(splats, rotation=aligned(splats.rotation, before.reshape(-1, 4)))
    for name, kind, key, values in _columns(splats):
        attribute = data.attributes.get(name) or data.attributes.new(name, kind, "POINT")
        attribute.data.foreach_set(key, np.ascontiguousarray(values).ravel())
    data.update_tag()


def hide_all(data: bpy.types.PointCloud) -> None:
    """Makes all splats transparent: the head has no size in this frame, or is deleted."""
    attribute = data.attributes.get("radiance:base")
    if attribute is not None:
        attribute.data.foreach_set("vector", np.zeros(4 * len(data.points), np.float32))
        data.update_tag()


def _columns(splats: NativeSplats) -> Iterator[tuple[str, str, str, np.ndarray]]:
    """Name, type, RNA name of the value, and values of each attribute."""
    yield "position", "FLOAT_VECTOR", "vector", splats.position
    yield "rotation", "QUATERNION", "value", splats.rotation
    yield "scale", "FLOAT_VECTOR", "vector", splats.scale
    yield "radiance:base", "FLOAT4", "vector", splats.base
    for number, values in enumerate(splats.harmonics):
        yield f"radiance:sh_{number}", "FLOAT_VECTOR", "vector", values


def _nothing() -> bpy.types.NodeTree:
    """The node group that gives back the geometry that it gets."""
    for tree in bpy.data.node_groups:
        if tree.get(MOTION_PROPERTY) and tree.library is None:
            return tree
    tree = bpy.data.node_groups.new(MOTION, "GeometryNodeTree")
    tree[MOTION_PROPERTY] = True
    for direction in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=direction, socket_type="NodeSocketGeometry")
    given, taken = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    taken.location.x = 250
    tree.links.new(given.outputs[0], taken.inputs[0])
    # Blender evaluates what has a clock anew in every frame.
    tree.nodes.new("GeometryNodeInputSceneTime").location.y = -120
    return tree
