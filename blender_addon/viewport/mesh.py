"""The rig's evaluated mesh on the GPU: its surface, and its wireframe. `splat_framebuffer` draws the depth of the
surface, in order to bring the splats in front of the mesh.
"""

# fake-bpy-module 5.0 declares the types of `gpu` without constructors and its context managers as None.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false
from __future__ import annotations

from typing import Final

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from .splat_framebuffer import ViewCamera

WIRE_OFFSET: Final = 0.01
"""Metres by which the wireframe is drawn nearer to the view, because the splats' mean depth lies a little in front of
or behind the mesh."""
WIRE_COLOR: Final = (0.0, 0.0, 0.0, 0.35)


class MeshBatches:
    """The GPU batches of one mesh, rebuilt when the mesh has changed."""

    def __init__(self) -> None:
        self.changed_at = -np.inf
        self.surface: gpu.types.GPUBatch | None = None
        self.world = np.eye(4)
        self._wire: gpu.types.GPUBatch | None = None

    def update(self, mesh: bpy.types.Object, depsgraph: bpy.types.Depsgraph, changed_at: float) -> None:
        """Rebuilds the batches from the evaluated mesh if `changed_at` (`perf_counter`), the time of the mesh's last
        change, is later than at the last call.
        """
        if changed_at <= self.changed_at:
            return
        self.changed_at = changed_at
        evaluated = mesh.evaluated_get(depsgraph)
        data = evaluated.data
        data.calc_loop_triangles()
        positions = np.empty(3 * len(data.vertices), np.float32)
        triangles, edges = np.empty(3 * len(data.loop_triangles), np.int32), np.empty(2 * len(data.edges), np.int32)
        data.vertices.foreach_get("co", positions)
        data.loop_triangles.foreach_get("vertices", triangles)
        data.edges.foreach_get("vertices", edges)
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        attributes = {"pos": positions.reshape(-1, 3)}
        self.surface = batch_for_shader(shader, "TRIS", attributes, indices=triangles.reshape(-1, 3))
        self._wire = batch_for_shader(shader, "LINES", attributes, indices=edges.reshape(-1, 2))
        self.world = np.array(evaluated.matrix_world)

    def draw_depth(self, camera: ViewCamera) -> None:
        """Draws only the depth of the surface into the bound framebuffer, so that it hides the wires behind it."""
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.depth_mask_set(True)
        gpu.state.color_mask_set(False, False, False, False)
        with gpu.matrix.push_pop():
            gpu.matrix.load_matrix(Matrix((camera.view @ self.world).tolist()))
            shader.bind()
            shader.uniform_float("color", (0.0, 0.0, 0.0, 0.0))
            self.surface.draw(shader)
        gpu.state.color_mask_set(True, True, True, True)
        gpu.state.depth_mask_set(False)
        gpu.state.depth_test_set("NONE")

    def draw_wire(self, camera: ViewCamera, color: tuple[float, float, float, float] = WIRE_COLOR) -> None:
        """Draws the wireframe with a depth test against the bound framebuffer. `SplatFramebuffer.composite` must have
        written the splats' depth there, which hides the wires on the far side of the head.
        """
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.blend_set("ALPHA")
        with gpu.matrix.push_pop():
            gpu.matrix.load_matrix(_model_view_nearer(camera, self.world))
            shader.bind()
            shader.uniform_float("color", color)
            self._wire.draw(shader)
        gpu.state.blend_set("NONE")
        gpu.state.depth_test_set("NONE")


def _model_view_nearer(camera: ViewCamera, world: np.ndarray) -> Matrix:
    """The model-view matrix (4, 4) that brings a mesh towards the view by `WIRE_OFFSET` without moving it on the
    screen. In a perspective view it is scaled about the eye, so that the offset is exact at the distance of the
    object's origin.
    """
    model_view = Matrix((camera.view @ world).tolist())
    if camera.orthographic:
        return Matrix.Translation((0, 0, WIRE_OFFSET)) @ model_view
    distance = max(model_view.translation.length, 10 * WIRE_OFFSET)
    return Matrix.Scale(1 - WIRE_OFFSET / distance, 4) @ model_view
