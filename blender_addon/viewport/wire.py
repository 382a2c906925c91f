"""The mesh's wire over the splats: thin lines, hidden where the head itself is before them."""

from __future__ import annotations

from typing import Final

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from .picture import Lens

NEARER: Final = 0.006
"""Metres by which lines are drawn nearer than the mesh is, for the splats lie on both sides of it."""
COLOR: Final = (0.0, 0.0, 0.0, 0.35)


class Wire:
    """The lines of one mesh, as it was evaluated last."""

    def __init__(self) -> None:
        self._made_at = -np.inf
        self._batch: gpu.types.GPUBatch | None = None

    def draw(self, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph, changed_at: float, lens: Lens) -> None:
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        if changed_at > self._made_at:
            self._made_at = changed_at
            self._batch = self._lines(shader, mesh.evaluated_get(depsgraph))
        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.blend_set("ALPHA")
        gpu.state.line_width_set(1.0)
        with gpu.matrix.push_pop():
            gpu.matrix.load_matrix(nearer(lens, mesh.evaluated_get(depsgraph).matrix_world))
            shader.bind()
            shader.uniform_float("color", COLOR)
            self._batch.draw(shader)
        gpu.state.blend_set("NONE")
        gpu.state.depth_test_set("NONE")

    @staticmethod
    def _lines(shader: gpu.types.GPUShader, mesh: bpy.types.Object) -> gpu.types.GPUBatch:
        data = mesh.data
        places, edges = np.empty(3 * len(data.vertices), np.float32), np.empty(2 * len(data.edges), np.int32)
        data.vertices.foreach_get("co", places)
        data.edges.foreach_get("vertices", edges)
        return batch_for_shader(shader, "LINES", {"pos": places.reshape(-1, 3)}, indices=edges.reshape(-1, 2))


def nearer(lens: Lens, matrix_world: Matrix) -> Matrix:
    """The model-view matrix that brings lines towards the eye without moving them on the screen."""
    model_view = Matrix(lens.view.tolist()) @ matrix_world
    if lens.orthographic:
        return Matrix.Translation((0, 0, NEARER)) @ model_view
    distance = max(model_view.translation.length, 10 * NEARER)
    return Matrix.Scale(1 - NEARER / distance, 4) @ model_view
