"""No setting of a render, scene, view layer, camera or object is silently without effect on avatars: each is followed,
told to the artist or not needed, and a Blender with a new one fails here.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bpy
import engine_truth
import numpy as np
import pytest
from all_settings import TABLE, Sorted
from engine_scenes import SIZE, add_rig, premultiplied, read_png, render_png, set_format, stage

VERSION = bpy.app.version[:2]
RIGHT = np.array((np.cos(engine_truth.AZIMUTH), np.sin(engine_truth.AZIMUTH), 0))
LEVEL = 1 / 255


def listed(entries: dict[str, str]) -> Iterator[tuple[str, bool]]:
    """Each name and whether it is expected in this Blender."""
    for names in entries.values():
        for text in names.split():
            name, _, since = text.partition(">=")
            name, _, before = name.partition("<")
            expected = not since or tuple(map(int, since.split("."))) <= VERSION
            yield name, expected and (not before or tuple(map(int, before.split("."))) > VERSION)


def names_of(row: Sorted) -> list[tuple[str, bool]]:
    return [pair for entries in (row.followed, row.not_needed, row.told) for pair in listed(entries)]


@pytest.mark.parametrize("kind", TABLE)
def test_every_setting_is_sorted(kind):
    names = names_of(TABLE[kind])
    assert len({name for name, _ in names}) == len(names), "a setting is in two places"
    # Properties of add-ons, such as Cycles and Effigy, are theirs.
    there = {prop.identifier for prop in getattr(bpy.types, kind).bl_rna.properties if not prop.is_runtime}
    there -= {"rna_type", "cycles", "cycles_visibility", "cycles_curves"}
    expected = {name for name, here in names if here}
    assert there - expected == set(), "not sorted yet: followed, told or not needed?"
    assert expected - there == set(), "listed, and not in this Blender"


def test_each_followed_setting_names_a_test_that_exists():
    folder = Path(__file__).parent
    for row in TABLE.values():
        for shown_by in row.followed:
            file, name = shown_by.split("::")
            if file == "blender":
                assert name in EFFECTS, shown_by
                continue
            tree = ast.parse((folder / f"test_{file}.py").read_text("utf-8"))
            tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert f"test_{name}" in tests, shown_by


def compositor(scene: bpy.types.Scene) -> bpy.types.NodeTree:
    """An empty compositing node tree of the scene."""
    if bpy.app.version < (5, 0, 0):
        scene.use_nodes = True
        scene.node_tree.nodes.clear()
        return scene.node_tree
    tree = bpy.data.node_groups.new("mine", "CompositorNodeTree")
    tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
    if hasattr(scene, "compositor_effects"):
        scene.compositor_effects.new(name="mine").node_group = tree
    else:
        scene.compositing_node_group = tree
    return tree


def compositing(scene: Any) -> None:
    tree = compositor(scene)
    layers, invert = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeInvert")
    end = tree.nodes.new("NodeGroupOutput" if bpy.app.version >= (5, 0, 0) else "CompositorNodeComposite")
    tree.links.new(layers.outputs["Image"], invert.inputs["Color"])
    tree.links.new(invert.outputs[0], end.inputs[0])
    scene.render.use_compositing = True


def sequencer(scene: Any) -> None:
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    length = {"length": 100} if bpy.app.version >= (5, 0, 0) else {"frame_end": 100}
    strips.new_effect("red", "COLOR", 1, frame_start=1, **length).color = 1, 0, 0
    scene.render.use_sequencer = True


def curves(scene: Any) -> None:
    scene.view_settings.use_curve_mapping = True
    curve = scene.view_settings.curve_mapping.curves[3]
    curve.points[0].location = 0, 0.4
    scene.view_settings.curve_mapping.update()


def white_balance(scene: Any) -> None:
    if hasattr(scene.view_settings, "use_white_balance"):
        scene.view_settings.use_white_balance, scene.view_settings.white_balance_temperature = True, 3000
    else:
        scene.view_settings.exposure = 1


def look(scene: Any) -> None:
    scene.view_settings.look = "High Contrast"


def display_device(scene: Any) -> None:
    scene.display_settings.display_device = "Display P3"
    scene.view_settings.view_transform = "Standard"


def file_format(scene: Any) -> None:
    scene.render.image_settings.color_mode = "BW"


def colour_management_of_the_file(scene: Any) -> None:
    settings = scene.render.image_settings
    settings.color_management = "OVERRIDE"
    settings.view_settings.view_transform, settings.view_settings.exposure = "Standard", 1.5


EFFECTS: dict[str, Callable[[Any], Any]] = {
    "exposure": lambda scene: setattr(scene.view_settings, "exposure", 1.0),
    "gamma": lambda scene: setattr(scene.view_settings, "gamma", 1.6),
    "view transform": lambda scene: setattr(scene.view_settings, "view_transform", "AgX"),
    "look": look,
    "curves": curves,
    "white balance": white_balance,
    "display device": display_device,
    "dither": lambda scene: setattr(scene.render, "dither_intensity", 2.0),
    "stamp": lambda scene: setattr(scene.render, "use_stamp", True),
    "compositing": compositing,
    "sequencer": sequencer,
    "file format": file_format,
    "colour management of the file": colour_management_of_the_file,
}
"""What Blender does with the image of every engine. Each changes the picture of an avatar."""


@pytest.mark.parametrize("name", EFFECTS)
def test_blender_treats_the_image_as_that_of_any_engine(name, engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    scene.render.film_transparent = False
    before = render_png(tmp_path / "before.png")
    set_format("PNG")
    EFFECTS[name](scene)
    mode = scene.render.image_settings.color_mode
    scene.render.filepath = str(tmp_path / "after.png")
    bpy.ops.render.render(write_still=True)
    after = read_png(tmp_path / "after.png")
    assert before.shape == after.shape
    changed = np.abs(after - before)[..., :3].max(-1) > LEVEL / 2
    assert changed.mean() > (0.02 if name == "stamp" else 0.1), name
    assert mode != "BW" or np.ptp(after[..., :3], axis=-1).max() == 0
    if name in {"compositing", "sequencer"}:
        scene.render.use_compositing = scene.render.use_sequencer = False
        assert np.abs(render_png(tmp_path / "off.png") - before).max() < LEVEL / 2


def set_all(owner: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(owner, name, value)


def test_time_stretching_shows_the_pose_of_the_stretched_time(engine_avatars, tmp_path):
    """Twice as slow, frame 21 shows what frame 10.5 does."""
    made = stage(engine_avatars / "ann.effigy")
    scene, armature = bpy.context.scene, made.armature
    for frame, place in ((1, -0.1), (21, 0.1)):
        armature.location = place * RIGHT
        armature.keyframe_insert("location", frame=frame)
    scene.frame_set(10, subframe=0.5)
    expected = armature.evaluated_get(bpy.context.evaluated_depsgraph_get()).location.copy()
    armature.animation_data_clear()
    armature.location = expected
    still = render_png(tmp_path / "still.png")
    for frame, place in ((1, -0.1), (21, 0.1)):
        armature.location = place * RIGHT
        armature.keyframe_insert("location", frame=frame)
    scene.render.frame_map_old, scene.render.frame_map_new = 100, 200
    scene.frame_set(21)
    assert np.abs(render_png(tmp_path / "stretched.png") - still).mean() < LEVEL


def test_frame_step_overwrite_and_placeholders_are_blenders(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.frame_step = 1, 6, 2
    set_format("PNG")
    scene.render.filepath, scene.render.use_overwrite, scene.render.use_placeholder = str(tmp_path / "a_"), False, True
    (tmp_path / "a_0003.png").write_bytes(b"another machine renders it")
    bpy.ops.render.render(animation=True)
    assert sorted(path.name for path in tmp_path.glob("a_*")) == ["a_0001.png", "a_0003.png", "a_0005.png"]
    assert (tmp_path / "a_0003.png").read_bytes() == b"another machine renders it"
    assert (read_png(tmp_path / "a_0005.png")[..., 3] > 0.99).sum() > 2000


def test_a_film_has_the_scenes_rate(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.render.fps, scene.render.fps_base = 1, 4, 30, 1.001
    set_format("MP4")
    sizes = []
    for quality in ("LOWEST", "LOSSLESS"):
        scene.render.ffmpeg.constant_rate_factor = quality
        scene.render.filepath = str(tmp_path / f"{quality}.mp4")
        bpy.ops.render.render(animation=True)
        clip = bpy.data.movieclips.load(scene.render.filepath)
        assert clip.fps == pytest.approx(30 / 1.001, abs=0.01) and clip.frame_duration == 4
        sizes.append(Path(scene.render.filepath).stat().st_size)
    assert sizes[1] > 2 * sizes[0]


def test_a_rig_in_a_background_scene_is_rendered(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    scene, collection = bpy.context.scene, made.mesh.users_collection[0]
    behind = bpy.data.scenes.new("behind")
    scene.collection.children.unlink(collection)
    behind.collection.children.link(collection)
    scene.background_set = behind
    assert np.abs(render_png(tmp_path / "set.png") - alone).max() < 2 * LEVEL
    made.mesh.hide_render = True
    assert render_png(tmp_path / "empty.png")[..., 3].max() == 0


def test_the_world_behind_is_that_of_the_view_layer(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    scene, layer = bpy.context.scene, bpy.context.view_layer
    scene.render.film_transparent = False
    for name, color in (("red", (1, 0, 0)), ("blue", (0, 0, 1))):
        world = bpy.data.worlds.new(name)
        world.color = color
        if world.node_tree is not None:
            node = next(node for node in world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground")
            node.inputs["Color"].default_value, node.inputs["Strength"].default_value = (*color, 1), 1
    scene.world = bpy.data.worlds["red"]

    def corner() -> list[float]:
        return render_png(tmp_path / "world.png")[0, 0].round(2).tolist()

    assert corner() == [1, 0, 0, 1]
    layer.world_override = bpy.data.worlds["blue"]
    assert corner() == [0, 0, 1, 1]
    # As Cycles has it: black, and not clear.
    layer.use_sky = False
    assert corner() == [0, 0, 0, 1]


def test_a_layer_without_surfaces_has_no_avatar(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    bpy.context.view_layer.use_solid = False
    assert render_png(tmp_path / "none.png")[..., 3].max() == 0


def test_the_cameras_clipping_range_cuts_the_avatar(engine_avatars, tmp_path):
    """The nose is nearer than the ears: an end of the range between them leaves the face, a start the rest."""
    stage(engine_avatars / "ann.effigy")
    camera = bpy.context.scene.camera.data
    whole = render_png(tmp_path / "whole.png")
    covered = (whole[..., 3] > 0.5).sum()
    middle = engine_truth.DISTANCE - 0.02
    camera.clip_end = middle
    front = render_png(tmp_path / "front.png")
    camera.clip_start, camera.clip_end = middle, 100
    back = render_png(tmp_path / "back.png")
    counts = [(part[..., 3] > 0.5).sum() for part in (front, back)]
    assert 0.1 * covered < counts[0] < 0.99 * covered
    # Without the face, one looks at the inside of the back of the head.
    assert counts[1] > 0.9 * covered and np.abs(back - whole)[whole[..., 3] > 0.99].mean() > 10 * LEVEL
    kept = front[..., 3] > 0.99
    assert np.abs(front - whole)[kept].mean() < 5 * LEVEL
    camera.clip_start = 10
    assert render_png(tmp_path / "none.png")[..., 3].max() == 0


def test_an_instance_is_offset_as_its_collection_says(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    made.armature.location = 0.1 * RIGHT
    there = render_png(tmp_path / "there.png")
    collection = made.mesh.users_collection[0]
    made.armature.location = 0, 0, 0
    collection.instance_offset = -0.1 * RIGHT
    instance = bpy.data.objects.new("instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", collection
    bpy.context.scene.collection.objects.link(instance)
    bpy.context.scene.collection.children.unlink(collection)
    assert np.abs(render_png(tmp_path / "offset.png") - there).mean() < LEVEL


def by_parent(armature: bpy.types.Object) -> None:
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    armature.parent, parent.location = parent, 0.1 * RIGHT


def by_constraint(armature: bpy.types.Object) -> None:
    target = bpy.data.objects.new("target", None)
    bpy.context.scene.collection.objects.link(target)
    target.location = 0.1 * RIGHT
    armature.constraints.new("COPY_LOCATION").target = target


WAYS: dict[str, Callable[[bpy.types.Object], Any]] = {
    "location": lambda armature: setattr(armature, "location", 0.1 * RIGHT),
    "delta_location": lambda armature: setattr(armature, "delta_location", 0.1 * RIGHT),
    "parent": by_parent,
    "constraint": by_constraint,
}


def test_the_avatar_goes_where_its_armature_goes(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    rest = render_png(tmp_path / "rest.png")
    made.armature.matrix_world.translation = 0.1 * RIGHT
    expected = render_png(tmp_path / "expected.png")
    assert np.abs(expected - rest).mean() > 0.02
    made.armature.location = 0, 0, 0
    for name, way in WAYS.items():
        way(made.armature)
        assert np.abs(render_png(tmp_path / f"{name}.png") - expected).mean() < LEVEL, name
        made.armature.location = made.armature.delta_location = (0, 0, 0)
        made.armature.parent = None
        made.armature.constraints.clear()
    turned = []
    for values in (
        {"rotation_euler": (0, 0, 0.4)},
        {"delta_rotation_euler": (0, 0, 0.4)},
        {"rotation_mode": "QUATERNION", "rotation_quaternion": (np.cos(0.2), 0, 0, np.sin(0.2))},
        {"rotation_mode": "AXIS_ANGLE", "rotation_axis_angle": (0.4, 0, 0, 1)},
    ):
        set_all(made.armature, values)
        turned.append(render_png(tmp_path / "turned.png"))
        set_all(made.armature, {"rotation_mode": "XYZ", "rotation_euler": (0, 0, 0), "delta_rotation_euler": (0, 0, 0)})
    assert np.abs(turned[0] - rest).mean() > 0.01
    assert all(np.abs(premultiplied(other) - premultiplied(turned[0])).mean() < LEVEL for other in turned[1:])
    large = []
    for name in ("scale", "delta_scale"):
        set_all(made.armature, {name: (1.3, 1.3, 1.3)})
        large.append(render_png(tmp_path / f"{name}.png"))
        set_all(made.armature, {name: (1, 1, 1)})
    covered = [(picture[..., 3] > 0.5).sum() for picture in (rest, *large)]
    assert covered[1] > 1.3 * covered[0] and np.abs(large[0] - large[1]).max() < 2 * LEVEL


def material_override() -> None:
    bpy.context.view_layer.material_override = bpy.data.materials.new("clay")


def aov() -> None:
    bpy.context.view_layer.aovs.add().name = "dirt"


def set_layer(name: str) -> Callable[[], None]:
    return lambda: setattr(bpy.context.view_layer, name, True)


def textured_world() -> None:
    scene = bpy.context.scene
    scene.render.film_transparent = False
    scene.world = bpy.data.worlds.new("sky")
    if bpy.app.version < (5, 0, 0):
        scene.world.use_nodes = True
    nodes = scene.world.node_tree.nodes
    node = next(node for node in nodes if node.bl_idname == "ShaderNodeBackground")
    texture = nodes.new("ShaderNodeTexEnvironment")
    scene.world.node_tree.links.new(texture.outputs["Color"], node.inputs["Color"])


def multiview() -> None:
    bpy.context.scene.render.use_multiview = True


def custom_lens() -> None:
    bpy.context.scene.camera.data.type = "PANO"


def deformer() -> None:
    next(obj for obj in bpy.context.scene.objects if obj.type == "MESH").modifiers.new("bend", "SIMPLE_DEFORM")


TOLD: dict[str, Callable[[], None]] = {
    "Freestyle draws no lines": lambda: setattr(bpy.context.scene.render, "use_freestyle", True),
    "material override": material_override,
    "Not made": aov,
    "one view at a time": multiview,
    "panoramic or custom lens": custom_lens,
    "and not of its avatar": deformer,
}
"""By a part of the sentence: what makes the render say it."""


@pytest.mark.parametrize("part", TOLD)
def test_what_is_not_followed_is_told_when_it_is_used(part, engine_avatars, tmp_path, capfd):
    stage(engine_avatars / "ann.effigy")
    render_png(tmp_path / "plain.png")
    assert part not in "".join(capfd.readouterr())
    TOLD[part]()
    try:
        render_png(tmp_path / "told.png")
        said = "".join(capfd.readouterr())
    except RuntimeError as error:
        said = str(error)
    assert part in said


def test_every_sentence_of_the_table_is_tried():
    assert {part for row in TABLE.values() for part in row.told} == set(TOLD)


@pytest.mark.parametrize("name", [name for name, here in listed(TABLE["ViewLayer"].told) if here and "_pass_" in name])
def test_each_pass_that_is_not_made_is_named(name, engine_avatars, module):
    stage(engine_avatars / "ann.effigy")
    unsupported = module("blender_addon.engine.unsupported").unsupported_settings
    assert unsupported(bpy.context.scene) == []
    set_layer(name)()
    (sentence,) = unsupported(bpy.context.scene)
    assert bpy.types.ViewLayer.bl_rna.properties[name].name in sentence


def test_a_sky_and_stereo_in_a_composite_are_told(engine_avatars, module):
    stage(engine_avatars / "ann.effigy")
    unsupported, scene = module("blender_addon.engine.unsupported").unsupported_settings, bpy.context.scene
    textured_world()
    assert "made by nodes" in unsupported(scene)[0]
    scene.render.film_transparent = True
    assert unsupported(scene) == []
    scene.render.engine = "CYCLES"
    multiview()
    assert "both eyes" in unsupported(scene)[0]


def test_two_heads_are_clipped_as_one_image(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    far = add_rig(engine_avatars / "ben.effigy")
    far.armature.location = (
        -2 * np.array((np.sin(engine_truth.AZIMUTH), -np.cos(engine_truth.AZIMUTH), 0)) + 0.3 * RIGHT
    )
    both = render_png(tmp_path / "both.png")
    assert (both[..., 3] > 0.5).sum() > (alone[..., 3] > 0.5).sum() + 50
    bpy.context.scene.camera.data.clip_end = 1.5
    assert np.abs(render_png(tmp_path / "near.png") - alone).max() < 2 * LEVEL
    assert alone.shape[0] == SIZE


def test_a_setting_of_a_layer_that_is_not_rendered_is_not_told(module):
    told = module("blender_addon.engine.unsupported").unsupported_settings
    scene = bpy.context.scene
    scene.render.engine, scene.render.film_transparent = "EFFIGY", False
    scene.world = bpy.data.worlds.new("sky")
    if bpy.app.version < (5, 0, 0):
        scene.world.use_nodes = True
    tree = scene.world.node_tree
    background = next(node for node in tree.nodes if node.type == "BACKGROUND")
    tree.links.new(tree.nodes.new("ShaderNodeRGB").outputs[0], background.inputs["Color"])
    other = scene.view_layers.new("other")
    group = other.lightgroups.add()
    group.name = "lamp"
    both = " ".join(told(scene))
    assert "made by nodes" in both and "lamp" in both
    other.use = False
    assert "lamp" not in " ".join(told(scene))
    first = scene.view_layers[0]
    first.use_sky = False
    assert "made by nodes" not in " ".join(told(scene))
