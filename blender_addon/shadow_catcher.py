"""A floor that is seen only by the shadow of a head, for a composite over a plate."""

from __future__ import annotations

from typing import Final

import bpy
import numpy as np

from .file_names import datablock_name
from .rig.rig_properties import Rig

WIDTH: Final = 6.0
"""Of the floor, in heights of the head: a sun that stands 20 degrees high still throws the whole shadow on it."""


def add_shadow_catcher(rig: Rig, scene: bpy.types.Scene) -> bpy.types.Object:
    """Adds a floor below the head, which Cycles renders as its shadow alone, and makes the film transparent."""
    world = np.array(rig.mesh.matrix_world)
    corners = np.array(rig.mesh.bound_box) @ world[:3, :3].T + world[:3, 3]
    low, high = corners.min(0), corners.max(0)
    half = WIDTH * max(high[2] - low[2], 1e-3) / 2
    mesh = bpy.data.meshes.new(datablock_name(rig.mesh.name, " floor"))
    square = [(x * half, y * half, 0.0) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    mesh.from_pydata(square, [], [(0, 1, 2, 3)])
    floor = bpy.data.objects.new(mesh.name, mesh)
    floor.location = (*((low + high) / 2)[:2], low[2])
    floor.is_shadow_catcher = True
    (rig.mesh.users_collection or (scene.collection,))[0].objects.link(floor)
    scene.render.film_transparent = True
    return floor
