"""The last shot of the demo: the avatar says a sentence that was never filmed, in a small scene with its shadow."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Final

from .in_blender import PACKAGE

SPEECH: Final = Path(__file__).resolve().parents[1] / "assets" / "speech"
SAMPLES, SPLAT_SAMPLES = 6, 32
"""Of Cycles, denoised: the scene is smooth, and little light bounces in it. Splats that Cycles draws need more."""
WALL: Final = 0.34
"""Metres behind the head."""


def say_line(frame: int) -> int:
    """The active rig says the bundled sentence from `frame` on; returns how many frames the sound takes."""
    import bpy

    sound = SPEECH / "line.flac"
    bpy.ops.effigy.lip_sync(filepath=str(sound), text=(SPEECH / "line.txt").read_text("utf-8"), frame_start=frame)
    render = bpy.context.scene.render
    return round(flac_seconds(sound) * render.fps / render.fps_base)


def flac_seconds(path: Path) -> float:
    """How long a FLAC file is by its first block, STREAMINFO: 20 bits of rate, 8 of form, 36 of the count of samples
    (RFC 9639, section 8.2). Blender's Python has no library for it.
    """
    with open(path, "rb") as file:
        beginning = file.read(26)
    rate, count = int.from_bytes(beginning[18:21], "big") >> 4, int.from_bytes(beginning[21:26], "big") & (2**36 - 1)
    return count / rate


def set_stage(rig: Any) -> None:
    """Build a wall with a shelf behind the rig, lit from one side, and let Cycles render both."""
    import bpy
    from mathutils import Matrix, Vector

    scene = bpy.context.scene
    camera = scene.camera.matrix_world
    corners = [rig.mesh.matrix_world @ Vector(corner) for corner in rig.mesh.bound_box]
    head = sum(corners, Vector()) / len(corners)
    # The stage is built in the camera's axes: x to the right, y up, z towards the viewer, from the head's middle.
    place = Matrix.Translation(head) @ camera.to_3x3().to_4x4()
    wall, wood, brass, clay = (
        _material(*look)
        for look in (
            ((0.27, 0.25, 0.23), 0.8),
            ((0.16, 0.08, 0.04), 0.5),
            ((0.60, 0.36, 0.10), 0.3),
            ((0.42, 0.12, 0.06), 0.7),
        )
    )
    _add("plane", place, (0, 0, -WALL), (6, 6, 1), wall)
    _add("cube", place, (-0.185, -0.045, -WALL + 0.05), (0.17, 0.012, 0.10), wood)
    _add("uv_sphere", place, (-0.225, -0.009, -WALL + 0.05), (0.06, 0.06, 0.06), brass)
    _add("cone", place, (-0.150, 0.006, -WALL + 0.05), (0.05, 0.09, 0.05), clay)
    _light(place, (-0.55, 0.42, 0.95), head, 30.0, 0.10, (1.0, 0.90, 0.78))
    _light(place, (0.9, 0.2, 1.0), head, 6.0, 1.2, (0.80, 0.88, 1.0))
    scene.world = bpy.data.worlds.new("Stage")
    bpy.context.view_layer.objects.active = rig.armature
    scene.render.engine = "CYCLES"
    scene.render.film_transparent = False
    cycles = scene.cycles
    cycles.samples, cycles.use_denoising, cycles.max_bounces = SAMPLES, True, 3
    scene.render.use_persistent_data = True
    native = importlib.import_module(f"{PACKAGE}.blender_addon.native_clouds")
    if native.is_supported():
        cycles.samples = SPLAT_SAMPLES
        bpy.ops.effigy.native_splats()
    else:
        bpy.ops.effigy.set_up_composite()


def join_shots(shots: list[tuple[Path, int]], sounds: list[tuple[Path, int]], background: float, out: Path) -> None:
    """Write one film: `shots` are a folder of numbered PNG files and the film's frame of the first; `sounds` a file and
    its frame. Transparent frames lie over a grey of `background`, sRGB.
    """
    import bpy

    here = bpy.context.scene
    scene = bpy.data.scenes.new("Film")
    for name in ("resolution_x", "resolution_y", "fps", "fps_base"):
        setattr(scene.render, name, getattr(here.render, name))
    scene.view_settings.view_transform = "Standard"
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    end = 1
    for folder, first in shots:
        files = sorted(folder.glob("*.png"))
        strip = strips.new_image(folder.name, str(files[0]), 2, first)
        for file in files[1:]:
            strip.elements.append(file.name)
        strip.blend_type = "ALPHA_OVER"
        end = max(end, first + len(files) - 1)
    grey = _colour_strip(strips, 1, end + 1)
    grey.color = (background,) * 3
    for channel, (sound, first) in enumerate(sounds if bpy.app.build_options.audaspace else (), start=3):
        strip = strips.new_sound(sound.stem, str(sound), channel, first)
        # Blender 5.3 has another name for it, and warns of the old one.
        last = "right_handle" if hasattr(strip, "right_handle") else "frame_final_end"
        setattr(strip, last, min(getattr(strip, last), next((at for _, at in sounds if at > first), end + 1)))
    scene.frame_start, scene.frame_end = 1, end
    scene.render.use_sequencer = True
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    ffmpeg = scene.render.ffmpeg
    ffmpeg.format, ffmpeg.codec, ffmpeg.constant_rate_factor = "MPEG4", "H264", "HIGH"
    ffmpeg.audio_codec, ffmpeg.audio_bitrate = "AAC", 96
    scene.render.filepath = str(out)
    bpy.ops.render.render(animation=True, scene=scene.name)
    bpy.data.scenes.remove(scene)


def _colour_strip(strips: Any, first: int, end: int) -> Any:
    try:
        return strips.new_effect("background", "COLOR", 1, first, frame_end=end)
    except TypeError:
        # Blender 5 takes the length.
        return strips.new_effect("background", "COLOR", 1, first, length=end - first)


def strips_of(scene: Any) -> list[Any]:
    """The strips of a scene's sequencer."""
    editor = scene.sequence_editor
    if editor is None:
        return []
    return list(editor.strips if hasattr(editor, "strips") else editor.sequences)


