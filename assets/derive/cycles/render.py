"""Renders the demo's person with Cycles. Runs in Blender's Python, with numpy alone.

    .venv-blender/bin/python -m assets.derive.cycles.render SCENE.npz FRAMES [NUMBER ...] [--bare]

SCENE.npz has the arrays of `clip_scene.scene_arrays`. Frames that exist are kept, so that an interrupted run continues.
`--bare` leaves the room out. The scene is in the camera's space, turned to
Blender's: x to the right, y up, z towards the viewer.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from mathutils import Matrix

from .materials import Materials
from .room import light_the_person, render_plate, show_plate

SAMPLES: Final = 3
PLATE_SAMPLES: Final = 300
FLIP: Final = np.array([1.0, -1.0, -1.0])
"""From OpenCV's camera to Blender's."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Render frames of the demo clip with Cycles.")
    parser.add_argument("scene", type=Path)
    parser.add_argument("frames", type=Path)
    parser.add_argument("numbers", nargs="*", type=int)
    parser.add_argument("--bare", action="store_true")
    arguments = parser.parse_args()
    with np.load(arguments.scene) as stored:
        arrays = dict(stored)
    out = arguments.frames
    out.mkdir(parents=True, exist_ok=True)
    scene = make_scene(arrays)
    plate = out / "plate.exr"
    if not arguments.bare:
        if not plate.exists():
            render_plate(scene, plate, PLATE_SAMPLES)
        show_plate(scene, plate)
    light_the_person()
    person = Person(arrays)
    set_render(scene, SAMPLES)
    for number in arguments.numbers or range(len(arrays["vertices"])):
        target = out / f"{number:04d}.png"
        if target.exists():
            continue
        started = time.monotonic()
        person.pose(number)
        scene.render.filepath = str(out / f"part{os.getpid()}.png")
        bpy.ops.render.render(write_still=True)
        (out / f"part{os.getpid()}.png").rename(target)
        print(f"frame {number}: {time.monotonic() - started:.1f} s", flush=True)


def make_scene(arrays: dict[str, np.ndarray]) -> Any:
    """An empty scene with the clip's camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    size, focal = int(arrays["size"]), float(arrays["focal"])
    camera = bpy.data.cameras.new("camera")
    camera.sensor_width, camera.lens = 36.0, 36.0 * focal / size
    camera.clip_start = 0.05
    scene.camera = bpy.data.objects.new("camera", camera)
    scene.collection.objects.link(scene.camera)
    scene.render.engine = "CYCLES"
    scene.render.resolution_x = scene.render.resolution_y = size
    scene.render.resolution_percentage = 100
    scene.render.use_persistent_data = True
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.look = "AgX - Medium High Contrast"
    return scene


def set_render(scene: Any, samples: int) -> None:
    cycles = scene.cycles
    cycles.device, cycles.samples, cycles.seed = "CPU", samples, 0
    cycles.use_adaptive_sampling, cycles.sampling_pattern = False, "BLUE_NOISE"
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    cycles.denoising_input_passes, cycles.denoising_prefilter = "RGB_ALBEDO_NORMAL", "FAST"
    cycles.denoising_quality = "BALANCED"
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 4, 1, 2
    cycles.transmission_bounces, cycles.transparent_max_bounces = 3, 12
    cycles.caustics_reflective = cycles.caustics_refractive = False
    cycles.sample_clamp_indirect, cycles.blur_glossy = 4.0, 0.5
    # Only what moves is built again for each frame.
    cycles.debug_bvh_type = "DYNAMIC_BVH"
    scene.cycles_curves.shape = "RIBBONS"
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGB", "8"


class Person:
    """The objects of the person, and their pose in each frame."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays
        materials = Materials(arrays)
        self.head = mesh_object("head", arrays["vertices"][0] * FLIP, arrays["faces"])
        for material in materials.of_head:
            self.head.data.materials.append(material)
        self.head.data.polygons.foreach_set("material_index", arrays["parts"].astype(np.int32))
        layer = self.head.data.uv_layers.new(name="atlas")
        layer.data.foreach_set("uv", arrays["uv"].astype(np.float32).ravel())
        add_attribute(self.head.data, "rest", arrays["template"])
        subdivide(self.head, 1)
        self.eyes = [eye_object(arrays, materials, side) for side in range(2)]
        self.body = mesh_object("shirt", arrays["body"] * FLIP, arrays["body_faces"])
        self.body.data.materials.append(materials.cloth)
        add_attribute(self.body.data, "weave", arrays["body_weave"])
        self.hair = curves_object("hair", arrays["hair"], float(arrays["hair_radius"]), materials.hair)
        self.small = {
            name: curves_object(name, arrays[name], float(arrays[f"{name}_radius"]), getattr(materials, name))
            for name in ("brows", "lashes")
        }

    def pose(self, number: int) -> None:
        arrays = self.arrays
        posed = arrays["vertices"][number].astype(np.float64)
        self.head.data.vertices.foreach_set("co", (posed * FLIP).astype(np.float32).ravel())
        self.head.data.update()
        turned = np.diag([*FLIP, 1.0])
        self.hair.matrix_world = Matrix(turned @ arrays["skull"][number])
        for side, eye in enumerate(self.eyes):
            eye.matrix_world = Matrix(turned @ arrays["eyes"][number, side])
        self.body.matrix_world = Matrix.Translation(arrays["sway"][number] * FLIP)
        for name, obj in self.small.items():
            moved = with_the_skin(arrays[name], arrays["faces"][arrays[f"{name}_faces"]], arrays["rest"], posed)
            obj.data.attributes["position"].data.foreach_set("vector", (moved * FLIP).astype(np.float32).ravel())
            obj.data.update_tag()


