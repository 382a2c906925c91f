"""The rig's mesh, as it was evaluated last: where it is, for the splats to lie over it, and its wire over the splats."""

from __future__ import annotations

from typing import Final

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from .splat_framebuffer import Lens

NEARER: Final = 0.01
"""Metres by which lines are drawn nearer, for the splats' mean distance lies a little before or behind the mesh."""
COLOR: Final = (0.0, 0.0, 0.0, 0.35)


class DrawnMesh:
    """One mesh on the GPU, taken from Blender again when it has changed."""

    def __init__(self) -> None:
        self.changed_at = -np.inf
        self.surface: gpu.types.GPUBatch | None = None
        self.world = np.eye(4)
        self._lines: gpu.types.GPUBatch | None = None

    def update(self, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph, changed_at: float) -> None:
        if changed_at <= self.changed_at:
            return
        self.changed_at = changed_at
        evaluated = mesh.evaluated_get(depsgraph)
        data = evaluated.data
        data.calc_loop_triangles()
        places = np.empty(3 * len(data.vertices), np.float32)
        corners, edges = np.empty(3 * len(data.loop_triangles), np.int32), np.empty(2 * len(data.edges), np.int32)
        data.vertices.foreach_get("co", places)
        data.loop_triangles.foreach_get("vertices", corners)
        data.edges.foreach_get("vertices", edges)
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        where = {"pos": places.reshape(-1, 3)}
        self.surface = batch_for_shader(shader, "TRIS", where, indices=corners.reshape(-1, 3))
        self._lines = batch_for_shader(shader, "LINES", where, indices=edges.reshape(-1, 2))
        self.world = np.array(evaluated.matrix_world)

    def draw_lines(self, lens: Lens) -> None:
        """The wire, hidden where the head itself is before it."""
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.blend_set("ALPHA")
        with gpu.matrix.push_pop():
            gpu.matrix.load_matrix(nearer(lens, self.world))
            shader.bind()
            shader.uniform_float("color", COLOR)
            self._lines.draw(shader)
        gpu.state.blend_set("NONE")
        gpu.state.depth_test_set("NONE")


def nearer(lens: Lens, world: np.ndarray) -> Matrix:
    """The model-view matrix that brings a mesh towards the eye without moving it on the screen."""
    model_view = Matrix((lens.view @ world).tolist())
    if lens.orthographic:
        return Matrix.Translation((0, 0, NEARER)) @ model_view
    distance = max(model_view.translation.length, 10 * NEARER)
    return Matrix.Scale(1 - NEARER / distance, 4) @ model_view
