"""Helpers for the viewport tests: run code in a GPU context, draw views of avatars into a buffer and read them back.

Blender as a module has no window. It creates a GPU context only for a render engine that requests one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import bpy
import numpy as np
from engine_scenes import PACKAGE, SIZE, session


def viewport(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.blender_addon.viewport.{name}")


def in_gpu(work: Callable[[], Any]) -> Any:
    """Calls `work` while Blender has a GPU context, and returns its result."""
    outcome: list[Any] = []

    class Engine(bpy.types.RenderEngine):
        bl_idname, bl_label, bl_use_gpu_context = "EFFIGY_TEST_GPU", "GPU", True

        def render(self, depsgraph: bpy.types.Depsgraph) -> None:
            try:
                outcome.append((work(), None))
            except BaseException as error:
                outcome.append((None, error))

    scene = bpy.context.scene
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
        scene.collection.objects.link(scene.camera)
    engine, size = scene.render.engine, (scene.render.resolution_x, scene.render.resolution_y)
    bpy.utils.register_class(Engine)
    try:
        scene.render.engine, scene.render.resolution_x, scene.render.resolution_y = "EFFIGY_TEST_GPU", 8, 8
        bpy.ops.render.render()
    finally:
        scene.render.engine = engine
        scene.render.resolution_x, scene.render.resolution_y = size
        bpy.utils.unregister_class(Engine)
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def view_camera(size: int = SIZE) -> Any:
    """The scene's camera as a `ViewCamera`."""
    bpy.context.view_layer.update()
    camera, depsgraph = bpy.context.scene.camera, bpy.context.evaluated_depsgraph_get()
    projection = camera.calc_matrix_camera(depsgraph, x=size, y=size)
    return viewport("splat_framebuffer").ViewCamera(
        np.linalg.inv(np.array(camera.matrix_world)), np.array(projection), size, size
    )


def worker_camera(size: int = SIZE) -> dict[str, Any]:
    """The scene's camera in the worker's protocol."""
    camera = importlib.import_module(f"{PACKAGE}.blender_addon.engine.camera")
    bpy.context.view_layer.update()
    return camera.worker_camera(
        bpy.context.scene.camera,
        bpy.context.evaluated_depsgraph_get(),
        (size, size),
        camera.RenderRegion(0, 0, size, size),
    ).message()


def read_pose(rig: Any) -> Any:
    """The rig's `RigPose`."""
    bpy.context.view_layer.update()
    return importlib.import_module(f"{PACKAGE}.blender_addon.rig.pose").read_pose(
        rig, bpy.context.evaluated_depsgraph_get()
    )


def pose_of(rig: Any) -> dict[str, Any]:
    """The rig's pose as the worker takes it."""
    return read_pose(rig).message()


def splats_of(rig: Any, avatar: object, camera: Any) -> Any:
    """The worker's splats for the rig's pose, seen by this `ViewCamera`."""
    pose = read_pose(rig)
    viewpoint = viewport("viewpoint").Viewpoint.from_view_matrix(camera.view, camera.orthographic)
    request = viewport("splats_request").SplatsRequest(avatar, pose, viewpoint)
    answer = session().client().call("avatar.splats", request.message())
    return viewport("splats").Splats.from_answer(answer, pose.head_motion)


def drawn(
    avatars: Sequence[tuple],
    camera: Any,
    before: Callable[[], None] | None = None,
    meshes: Sequence = (),
    step: int = 1,
) -> np.ndarray:
    """(H, W, 4) premultiplied, top row first: `avatars` as for `splats.pack`, over what `before` draws first."""

    def draw() -> np.ndarray:
        import gpu

        module = viewport("splat_framebuffer")
        target = gpu.types.GPUOffScreen(camera.width, camera.height, format="RGBA32F")
        with target.bind():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=(0.0, 0.0, 0.0, 0.0), depth=1.0)
            if before:
                before()
            framebuffer = module.SplatFramebuffer(encodes=False)
            texture = module.SplatTexture(viewport("splats").pack(avatars))
            framebuffer.draw(texture, camera, [mesh() for mesh in meshes], step)
            framebuffer.composite(camera)
            buffer = frame.read_color(0, 0, camera.width, camera.height, 4, 0, "FLOAT")
        pixels = np.array(buffer.to_list(), np.float32).reshape(camera.height, camera.width, 4)[::-1]
        target.free()
        module.release()
        return pixels

    return in_gpu(draw)


def cube(center: Sequence[float], side: float, camera: Any) -> Callable[[], None]:
    """Draws a red cube with depth."""

    def draw() -> None:
        import gpu
        from gpu_extras.batch import batch_for_shader
        from mathutils import Matrix

        corners = [tuple(c + side * (k >> axis & 1) - side / 2 for axis, c in enumerate(center)) for k in range(8)]
        faces = (
            (0, 1, 3),
            (0, 3, 2),
            (4, 6, 7),
            (4, 7, 5),
            (0, 4, 5),
            (0, 5, 1),
            (2, 3, 7),
            (2, 7, 6),
            (0, 2, 6),
            (0, 6, 4),
            (1, 5, 7),
            (1, 7, 3),
        )
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        gpu.state.depth_test_set("LESS_EQUAL")
        gpu.state.depth_mask_set(True)
        with gpu.matrix.push_pop(), gpu.matrix.push_pop_projection():
            gpu.matrix.load_matrix(Matrix(camera.view.tolist()))
            gpu.matrix.load_projection_matrix(Matrix(camera.projection.tolist()))
            shader.bind()
            shader.uniform_float("color", (1.0, 0.0, 0.0, 1.0))
            batch_for_shader(shader, "TRIS", {"pos": corners}, indices=faces).draw(shader)

    return draw