def with_the_skin(points: np.ndarray, triangles: np.ndarray, rest: np.ndarray, posed: np.ndarray) -> np.ndarray:
    """(S, K, 3): each strand `points` moved as the triangle (S, 3) that it grows on moves from `rest` to `posed`."""
    before, after = _frames(rest[triangles]), _frames(posed[triangles])
    offset = points - rest[triangles].mean(1)[:, None]
    turned = np.einsum("sij,skj->ski", after @ np.swapaxes(before, 1, 2), offset)
    return turned + posed[triangles].mean(1)[:, None]


def _frames(corners: np.ndarray) -> np.ndarray:
    """(S, 3, 3) orthonormal columns of triangles (S, 3, 3)."""
    along = corners[:, 1] - corners[:, 0]
    normal = np.cross(along, corners[:, 2] - corners[:, 0])
    along, normal = (part / (np.linalg.norm(part, axis=1, keepdims=True) + 1e-12) for part in (along, normal))
    return np.stack([along, normal, np.cross(along, normal)], 2)


def mesh_object(name: str, vertices: np.ndarray, faces: np.ndarray) -> Any:
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(vertices.tolist(), [], faces.tolist())
    mesh.polygons.foreach_set("use_smooth", np.ones(len(faces), bool))
    obj = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(obj)
    return obj


def add_attribute(mesh: Any, name: str, values: np.ndarray) -> None:
    attribute = mesh.attributes.new(name, "FLOAT_VECTOR", "POINT")
    attribute.data.foreach_set("vector", values.astype(np.float32).ravel())


def subdivide(obj: Any, levels: int) -> None:
    modifier = obj.modifiers.new("smooth", "SUBSURF")
    modifier.levels = modifier.render_levels = levels
    modifier.use_limit_surface = False


def eye_object(arrays: dict[str, np.ndarray], materials: Materials, side: int) -> Any:
    """A sphere whose pole is the pupil, with the normals of iris and cornea as attributes."""
    radius = float(arrays["eye_radius"])
    rings, count = 96, 96
    polar = np.linspace(0, np.pi, rings) ** 1.4 / np.pi**0.4
    around = np.linspace(0, 2 * np.pi, count, endpoint=False)
    sphere = np.stack(
        [
            np.sin(polar)[:, None] * np.cos(around),
            np.sin(polar)[:, None] * np.sin(around),
            np.repeat(np.cos(polar)[:, None], count, 1),
        ],
        -1,
    )
    ring, index = np.meshgrid(np.arange(rings - 1), np.arange(count), indexing="ij")
    a, b = ring * count + index, ring * count + (index + 1) % count
    faces = np.stack([a, a + count, b + count, b], -1).reshape(-1, 4)
    directions = sphere.reshape(-1, 3)
    obj = mesh_object(f"eye {side}", directions * radius, faces)
    obj.data.materials.append(materials.eye)
    add_attribute(obj.data, "place", directions * radius)
    iris = float(arrays["iris_radius"]) / radius
    out = np.hypot(directions[:, 0], directions[:, 1]) / iris
    inside = np.clip((1.12 - out) / 0.22, 0, 1)[:, None] * (directions[:, 2:] > 0)
    inside = inside * inside * (3 - 2 * inside)
    for name, slope in (("cornea", 1.62), ("bowl", -0.75)):
        bent = directions * np.array([slope, slope, 1.0])
        bent[:, 2] = np.sqrt(np.clip(1 - bent[:, 0] ** 2 - bent[:, 1] ** 2, 0.05, 1))
        normal = directions * (1 - inside) + bent * inside
        add_attribute(obj.data, name, normal / np.linalg.norm(normal, axis=1, keepdims=True))
    return obj


def curves_object(name: str, points: np.ndarray, radius: float, material: Any) -> Any:
    """Strands (S, K, 3), thinner towards their tips."""
    count, length = points.shape[:2]
    curves = bpy.data.hair_curves.new(name)
    curves.add_curves([length] * count)
    curves.attributes["position"].data.foreach_set("vector", points.astype(np.float32).ravel())
    taper = np.interp(np.linspace(0, 1, length), [0, 0.5, 1], [1.0, 0.85, 0.15])
    thickness = curves.attributes.get("radius") or curves.attributes.new("radius", "FLOAT", "POINT")
    thickness.data.foreach_set("value", np.tile(radius * taper, count).astype(np.float32))
    curves.materials.append(material)
    obj = bpy.data.objects.new(name, curves)
    bpy.context.scene.collection.objects.link(obj)
    return obj


if __name__ == "__main__":
    main()
