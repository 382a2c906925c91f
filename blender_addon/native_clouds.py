"""Which point clouds are the native splats of which rigs: those that Blender itself draws, from version 5.3 on.

A point cloud of the type 3D Gaussian Splats has a pointer to the mesh of its rig, so that names do not matter and
copies, appended collections and library overrides keep their own. Nothing is registered in earlier versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

import bpy
from bpy.props import BoolProperty, FloatProperty, IntProperty, PointerProperty

from .errors import EffigyError
from .rig.rig_properties import Rig, find_rig, is_part

TYPE: Final = "GAUSSIAN_SPLAT"
"""Of `bpy.types.PointCloud.type`."""
NEEDS: Final = "Blender draws Gaussians by itself from version 5.3 on: render with the engine Effigy here."
_OVERRIDABLE: Final = {"LIBRARY_OVERRIDABLE"}


def is_supported() -> bool:
    """Whether this Blender draws Gaussians by itself."""
    kinds = bpy.types.PointCloud.bl_rna.properties.get("type")
    return kinds is not None and TYPE in kinds.enum_items


class EffigyNative(bpy.types.PropertyGroup):
    """`Object.effigy_native`: on a point cloud that is the splats of an avatar, and on the mesh that it hides."""

    mesh: PointerProperty(
        type=bpy.types.Object,
        override=_OVERRIDABLE,
        options={"HIDDEN"},
        poll=lambda _, obj: is_part(obj, "mesh"),
        description="The mesh of the rig whose avatar this point cloud is",
    )
    baked: BoolProperty(
        override=_OVERRIDABLE,
        options={"HIDDEN"},
        description="The splats are read from a file, so that a render needs neither Effigy nor its avatar",
    )
    light: FloatProperty(
        name="Scene Light",
        override=_OVERRIDABLE,
        default=0.0,
        min=0.0,
        max=1.0,
        subtype="FACTOR",
        # Blender evaluates an object again after a script has set a value of its own only if it is told.
        update=lambda self, _: self.id_data.update_tag(),
        description="How much the lamps and the world's colour light the avatar. At 0 it has the light of its video. "
        "Lamps throw no shadows on it",
    )
    hidden_rays: IntProperty(
        override=_OVERRIDABLE,
        options={"HIDDEN"},
        description="The kinds of rays that saw the mesh before it was hidden, as bits, plus 64; 0 while it is not",
    )


def is_cloud(obj: bpy.types.Object) -> bool:
    """Whether an object is the native splats of a rig."""
    return obj.type == "POINTCLOUD" and hasattr(obj, "effigy_native") and obj.effigy_native.mesh is not None


def clouds(objects: Iterable[bpy.types.Object]) -> Iterator[bpy.types.Object]:
    if len(bpy.data.pointclouds):
        yield from (obj for obj in objects if is_cloud(obj))


def cloud_of(rig: Rig, objects: Iterable[bpy.types.Object]) -> bpy.types.Object | None:
    """The native splats of a rig among `objects`, such as those of a scene."""
    return next((cloud for cloud in clouds(objects) if cloud.effigy_native.mesh == rig.mesh), None)


def rig_of(cloud: bpy.types.Object) -> Rig | None:
    """The rig whose avatar a point cloud shows; None if it is gone or damaged."""
    with suppress(EffigyError):
        return find_rig(cloud.effigy_native.mesh)
    return None


classes = (EffigyNative,) if is_supported() else ()


def register() -> None:
    if is_supported():
        bpy.types.Object.effigy_native = PointerProperty(type=EffigyNative, override=_OVERRIDABLE)


def unregister() -> None:
    if hasattr(bpy.types.Object, "effigy_native"):
        del bpy.types.Object.effigy_native
