"""Colours for the mesh's regions, so that gaze and an open mouth are visible in the viewport before there is an avatar.

Only the colours of Blender's solid shading are set. The avatar has its own colours, and these are never rendered.
"""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np

from .data import JOINT_NAMES, RigData

COLOR_PROPERTY: Final = "effigy_paint"
"""Custom property that names the region of a material."""
_COLORS: Final = {
    "skin": (0.68, 0.53, 0.46),
    "lips": (0.55, 0.30, 0.28),
    "eyes": (0.85, 0.85, 0.83),
    "iris": (0.05, 0.09, 0.13),
    "mouth": (0.42, 0.16, 0.15),
}
_IRIS_COSINE: Final = np.cos(np.radians(28))
"""Cosine of half the angle that the iris covers as seen from the eyeball's centre: 12 mm on a ball of 24 mm diameter,
enlarged by the width of one face on the coarsest eyes."""


def paint(mesh: bpy.types.Mesh, data: RigData) -> None:
    """Gives every face of the mesh the material of its region."""
    for name in _COLORS:
        mesh.materials.append(_material(name))
    mesh.polygons.foreach_set("material_index", _face_colors(data))


def _face_colors(data: RigData) -> np.ndarray:
    """(F,) int32 indices into `_COLORS`. A face belongs to a region if all of its corners do."""
    order = list(_COLORS)
    colors = np.zeros(len(data.faces), np.int32)

    def color(name: str, vertices: np.ndarray) -> None:
        inside = np.zeros(len(data.vertices), bool)
        inside[vertices] = True
        colors[inside[data.faces].all(1)] = order.index(name)

    empty = np.empty(0, np.int32)
    color("mouth", data.regions.get("mouth_inside", empty))
    color("lips", data.regions.get("lips", empty))
    eyes = data.regions.get("eyes", empty)
    color("eyes", eyes)
    for joint in ("eye_L", "eye_R"):
        column = JOINT_NAMES.index(joint)
        own = eyes[data.skinning[eyes, column] > 0.5]
        # Eyes look along +Z at rest.
        direction = data.vertices[own] - data.joints[column]
        color("iris", own[direction[:, 2] > _IRIS_COSINE * np.linalg.norm(direction, axis=1)])
    return colors


def _material(name: str) -> bpy.types.Material:
    """The material of a region, shared by all rigs of the file. It is found by its custom property, because an artist
    may rename and change it.
    """
    for material in bpy.data.materials:
        if material.library is None and material.get(COLOR_PROPERTY) == name:
            return material
    material = bpy.data.materials.new(f"Effigy {name}")
    material[COLOR_PROPERTY] = name
    material.diffuse_color = (*_COLORS[name], 1.0)
    return material
