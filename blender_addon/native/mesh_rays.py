"""Hides a rig's mesh from all rays of a render, and shows it again as it was.

The mesh stays enabled in renders, because the engine Effigy shows an avatar where its mesh is enabled.
"""

from __future__ import annotations

from typing import Final

import bpy

from ..native_clouds import cloud_of
from ..rig.rig_properties import Rig, find_rigs

RAYS: Final = (
    "visible_camera",
    "visible_diffuse",
    "visible_glossy",
    "visible_transmission",
    "visible_volume_scatter",
    "visible_shadow",
)
_STORED: Final = 1 << len(RAYS)


def hide(mesh: bpy.types.Object) -> None:
    if not mesh.effigy_native.hidden_rays:
        seen = sum(1 << bit for bit, ray in enumerate(RAYS) if getattr(mesh, ray))
        mesh.effigy_native.hidden_rays = seen | _STORED
    for ray in RAYS:
        setattr(mesh, ray, False)


def show(mesh: bpy.types.Object) -> None:
    seen = mesh.effigy_native.hidden_rays
    if seen:
        mesh.effigy_native.hidden_rays = 0
        for bit, ray in enumerate(RAYS):
            setattr(mesh, ray, bool(seen >> bit & 1))


def is_left(rig: Rig) -> bool:
    """Whether a mesh is hidden although its native splats are gone, because an artist has deleted them."""
    hidden = rig.mesh.effigy_native.hidden_rays
    return bool(hidden) and rig.is_editable and cloud_of(rig, bpy.data.objects) is None


def show_left() -> None:
    """Shows every mesh of the file whose native splats are gone."""
    for rig in find_rigs(bpy.data.objects):
        if is_left(rig):
            show(rig.mesh)
