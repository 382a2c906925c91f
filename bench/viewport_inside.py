"""The part of `bench.viewport` that runs in Blender as a module: transfer, sort, upload, draw, latency, and memory."""

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

from blender_addon.viewport import splat_framebuffer as pictures
from blender_addon.viewport.live import Eye, request_of
from blender_addon.viewport.sorting import back_to_front
from blender_addon.viewport.splats import Look, Splats, pack
from blender_addon.worker.client import WorkerClient

WIDTH, HEIGHT = 1057, 782
"""A 3D View in a window of 1280 x 900."""
DISTANCE, FOCAL = 0.75, 1.389
"""Blender's own perspective (50 mm on 72 mm) from 75 cm: the head is two fifths of the view's height."""
REPEATS, SECONDS, RATE = 15, 8.0, 24
WARMED = 250
"""Frames before memory is looked at."""


def lens(angle: float) -> pictures.Lens:
    sine, cosine = np.sin(angle), np.cos(angle)
    rotation = np.array(((cosine, sine, 0), (0, 0, 1), (sine, -cosine, 0)))
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = rotation, (0, 0, -DISTANCE)
    projection = np.zeros((4, 4))
    projection[0, 0], projection[1, 1] = FOCAL, FOCAL * WIDTH / HEIGHT
    projection[2, 2:], projection[3, 2] = (-1.0002, -0.020002), -1
    return pictures.Lens(view, projection, WIDTH, HEIGHT)


def median_ms(work: Callable[[int], object]) -> float:
    times = []
    for number in range(REPEATS + 2):
        started = time.perf_counter()
        work(number)
        times.append(1e3 * (time.perf_counter() - started))
    return float(np.median(times[2:]))


def measure(client: WorkerClient, avatar: str, network_ms: float) -> dict[str, float]:
    import gpu

    expressions = len(client.call("head.rig", {}, timeout=120)["expression_names"])

    def asked(number: int, angle: float = 0.0) -> dict[str, Any]:
        expression = np.zeros(expressions, np.float32)
        expression[number % expressions] = 0.5
        now = lens(angle)
        return request_of(Path(avatar), {"expression": expression}, Eye.of(now.view, False))

    round_trip = median_ms(lambda number: client.call("avatar.splats", asked(number), timeout=120))
    answer = client.call("avatar.splats", asked(0))
    splats = Splats.from_answer(answer, np.eye(4))
    # Untrained Gaussians are faint: drawn as opaque as trained ones are in the middle, they cost what those cost.
    splats = Splats(
        splats.means,
        splats.quaternions,
        splats.scales,
        np.full_like(splats.opacities, 0.5),
        splats.colors,
        splats.motion,
    )
    packed = pack([(splats, splats.motion, Look())])
    target = gpu.types.GPUOffScreen(WIDTH, HEIGHT)
    picture = pictures.Picture()

    def draw(uploaded: pictures.Uploaded, angle: float) -> None:
        now = lens(angle)
        with target.bind():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=(0.2, 0.2, 0.2, 1.0), depth=1.0)
            picture.draw(uploaded, now)
            picture.lay_over(now)
            # Nothing is drawn before somebody wants to see it.
            frame.read_color(WIDTH // 2, HEIGHT // 2, 1, 1, 4, 0, "FLOAT")

    uploaded = pictures.Uploaded(packed)
    figures = {
        "network_ms": network_ms,
        "transfer_ms": max(0.0, round_trip - network_ms),
        "convert_ms": median_ms(lambda _: pack([(Splats.from_answer(answer, np.eye(4)), np.eye(4), Look())])),
        "sort_ms": median_ms(lambda number: back_to_front(packed.means, np.array((np.sin(number), np.cos(number), 0)))),
        "upload_ms": median_ms(lambda _: pictures.Uploaded(packed)),
        "draw_ms": median_ms(lambda number: draw(uploaded, 0.01 * number)),
    }
    latencies, fresh, poses = play(client, asked, draw)
    figures |= {
        "latency_p50_ms": float(np.median(latencies)),
        "latency_p95_ms": float(np.percentile(latencies, 95)),
        "fresh_share": fresh / poses,
    }
    target.free()
    pictures.release()
    return figures


def play(client: WorkerClient, asked: Callable[..., dict], draw: Callable) -> tuple[list[float], int, int]:
    """Latencies in ms, how many poses were drawn in time, and how many there were."""
    arrived: list[tuple[int, float, dict]] = []
    latencies, fresh, number, begun = [], 0, -1, time.perf_counter()
    while (now := time.perf_counter() - begun) < SECONDS:
        if int(now * RATE) > number:
            number = int(now * RATE)
            due = number, begun + number / RATE
            client.request(
                "avatar.splats", asked(number), lambda answer, due=due: arrived.append((*due, answer)), latest="bench"
            )
        client.pump()
        if not arrived:
            time.sleep(0.001)
            continue
        shown, since, answer = arrived.pop()
        arrived.clear()
        splats = Splats.from_answer(answer, np.eye(4))
        draw(pictures.Uploaded(pack([(splats, splats.motion, Look())])), 0.0)
        latencies.append(1e3 * (time.perf_counter() - since))
        fresh += shown == int((time.perf_counter() - begun) * RATE)
    return latencies, fresh, int(SECONDS * RATE)


def leaks(client: WorkerClient, avatar: str, frames: int, depsgraph: bpy.types.Depsgraph) -> list[tuple[int, float]]:
    """(frame, MB in use) again and again while new poses come."""
    import gpu
    from viewport_screen import resident

    from blender_addon.viewport.mesh import DrawnMesh

    expressions = len(client.call("head.rig", {}, timeout=120)["expression_names"])
    body = next(obj for obj in depsgraph.objects if obj.type == "MESH")
    target, picture, mesh, sizes = gpu.types.GPUOffScreen(160, 120), pictures.Picture(), DrawnMesh(), []
    for number in range(WARMED + frames + 1):
        if number >= WARMED and (number - WARMED) % max(1, frames // 10) == 0:
            sizes.append((number - WARMED, resident()))
            print(f"frame {sizes[-1][0]}: {sizes[-1][1]:.1f} MB", flush=True)
        now = lens(0.01 * number)
        now = pictures.Lens(now.view, now.projection, 160, 120)
        expression = np.zeros(expressions, np.float32)
        expression[number % expressions] = 0.5
        answer = client.call(
            "avatar.splats", request_of(Path(avatar), {"expression": expression}, Eye.of(now.view, False))
        )
        splats = Splats.from_answer(answer, np.eye(4))
        mesh.update(body, depsgraph, number)
        with target.bind():
            frame = gpu.state.active_framebuffer_get()
            frame.clear(color=(0.2, 0.2, 0.2, 1.0), depth=1.0)
            picture.draw(pictures.Uploaded(pack([(splats, splats.motion, Look())])), now, [mesh])
            picture.lay_over(now)
            mesh.draw_lines(now)
            frame.read_color(80, 60, 1, 1, 4, 0, "FLOAT")
    target.free()
    pictures.release()
    return sizes


class Engine(bpy.types.RenderEngine):
    """Blender's one way to a GPU context without a window."""

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
    # The head's own number of faces, for what a rig's mesh takes.
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=72, y_subdivisions=72, size=0.2)
    scene = bpy.context.scene
    scene.render.engine, scene.render.resolution_x, scene.render.resolution_y = Engine.bl_idname, 8, 8
    bpy.ops.render.render()
    bpy.utils.unregister_class(Engine)


main()
