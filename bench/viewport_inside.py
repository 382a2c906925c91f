"""The part of `bench.viewport` that runs in the bpy module: transfer, sorting, upload, drawing, latency and memory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import numpy as np

ORDER = json.loads(Path(sys.argv[1]).read_text("utf-8"))
sys.path[:0] = [ORDER["root"], str(Path(__file__).parent)]

from blender_addon.viewport import splat_framebuffer
from blender_addon.viewport.sorting import back_to_front
from blender_addon.viewport.splat_framebuffer import SplatFramebuffer, SplatTexture, ViewCamera
from blender_addon.viewport.splats import DrawStyle, Splats, pack
from blender_addon.viewport.viewpoint import Viewpoint
from blender_addon.worker.client import WorkerClient

WIDTH, HEIGHT = 1057, 782
"""Pixels of a 3D View in a window of 1280 x 900."""
DISTANCE, FOCAL = 0.75, 1.389
"""Metres, and Blender's default perspective (50 mm on 72 mm): the head takes two fifths of the view's height."""
REPEATS, SECONDS, RATE = 15, 8.0, 24
WARMED = 250
"""Frames before memory is measured."""


def camera_at(angle: float) -> ViewCamera:
    """The view from this angle around the vertical axis, radians."""
    sine, cosine = np.sin(angle), np.cos(angle)
    rotation = np.array(((cosine, sine, 0), (0, 0, 1), (sine, -cosine, 0)))
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = rotation, (0, 0, -DISTANCE)
    projection = np.zeros((4, 4))
    projection[0, 0], projection[1, 1] = FOCAL, FOCAL * WIDTH / HEIGHT
    projection[2, 2:], projection[3, 2] = (-1.0002, -0.020002), -1
    return ViewCamera(view, projection, WIDTH, HEIGHT)


def median_ms(work: Callable[[int], object]) -> float:
    times = []
    for number in range(REPEATS + 2):
        started = time.perf_counter()
        work(number)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times[2:]))


def splats_params(avatar: str, number: int, expressions: int, camera: ViewCamera) -> dict[str, Any]:
    """Parameters of `avatar.splats` for a pose with one expression, which `number` selects."""
    expression = np.zeros(expressions, np.float32)
    expression[number % expressions] = 0.5
    viewpoint = Viewpoint.from_view_matrix(camera.view, False)
    return {"avatar": Path(avatar), "pose": {"expression": expression}} | viewpoint.message()


def measure(client: WorkerClient, avatar: str, network_ms: float) -> dict[str, float]:
    import gpu

    expressions = len(client.call("head.rig", {}, timeout=120)["expression_names"])

    def request(number: int) -> dict[str, Any]:
        return splats_params(avatar, number, expressions, camera_at(0.0))

    round_trip = median_ms(lambda number: client.call("avatar.splats", request(number), timeout=120))
    answer = client.call("avatar.splats", request(0))
    splats = Splats.from_answer(answer, np.eye(4))
    # Untrained Gaussians have a low opacity. With the median opacity of trained ones they cost as much to draw.
    splats = Splats(
        splats.means,
        splats.quaternions,
        splats.scales,
        np.full_like(splats.opacities, 0.5),
        splats.colors,
        splats.motion,
    )
    packed = pack([(splats, splats.motion, DrawStyle())])
    target = gpu.types.GPUOffScreen(WIDTH, HEIGHT)
    framebuffer = SplatFramebuffer()

    def draw(texture: SplatTexture, angle: float) -> None:
        camera = camera_at(angle)
        with target.bind():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=(0.2, 0.2, 0.2, 1.0), depth=1.0)
            framebuffer.draw(texture, camera)
            framebuffer.composite(camera)
            # Reading a pixel forces the driver to finish drawing.
            frame.read_color(WIDTH // 2, HEIGHT // 2, 1, 1, 4, 0, "FLOAT")

    texture = SplatTexture(packed)
    figures = {
        "network_ms": network_ms,
        "transfer_ms": max(0.0, round_trip - network_ms),
        "convert_ms": median_ms(lambda _: pack([(Splats.from_answer(answer, np.eye(4)), np.eye(4), DrawStyle())])),
        "sort_ms": median_ms(lambda number: back_to_front(packed.means, np.array((np.sin(number), np.cos(number), 0)))),
        "upload_ms": median_ms(lambda _: SplatTexture(packed)),
        "draw_ms": median_ms(lambda number: draw(texture, 0.01 * number)),
    }
    latencies, fresh, poses = play(client, request, draw)
    figures |= {
        "latency_p50_ms": float(np.median(latencies)),
        "latency_p95_ms": float(np.percentile(latencies, 95)),
        "fresh_share": fresh / poses,
    }
    target.free()
    splat_framebuffer.release()
    return figures


def play(client: WorkerClient, request: Callable[..., dict], draw: Callable) -> tuple[list[float], int, int]:
    """Latencies in ms, the number of poses that were drawn in time, and the number of poses."""
    arrived: list[tuple[int, float, dict]] = []
    latencies, fresh, number, begun = [], 0, -1, time.perf_counter()
    while (now := time.perf_counter() - begun) < SECONDS:
        if int(now * RATE) > number:
            number = int(now * RATE)
            due = number, begun + number / RATE
            client.request(
                "avatar.splats", request(number), lambda answer, due=due: arrived.append((*due, answer)), latest="bench"
            )
        client.pump()
        if not arrived:
            time.sleep(0.001)
            continue
        shown, since, answer = arrived.pop()
        arrived.clear()
        splats = Splats.from_answer(answer, np.eye(4))
        draw(SplatTexture(pack([(splats, splats.motion, DrawStyle())])), 0.0)
        latencies.append(1e3 * (time.perf_counter() - since))
        fresh += shown == int((time.perf_counter() - begun) * RATE)
    return latencies, fresh, int(SECONDS * RATE)


def leaks(client: WorkerClient, avatar: str, frames: int, depsgraph: bpy.types.Depsgraph) -> list[tuple[int, float]]:
    """(frame, resident MB) at intervals while the pose changes in every frame."""
    import gpu
    from viewport_screen import resident

    from blender_addon.viewport.mesh import MeshBatches

    expressions = len(client.call("head.rig", {}, timeout=120)["expression_names"])
    body = next(obj for obj in depsgraph.objects if obj.type == "MESH")
    target, framebuffer, mesh, sizes = gpu.types.GPUOffScreen(160, 120), SplatFramebuffer(), MeshBatches(), []
    for number in range(WARMED + frames + 1):
        if number >= WARMED and (number - WARMED) % max(1, frames // 10) == 0:
            sizes.append((number - WARMED, resident()))
            print(f"frame {sizes[-1][0]}: {sizes[-1][1]:.1f} MB", flush=True)
        camera = camera_at(0.01 * number)
        camera = ViewCamera(camera.view, camera.projection, 160, 120)
        answer = client.call("avatar.splats", splats_params(avatar, number, expressions, camera))
        splats = Splats.from_answer(answer, np.eye(4))
        mesh.update(body, depsgraph, number)
        with target.bind():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=(0.2, 0.2, 0.2, 1.0), depth=1.0)
            framebuffer.draw(SplatTexture(pack([(splats, splats.motion, DrawStyle())])), camera, [mesh])
            framebuffer.composite(camera)
            mesh.draw_wire(camera)
            frame.read_color(80, 60, 1, 1, 4, 0, "FLOAT")
    target.free()
    splat_framebuffer.release()
    return sizes


class Engine(bpy.types.RenderEngine):
    """The only way to a GPU context in Blender without a window."""

    bl_idname, bl_label, bl_use_gpu_context = "EFFIGY_BENCH", "Bench", True

    def render(self, depsgraph: bpy.types.Depsgraph) -> None:
        client = WorkerClient([ORDER["python"], "-m", "backend", "serve"], ORDER["root"], None, print)
        try:
            if "memory" in ORDER:
                figures: object = leaks(client, ORDER["memory"]["avatar"], ORDER["memory"]["frames"], depsgraph)
            else:
                figures = {
                    count: measure(client, avatar, ORDER["network_ms"][count])
                    for count, avatar in ORDER["avatars"].items()
                }
        finally:
            client.close()
        Path(ORDER["result"]).write_text(json.dumps(figures), "utf-8")


def main() -> None:
    bpy.utils.register_class(Engine)
    # As many faces as the head, for the memory of a rig's mesh.
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=72, y_subdivisions=72, size=0.2)
    scene = bpy.context.scene
    scene.render.engine, scene.render.resolution_x, scene.render.resolution_y = Engine.bl_idname, 8, 8
    bpy.ops.render.render()
    bpy.utils.unregister_class(Engine)


main()
