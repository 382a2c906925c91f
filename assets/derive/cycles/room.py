"""The room behind the demo's person, and the light on the person. Runs in Blender's Python.

The camera stands still, so the room is one picture, rendered once with the blur of a wide lens. The person is rendered
before it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import bpy
import numpy as np

PLATE_DISTANCE = 3.0
_WALL = -2.6
_BOOKS = (
    (0.35, 0.08, 0.05),
    (0.06, 0.14, 0.22),
    (0.45, 0.38, 0.28),
    (0.08, 0.18, 0.12),
    (0.50, 0.30, 0.08),
    (0.05, 0.05, 0.06),
)


def render_plate(scene: Any, path: Path, samples: int) -> None:
    """The room alone, as linear light in an OpenEXR file; its objects are removed again."""
    before = set(bpy.data.objects)
    _build_room()
    camera = scene.camera.data
    camera.dof.use_dof, camera.dof.focus_distance, camera.dof.aperture_fstop = True, 0.86, 2.8
    cycles, settings = scene.cycles, scene.render.image_settings
    cycles.samples, cycles.use_denoising, cycles.denoiser = samples, True, "OPENIMAGEDENOISE"
    cycles.use_adaptive_sampling, cycles.max_bounces = True, 5
    settings.file_format, settings.color_depth, settings.color_mode = "OPEN_EXR", "16", "RGB"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    camera.dof.use_dof = False
    for obj in set(bpy.data.objects) - before:
        bpy.data.objects.remove(obj)


def show_plate(scene: Any, path: Path) -> None:
    """A screen behind the person that shines with the room's picture, seen by the camera alone."""
    camera = scene.camera.data
    half = PLATE_DISTANCE * camera.sensor_width / camera.lens / 2
    corners = [(-half, -half), (half, -half), (half, half), (-half, half)]
    mesh = bpy.data.meshes.new("room")
    mesh.from_pydata([(x, y, -PLATE_DISTANCE) for x, y in corners], [], [(0, 1, 2, 3)])
    layer = mesh.uv_layers.new()
    for loop, uv in zip(layer.data, ((0, 0), (1, 0), (1, 1), (0, 1)), strict=True):
        loop.uv = uv
    obj = bpy.data.objects.new("room", mesh)
    for ray in ("diffuse", "glossy", "transmission", "shadow", "volume_scatter"):
        setattr(obj, f"visible_{ray}", False)
    material = bpy.data.materials.new("room")
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    nodes.clear()
    texture, shine, output = (nodes.new(f"ShaderNode{kind}") for kind in ("TexImage", "Emission", "OutputMaterial"))
    texture.image = bpy.data.images.load(str(path))
    links.new(texture.outputs["Color"], shine.inputs["Color"])
    links.new(shine.outputs[0], output.inputs["Surface"])
    mesh.materials.append(material)
    scene.collection.objects.link(obj)


