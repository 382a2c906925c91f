"""The scene's light on an avatar: the diffuse shading of its head by lamps and the world's colour, for each vertex.

An avatar has the light of its video. This multiplies its colours by the light that a white, matte head would send back:
a key lamp brightens its side, and a coloured world tints all. Lamps throw no shadows, and light from images is left
out. Sun, point, spot and area lamps have Blender's units (W and W/m²); an area lamp shines as from its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import bpy
import numpy as np

from ..rig.placement import head_place
from ..rig.rig_properties import Rig

KINDS: Final = ("SUN", "POINT", "SPOT", "AREA")
NEAREST: Final = 0.01
"""Metres: a lamp is never nearer to the skin."""
BRIGHTEST: Final = 16.0
"""Of the factor on a colour."""


@dataclass(frozen=True)
class LitHead:
    """The lamps of a scene and the normals of a head."""

    lamps: np.ndarray
    """(L, 12) kind (index in `KINDS`), position, direction in which it shines, red, green and blue power, cosine of the
    cone's half angle, and the cosine up to which it is full."""
    world: np.ndarray
    """(3,) radiance of the world."""
    normals: np.ndarray
    """(N, 3) unit, of the mesh's vertices in the world."""

    def key(self) -> bytes:
        return self.lamps.tobytes() + self.world.tobytes() + self.normals.astype(np.float16).tobytes()


def read(rig: Rig, depsgraph: bpy.types.Depsgraph) -> LitHead:
    """The lamps that a depsgraph's scene shows, and the head's normals."""
    lamps = [
        _lamp(instance.object.data, np.array(instance.matrix_world, np.float64))
        for instance in depsgraph.object_instances
        if instance.object.type == "LIGHT"
    ]
    return LitHead(np.array(lamps, np.float64).reshape(-1, 12), _world(depsgraph), _normals(rig, depsgraph))


def factor(lit: LitHead, points: np.ndarray, strength: float) -> np.ndarray:
    """(N, 3) by which the light of a head's Gaussians is multiplied. `points`: (N, 3) metres, in the world."""
    light = np.repeat(lit.world[None], len(points), 0)
    for kind, *numbers in lit.lamps:
        place, direction, power = (np.array(numbers[i : i + 3]) for i in (0, 3, 6))
        if KINDS[int(kind)] == "SUN":
            share = np.maximum(-(lit.normals @ direction), 0) / np.pi
        else:
            away = place - points
            distance = np.maximum(np.linalg.norm(away, axis=1), NEAREST)
            away /= distance[:, None]
            leaving = -(away @ direction)
            # W/sr of a point is W / 4 pi, and of a flat lamp W cos / pi; a white surface sends back 1 / pi of both.
            flow = np.maximum(leaving, 0) / np.pi if KINDS[int(kind)] == "AREA" else 1 / (4 * np.pi)
            share = np.maximum((lit.normals * away).sum(1), 0) * flow / np.pi / distance**2
            if KINDS[int(kind)] == "SPOT":
                edge, full = numbers[9:]
                share *= np.clip((leaving - edge) / max(full - edge, 1e-6), 0, 1)
        light += share[:, None] * power
    return 1 + strength * (np.clip(light, 0, BRIGHTEST) - 1)


def _lamp(lamp: Any, world: np.ndarray) -> tuple[float, ...]:
    color = np.array(lamp.color) * lamp.energy * 2.0 ** getattr(lamp, "exposure", 0.0)
    if getattr(lamp, "use_temperature", False):
        color *= np.array(lamp.temperature_color)
    direction = -world[:3, 2] / max(float(np.linalg.norm(world[:3, 2])), 1e-12)
    half = np.cos(lamp.spot_size / 2) if lamp.type == "SPOT" else -1.0
    full = half + (1 - half) * lamp.spot_blend if lamp.type == "SPOT" else -1.0
    return (KINDS.index(lamp.type), *world[:3, 3], *direction, *color, half, full)


def _world(depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """(3,) the colour of the world's Background node times its strength; black where an image or nodes give it."""
    world = depsgraph.scene.world
    if world is None:
        return np.zeros(3)
    nodes = world.node_tree.nodes if world.node_tree else ()
    background = next((node for node in nodes if node.bl_idname == "ShaderNodeBackground" and not node.mute), None)
    if background is None:
        return np.array(world.color, np.float64) if not nodes else np.zeros(3)
    evaluated = world.evaluated_get(depsgraph).node_tree.nodes.get(background.name, background)
    color, strength = evaluated.inputs["Color"], evaluated.inputs["Strength"]
    return np.zeros(3) if color.is_linked else np.array(color.default_value[:3]) * strength.default_value


def _normals(rig: Rig, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """(N, 3) of the mesh as it is posed; of the head at rest, moved as a whole, if a modifier has changed the number of
    vertices.
    """
    evaluated = rig.mesh.evaluated_get(depsgraph)
    if len(evaluated.data.vertices) == len(rig.mesh.data.vertices):
        mesh, motion = evaluated.data, np.array(evaluated.matrix_world, np.float64)
    else:
        mesh, motion = rig.mesh.data, head_place(rig, depsgraph).head_motion
    normals = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertex_normals.foreach_get("vector", normals)
    turned = normals.reshape(-1, 3) @ np.linalg.pinv(motion[:3, :3])
    return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)