def _material(colour: tuple[float, float, float], roughness: float) -> Any:
    import bpy

    material = bpy.data.materials.new("Stage")
    if material.node_tree is None:
        # From Blender 5 on a material always has nodes.
        material.use_nodes = True
    shader = next(node for node in material.node_tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    shader.inputs["Base Color"].default_value = (*colour, 1.0)
    shader.inputs["Roughness"].default_value = roughness
    return material


def _add(kind: str, place: Any, centre: tuple[float, ...], size: tuple[float, ...], material: Any) -> None:
    """A mesh of Blender's, `size` metres along the stage's axes."""
    import bpy
    from mathutils import Matrix

    getattr(bpy.ops.mesh, f"primitive_{kind}_add")()
    obj = bpy.context.object
    # Blender's primitives are two units wide; a cone stands on z, which is the stage's y.
    upright = Matrix.Rotation(-1.5707963, 4, "X") if kind == "cone" else Matrix.Identity(4)
    scale = Matrix.Diagonal((*(part / 2 for part in size), 1.0))
    obj.matrix_world = place @ Matrix.Translation(centre) @ scale @ upright
    obj.data.materials.append(material)
    if kind == "uv_sphere":
        obj.data.polygons.foreach_set("use_smooth", [True] * len(obj.data.polygons))


def _light(
    place: Any, centre: tuple[float, ...], aim: Any, watts: float, size: float, colour: tuple[float, float, float]
) -> None:
    import bpy
    from mathutils import Matrix, Vector

    light = bpy.data.lights.new("Light", "AREA")
    light.energy, light.size, light.color = watts, size, colour
    obj = bpy.data.objects.new("Light", light)
    where = place @ Vector(centre)
    obj.matrix_world = Matrix.Translation(where) @ (aim - where).to_track_quat("-Z", "Y").to_matrix().to_4x4()
    bpy.context.scene.collection.objects.link(obj)
