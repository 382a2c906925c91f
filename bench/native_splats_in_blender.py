"""Native splats against the engine Effigy: the difference of their colours, and pictures of what only they can show.

    .venv-blender-5.3.0/bin/python -m bench.native_splats_in_blender AVATAR OUT [--colors] [--pictures]

It runs in the environment of bpy 5.3 (`python3 build.py test --bpy 5.3.0` makes it). OUT gets the pictures, and a
table is printed. The mean difference is that of sRGB-encoded, premultiplied values, inside the head (alpha above 0.98),
in levels of 255. *As stored* are the colours of the avatar's file, as Blender imports a `.ply`; *for light* are those
of `native.radiance.for_blended_light`.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from building.extension import build_extension
from building.in_blender import PACKAGE, installed_extension

SIDE: Final = 192
INSIDE: Final = 0.98


def module(name: str) -> Any:
    return importlib.import_module(f"{PACKAGE}.blender_addon.{name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("avatar", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--colors", action="store_true")
    parser.add_argument("--pictures", nargs="*", choices=list(PICTURES))
    parser.add_argument("--samples", type=int, default=128)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        package = build_extension(Path(folder), environment=Path(sys.prefix))
        with installed_extension(package):
            if arguments.colors:
                print_colors(arguments.avatar.absolute(), arguments.out, arguments.samples)
            if arguments.pictures is not None:
                for name in arguments.pictures or PICTURES:
                    save(PICTURES[name](arguments.avatar.absolute(), arguments.out), arguments.out / f"{name}.png")
                    print(f"{name}.png", flush=True)


def print_colors(avatar: Path, out: Path, samples: int) -> None:
    radiance, update = module("native.radiance"), module("native.update")
    corrected = radiance.for_blended_light
    rig = stage(avatar, (0.25, -0.75, 0.02))
    expected = rendered(out / "effigy.png", "EFFIGY")
    operators().native_splats()
    del rig
    inside, names = expected[..., 3] > INSIDE, {"CYCLES": "Cycles", "BLENDER_EEVEE": "EEVEE"}
    print("| engine | colours | mean difference / 255 | mean, signed |\n|---|---|---|---|")
    for engine, name in names.items():
        for colors, function in (("as stored", lambda colors, *_: colors), ("for light", corrected)):
            radiance.for_blended_light = function
            update.state.written.clear()
            found = rendered(out / f"{name}_{colors.replace(' ', '_')}.png", engine, samples)
            difference = 255 * (premultiplied(found) - premultiplied(expected))[inside]
            print(f"| {name} | {colors} | {np.abs(difference).mean():.1f} | {difference.mean():+.1f} |", flush=True)
    radiance.for_blended_light = corrected


def side_by_side(avatar: Path, out: Path) -> np.ndarray:
    """Effigy, Cycles, EEVEE."""
    stage(avatar, (0.25, -0.75, 0.02), lens=100)
    first = rendered(out / "part.png", "EFFIGY")
    operators().native_splats()
    parts = [first, rendered(out / "part.png", "CYCLES", 64, True), rendered(out / "part.png", "BLENDER_EEVEE", 16)]
    return np.concatenate([on_grey(part) for part in parts], 1)


def shadow(avatar: Path, out: Path) -> np.ndarray:
    """On a floor, before a wall, in the sun."""
    import bpy

    stage(avatar, (0.42, -0.88, 0.2), (0.03, 0, -0.035), 60)
    operators().native_splats()
    room()
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.data.angle, sun.rotation_euler = 3.0, 0.05, (0.75, -0.65, 0)
    bpy.context.scene.collection.objects.link(sun)
    return rendered(out / "part.png", "CYCLES", 96, True, 256)


def mirror(avatar: Path, out: Path) -> np.ndarray:
    """Before a mirror behind its left shoulder."""
    import bpy

    stage(avatar, (0.22, -0.98, 0.06), (0.08, 0, -0.01), 60)
    operators().native_splats()
    room()
    bpy.ops.mesh.primitive_cube_add(size=1, location=(0.26, -0.05, 0), rotation=(0, 0, -0.9), scale=(0.26, 0.01, 0.28))
    bpy.context.object.data.materials.append(material((0.9, 0.9, 0.9), metallic=1.0, roughness=0.02))
    return rendered(out / "part.png", "CYCLES", 96, True, 256)


def depth_of_field(avatar: Path, out: Path) -> np.ndarray:
    """Behind a near object that is out of focus."""
    import bpy

    stage(avatar, (0.1, -0.8, 0.03), (0, 0, -0.005), 60)
    operators().native_splats()
    room()
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.022, location=(0.1, -0.42, -0.05), segments=48, ring_count=24)
    bpy.ops.object.shade_smooth()
    bpy.context.object.data.materials.append(material((0.8, 0.12, 0.05)))
    camera = bpy.context.scene.camera.data
    camera.dof.use_dof, camera.dof.focus_distance, camera.dof.aperture_fstop = True, 0.71, 1.6
    return rendered(out / "part.png", "CYCLES", 96, True, 256)


def blur(avatar: Path, out: Path) -> np.ndarray:
    """A fast turn of the head, with the shutter open for the whole frame: sharp, then blurred."""
    import bpy

    rig = stage(avatar, (0.0, -0.9, 0.01), lens=90)
    operators().native_splats()
    bone = rig.pose_bone("neck")
    for frame, turn in ((1, -0.5), (4, 0.5)):
        bone.rotation_quaternion = np.cos(turn / 2), 0, np.sin(turn / 2), 0
        bone.keyframe_insert("rotation_quaternion", frame=frame)
    bpy.context.scene.frame_set(2, subframe=0.5)
    bpy.context.scene.render.motion_blur_shutter = 0.5
    parts = [rendered(out / "part.png", "CYCLES", 64, True)]
    bpy.context.scene.render.use_motion_blur = True
    parts.append(rendered(out / "part.png", "CYCLES", 64, True))
    return np.concatenate([on_grey(part) for part in parts], 1)


def light(avatar: Path, out: Path) -> np.ndarray:
    """Scene Light at 0, 0.5 and 1, with a warm lamp from one side and a blue world."""
    import bpy

    rig = stage(avatar, (0.1, -0.85, 0.02), lens=95)
    operators().native_splats()
    lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "POINT"))
    lamp.data.energy, lamp.data.color, lamp.location = 26.0, (1.0, 0.7, 0.4), (0.5, -0.35, 0.2)
    bpy.context.scene.collection.objects.link(lamp)
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    node = next(node for node in world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground")
    node.inputs[0].default_value = 0.06, 0.1, 0.22, 1
    cloud = module("native_clouds").cloud_of(rig, bpy.data.objects)
    parts = []
    for strength in (0.0, 0.5, 1.0):
        cloud.effigy_native.light = strength
        parts.append(on_grey(rendered(out / "part.png", "CYCLES", 48, True)))
    return np.concatenate(parts, 1)


PICTURES: Final[dict[str, Callable[[Path, Path], np.ndarray]]] = {
    "native_side_by_side": side_by_side,
    "native_shadow": shadow,
    "native_mirror": mirror,
    "native_depth_of_field": depth_of_field,
    "native_blur": blur,
    "native_light": light,
}


def stage(
    avatar: Path,
    eye: tuple[float, float, float],
    target: tuple[float, float, float] = (0, 0, 0),
    lens: float = 70,
) -> Any:
    """An avatar before a camera, in an empty file; returns its rig."""
    import bpy
    from mathutils import Vector

    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.effigy.add_avatar(filepath=str(avatar), new_rig=True)
    rig = module("rig.rig_properties").find_rig(bpy.context.object)
    scene = bpy.context.scene
    scene.camera = camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    scene.collection.objects.link(camera)
    camera.location, camera.data.lens = eye, lens
    camera.rotation_euler = (Vector(target) - Vector(eye)).to_track_quat("-Z", "Y").to_euler()
    scene.render.resolution_percentage, scene.render.film_transparent, scene.render.dither_intensity = 100, True, 0
    operators().use_standard_view()
    return rig


def operators() -> Any:
    import bpy

    return bpy.ops.effigy


def room() -> None:
    """A floor and a wall, and grey light from all around."""
    import bpy

    scene = bpy.context.scene
    scene.render.film_transparent = False
    scene.world = bpy.data.worlds.new("world")
    node = next(node for node in scene.world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground")
    node.inputs[0].default_value = 0.35, 0.37, 0.4, 1
    for location, turn in (((0, 0, -0.145), (0, 0, 0)), ((0, 0.9, 0), (np.pi / 2, 0, 0))):
        bpy.ops.mesh.primitive_plane_add(size=8, location=location, rotation=turn)
        bpy.context.object.data.materials.append(material((0.55, 0.5, 0.45)))


def material(color: tuple[float, float, float], metallic: float = 0.0, roughness: float = 0.6) -> Any:
    import bpy

    made = bpy.data.materials.new("material")
    if made.node_tree is None:
        made.use_nodes = True
    shader = next(node for node in made.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    shader.inputs["Base Color"].default_value = *color, 1
    shader.inputs["Metallic"].default_value, shader.inputs["Roughness"].default_value = metallic, roughness
    return made


def rendered(path: Path, engine: str, samples: int = 16, denoise: bool = False, side: int = SIDE) -> np.ndarray:
    """(H, W, 4) straight, sRGB-encoded."""
    import bpy

    scene = bpy.context.scene
    scene.render.engine, scene.render.resolution_x, scene.render.resolution_y = engine, side, side
    if engine == "CYCLES":
        scene.cycles.samples, scene.cycles.use_denoising = samples, denoise
        scene.cycles.use_adaptive_sampling = False
    elif engine != "EFFIGY":
        scene.eevee.taa_render_samples = min(samples, 16)
    settings = scene.render.image_settings
    settings.media_type, settings.file_format, settings.color_mode = "IMAGE", "PNG", "RGBA"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    pixels = np.empty(side * side * 4, np.float32)
    image.pixels.foreach_get(pixels)
    bpy.data.images.remove(image)
    return pixels.reshape(side, side, 4)[::-1]


def premultiplied(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :3] * pixels[..., 3:]


def on_grey(pixels: np.ndarray) -> np.ndarray:
    """Over a grey that is blended as the footage's background was, in encoded values."""
    alpha = pixels[..., 3:]
    return np.concatenate((premultiplied(pixels) + 0.75 * (1 - alpha), np.ones_like(alpha)), -1)


def save(pixels: np.ndarray, path: Path) -> None:
    import bpy

    height, width = pixels.shape[:2]
    image = bpy.data.images.new("picture", width, height)
    image.colorspace_settings.name = "Non-Color"
    image.pixels.foreach_set(np.ascontiguousarray(pixels[::-1], np.float32).ravel())
    image.filepath_raw, image.file_format = str(path.absolute()), "PNG"
    image.save()
    bpy.data.images.remove(image)


if __name__ == "__main__":
    main()