def light_the_person() -> None:
    """A window at the left, soft light of the room at the right, and a lamp behind."""
    world = bpy.data.worlds.new("room")
    world.use_nodes = True
    background = next(node for node in world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground")
    background.inputs["Color"].default_value = (0.75, 0.83, 1.0, 1)
    background.inputs["Strength"].default_value = 0.16
    bpy.context.scene.world = world
    # A window of four panes, so that its bars are seen in the eyes.
    centre, aim = np.array([-0.95, 0.55, 0.35]), np.array([0.0, 0.0, -0.86])
    for column in (-1, 1):
        for row in (-1, 1):
            _area(centre, aim, (column * 0.22, row * 0.30), (0.40, 0.55), 10.5, (1.0, 0.97, 0.93))
    _area(np.array([1.3, 0.15, 0.1]), aim, (0, 0), (1.1, 1.3), 5.0, (1.0, 0.90, 0.80))
    _area(np.array([0.75, 0.55, -1.75]), aim, (0, 0), (0.35, 0.7), 6.0, (1.0, 0.80, 0.58))
    _area(np.array([-0.8, 0.7, -1.8]), aim, (0, 0), (0.5, 0.5), 3.0, (0.85, 0.92, 1.0))


def _area(
    centre: np.ndarray,
    aim: np.ndarray,
    shift: tuple[float, float],
    size: tuple[float, float],
    watts: float,
    colour: tuple[float, float, float],
) -> None:
    """A rectangle of light at `centre`, moved in its own plane by `shift`, that faces `aim`."""
    from mathutils import Vector

    light = bpy.data.lights.new("light", "AREA")
    light.shape, light.size, light.size_y = "RECTANGLE", *size
    light.energy, light.color = watts, colour
    obj = bpy.data.objects.new("light", light)
    turn = Vector(aim - centre).to_track_quat("-Z", "Y")
    obj.rotation_mode, obj.rotation_quaternion = "QUATERNION", turn
    obj.location = Vector(centre) + turn @ Vector((*shift, 0))
    bpy.context.scene.collection.objects.link(obj)


def _build_room() -> None:
    """A wall with a shelf of books, a picture, a plant and a lamp."""
    random = np.random.default_rng(5)
    wall = _matte((0.50, 0.47, 0.43))
    _box((0, 0, _WALL - 0.05), (6, 4, 0.1), wall)
    _box((-2.4, 0, -1), (0.1, 4, 4), wall)
    wood = _matte((0.20, 0.11, 0.06))
    for height in (-0.22, 0.18, 0.58):
        _box((-0.62, height, _WALL + 0.13), (1.15, 0.03, 0.26), wood)
        left = -1.17
        while left < -0.12:
            width, tall = random.uniform(0.02, 0.05), random.uniform(0.20, 0.31)
            shade = random.choice(
                [
                    (0.35, 0.08, 0.05),
                    (0.06, 0.14, 0.22),
                    (0.45, 0.38, 0.28),
                    (0.08, 0.18, 0.12),
                    (0.5, 0.3, 0.08),
                    (0.05, 0.05, 0.06),
                ]
            ) * random.uniform(0.6, 1.3)
            if random.random() < 0.86:
                _box(
                    (left + width / 2, height + 0.015 + tall / 2, _WALL + 0.13),
                    (width * 0.94, tall, 0.18),
                    _matte(shade),
                )
            left += width
    _box((0.50, 0.42, _WALL + 0.02), (0.44, 0.56, 0.03), _matte((0.04, 0.035, 0.03)))
    _box((0.50, 0.42, _WALL + 0.037), (0.36, 0.48, 0.01), _matte((0.62, 0.58, 0.50)))
    _box((0.50, 0.40, _WALL + 0.045), (0.20, 0.22, 0.01), _matte((0.32, 0.12, 0.06)))
    shade = _shine((1.0, 0.72, 0.42), 5.5)
    bpy.ops.mesh.primitive_cone_add(
        vertices=48,
        radius1=0.15,
        radius2=0.10,
        depth=0.22,
        location=(0.86, 0.08, _WALL + 0.35),
        rotation=(-math.pi / 2, 0, 0),
    )
    bpy.context.object.data.materials.append(shade)
    _box((0.86, -0.25, _WALL + 0.35), (0.03, 0.5, 0.03), wood)
    _box((0.86, -0.62, _WALL + 0.3), (0.8, 0.25, 0.5), wood)
    leaf = _matte((0.05, 0.16, 0.05))
    for _ in range(40):
        angle, lean = random.uniform(0, 2 * math.pi), random.uniform(0.2, 1.1)
        reach = random.uniform(0.10, 0.26)
        place = (
            0.30 + reach * math.sin(lean) * math.cos(angle),
            -0.38 + reach * math.cos(lean),
            _WALL + 0.35 + reach * math.sin(lean) * math.sin(angle),
        )
        bpy.ops.mesh.primitive_uv_sphere_add(
            segments=12, ring_count=8, location=place, rotation=random.uniform(0, 3, 3)
        )
        bpy.context.object.scale = (0.055, 0.022, 0.006)
        bpy.context.object.data.materials.append(leaf)
    world = bpy.data.worlds.new("plate")
    world.use_nodes = True
    next(node for node in world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground").inputs[
        "Strength"
    ].default_value = 0.25
    bpy.context.scene.world = world
    _area(np.array([-1.9, 0.8, -0.6]), np.array([0.3, 0.0, _WALL]), (0, 0), (1.2, 1.6), 55.0, (0.95, 0.97, 1.0))
    light = bpy.data.lights.new("bulb", "POINT")
    light.energy, light.color, light.shadow_soft_size = 7.0, (1.0, 0.72, 0.42), 0.08
    bulb = bpy.data.objects.new("bulb", light)
    bulb.location = (0.86, 0.30, _WALL + 0.35)
    bpy.context.scene.collection.objects.link(bulb)


def _box(centre: tuple[float, ...], size: tuple[float, ...], material: Any) -> None:
    bpy.ops.mesh.primitive_cube_add(size=1, location=centre)
    bpy.context.object.scale = size
    bpy.context.object.data.materials.append(material)


def _matte(colour: Any) -> Any:
    material = bpy.data.materials.new("matte")
    material.use_nodes = True
    shader = next(node for node in material.node_tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    shader.inputs["Base Color"].default_value = (*(float(part) for part in colour), 1.0)
    shader.inputs["Roughness"].default_value = 0.7
    return material


def _shine(colour: tuple[float, float, float], strength: float) -> Any:
    material = _matte(colour)
    shader = next(node for node in material.node_tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    shader.inputs["Emission Color"].default_value = (*colour, 1.0)
    shader.inputs["Emission Strength"].default_value = strength
    return material
