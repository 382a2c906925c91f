"""Avatars over a scene of Cycles: before and behind its objects, in whatever frame and by whatever camera."""

from __future__ import annotations

from types import SimpleNamespace

import bpy
import engine_truth
import numpy as np
import pytest
from engine_scenes import SIZE, add_camera, add_rig, read_png, render_png, set_format, stage
from test_extension_screen import Layout

AWAY = np.array((np.sin(engine_truth.AZIMUTH), -np.cos(engine_truth.AZIMUTH), 0))
"""From the head to the camera."""
RIGHT = np.array((np.cos(engine_truth.AZIMUTH), np.sin(engine_truth.AZIMUTH), 0))


def glowing_cube(at: np.ndarray, size: float, color: tuple[float, float, float]) -> bpy.types.Object:
    """A cube that faces the camera, with one colour from everywhere."""
    corners = size / 2 * np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    mesh = bpy.data.meshes.new("cube")
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    mesh.from_pydata(corners.tolist(), [], faces)
    cube = bpy.data.objects.new("cube", mesh)
    cube.location, cube.rotation_euler = at, (0, 0, engine_truth.AZIMUTH)
    material = bpy.data.materials.new("glow")
    if bpy.app.version < (5, 0, 0):
        material.use_nodes = True
    nodes = material.node_tree.nodes
    emission = nodes.new("ShaderNodeEmission")
    emission.inputs["Color"].default_value = (*color, 1)
    output = next(node for node in nodes if node.bl_idname == "ShaderNodeOutputMaterial")
    material.node_tree.links.new(emission.outputs[0], output.inputs["Surface"])
    mesh.materials.append(material)
    bpy.context.scene.collection.objects.link(cube)
    return cube


@pytest.fixture
def shot(engine_avatars):
    """A rig in a Cycles scene of few samples, before a green wall, half hidden by a blue one."""
    made = stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 4
    scene.cycles.use_denoising = False
    scene.render.film_transparent = False
    glowing_cube(-0.6 * AWAY, 0.8, (0, 0.3, 0))
    glowing_cube(0.2 * AWAY + 0.1 * RIGHT, 0.2, (0, 0, 0.5))
    return made


def alone(engine_picture) -> tuple[np.ndarray, np.ndarray]:
    return engine_picture["alpha"] > 0.99, engine_picture["color"]


def test_objects_hide_the_avatar_and_are_hidden_by_it(shot, engine_picture, tmp_path):
    bpy.ops.effigy.set_up_composite()
    ours = render_png(tmp_path / "both.png")
    head, color = alone(engine_picture)
    blue = np.abs(ours[..., :3] - (0, 0, 0.735)).max(-1) < 0.02
    green = np.abs(ours[..., :3] - (0, 0.584, 0)).max(-1) < 0.02
    seen = np.abs(ours[..., :3] - color).max(-1) < 0.03
    left = np.zeros((SIZE, SIZE), bool)
    left[:, : SIZE // 2 - 2] = True
    low = np.zeros((SIZE, SIZE), bool)
    low[SIZE // 2 - 15 : SIZE // 2 + 15, SIZE // 2 + 3 :] = True
    assert (head & left).sum() > 500 and (head & low).sum() > 300
    # Left of the blue cube's edge the head hides the green wall; right of it the blue cube hides the head.
    assert seen[head & left].mean() > 0.98
    assert blue[head & low].mean() > 0.98
    assert green[engine_picture["alpha"] == 0].mean() > 0.3
    assert (ours[..., 3] == 1).all()


def test_soft_edges_hold_the_wall_behind_and_no_dark_line(shot, engine_picture, tmp_path):
    bpy.ops.effigy.set_up_composite()
    ours = render_png(tmp_path / "both.png")
    alpha, color = engine_picture["alpha"], engine_picture["color"]
    edge = (alpha > 0.2) & (alpha < 0.8)
    edge[:, SIZE // 2 - 2 :] = False
    edge[SIZE - 20 :] = edge[:20] = False
    assert edge.sum() > 30

    def linear(encoded):
        return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)

    straight = color[edge] / alpha[edge][:, None]
    expected = linear(straight) * alpha[edge][:, None] + (1 - alpha[edge][:, None]) * (0, 0.3, 0)
    assert np.abs(linear(ours[..., :3][edge]) - expected).mean() < 0.01


def test_with_a_transparent_film_the_rest_stays_clear(shot, engine_picture, tmp_path):
    for cube in [obj for obj in bpy.context.scene.objects if obj.name.startswith("cube")]:
        bpy.data.objects.remove(cube)
    bpy.context.scene.render.film_transparent = True
    bpy.ops.effigy.set_up_composite()
    ours = render_png(tmp_path / "clear.png")
    assert np.abs(ours[..., 3] - engine_picture["alpha"]).max() < 0.02


def test_the_meshs_shadow_stays_and_the_mesh_is_not_seen(shot, engine_picture, tmp_path):
    bpy.ops.effigy.set_up_composite()
    assert not shot.mesh.visible_camera and shot.mesh.visible_shadow and not shot.mesh.hide_render


def test_an_animation_follows_frame_camera_and_what_is_new_in_the_scene(shot, engine_avatars, tmp_path):
    scene = bpy.context.scene
    bpy.ops.effigy.set_up_composite()
    # All of this comes after the operator.
    for frame, place in ((7, 0.0), (8, -0.12)):
        shot.armature.location = place * RIGHT
        shot.armature.keyframe_insert("location", frame=frame)
    scene.camera = add_camera()
    scene.camera.data.lens *= 0.8
    scene.render.resolution_percentage = 50
    scene.frame_start, scene.frame_end = 7, 8
    set_format("PNG")
    scene.render.filepath = str(tmp_path / "shot_")
    bpy.ops.render.render(animation=True)
    first, second = (read_png(tmp_path / f"shot_{number:04d}.png") for number in (7, 8))
    assert first.shape[:2] == (SIZE // 2, SIZE // 2)
    wall = np.array((0, 0.584, 0))
    avatars = [np.abs(frame[: SIZE // 3, :, :3] - wall).max(-1) > 0.1 for frame in (first, second)]
    columns = [np.argwhere(avatar)[:, 1].min() for avatar in avatars]
    moved = 0.12 * 0.8 * engine_truth.LENS / engine_truth.SENSOR * (SIZE / 2) / engine_truth.DISTANCE
    assert columns[0] - columns[1] == pytest.approx(moved, abs=2)


def test_time_stretching_and_every_other_setting_of_the_render_are_followed(shot, module, tmp_path):
    """Twice as slow, frame 21 of the render shows the pose of frame 10.5: the head is where the film has it then."""
    avatar_pass = module("blender_addon.engine.avatar_pass")
    bpy.ops.effigy.set_up_composite()
    scene = bpy.context.scene
    for frame, place in ((1, 0.0), (10, 0.0), (11, -0.24), (30, -0.24)):
        shot.armature.location = place * RIGHT
        shot.armature.keyframe_insert("location", frame=frame)
    pictures = []
    for old, new, frame in ((100, 200, 20), (100, 200, 24), (100, 100, 20)):
        scene.render.frame_map_old, scene.render.frame_map_new = old, new
        scene.frame_set(frame)
        pictures.append(render_png(tmp_path / f"{old}_{new}_{frame}.png")[: SIZE // 3])
    early, late, plain = pictures
    assert np.abs(early - late).mean() > 0.02
    assert np.abs(late - plain).mean() < 0.005
    theirs, ours = scene.render, avatar_pass.find_pass(scene).render
    followed = avatar_pass.followed_settings(theirs)
    assert {"frame_map_old", "resolution_x", "use_border", "simplify_subdivision_render"} <= set(followed)
    assert [name for name in followed if getattr(ours, name) != getattr(theirs, name)] == []


def test_a_collection_that_the_artist_excludes_later_leaves_the_pass_too(shot, engine_avatars, tmp_path):
    bpy.ops.effigy.set_up_composite()
    ben = add_rig(engine_avatars / "ben.effigy")
    ben.armature.location = 0.1 * AWAY
    with_ben = render_png(tmp_path / "both.png")
    bpy.context.view_layer.layer_collection.children[ben.mesh.users_collection[0].name].exclude = True
    without = render_png(tmp_path / "one.png")
    assert np.abs(with_ben - without)[SIZE // 3 :, : SIZE // 2].mean() > 0.03


def test_a_second_time_it_sets_right_what_is_there(shot, tmp_path):
    bpy.ops.effigy.set_up_composite()
    scene = bpy.context.scene
    if hasattr(scene, "compositor_effects"):
        tree = scene.compositor_effects[0].node_group
    else:
        tree = scene.compositing_node_group if hasattr(scene, "compositing_node_group") else scene.node_tree
    before = len(tree.nodes), len(tree.links), len(bpy.data.scenes), len(bpy.data.node_groups)
    bpy.ops.effigy.set_up_composite()
    assert (len(tree.nodes), len(tree.links), len(bpy.data.scenes), len(bpy.data.node_groups)) == before


def test_the_artists_own_compositing_comes_after_it(shot, tmp_path):
    scene = bpy.context.scene
    if bpy.app.version >= (5, 0, 0):
        tree = bpy.data.node_groups.new("mine", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        if hasattr(scene, "compositor_effects"):
            scene.compositor_effects.new(name="mine").node_group = tree
        else:
            scene.compositing_node_group = tree
        end = tree.nodes.new("NodeGroupOutput")
    else:
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        end = tree.nodes.new("CompositorNodeComposite")
    layers, invert = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeInvert")
    tree.links.new(layers.outputs["Image"], invert.inputs["Color"])
    tree.links.new(invert.outputs[0], end.inputs[0])
    bpy.ops.effigy.set_up_composite()
    assert invert.inputs["Color"].links[0].from_node.type == "GROUP"
    assert end.inputs[0].links[0].from_node == invert


EFFECTS = pytest.mark.skipif(
    "compositor_effects" not in bpy.types.Scene.bl_rna.properties, reason="Blender 5.3 has effects"
)


@EFFECTS
def test_an_effect_whose_nodes_are_another_files_is_left_alone_and_comes_after_it(shot, tmp_path):
    tree = bpy.data.node_groups.new("asset", "CompositorNodeTree")
    for direction in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Image", in_out=direction, socket_type="NodeSocketColor")
    tree.links.new(tree.nodes.new("NodeGroupInput").outputs[0], tree.nodes.new("NodeGroupOutput").inputs[0])
    bpy.data.libraries.write(str(tmp_path / "assets.blend"), {tree})
    bpy.data.node_groups.remove(tree)
    with bpy.data.libraries.load(str(tmp_path / "assets.blend"), link=True) as (there, here):
        here.node_groups = there.node_groups
    effects = bpy.context.scene.compositor_effects
    effects.new(name="asset").node_group = here.node_groups[0]
    for _ in range(2):
        bpy.ops.effigy.set_up_composite()
        assert [effect.name for effect in effects] == ["Avatars", "asset"]
        assert len(here.node_groups[0].nodes) == 2
        assert any(node.type == "GROUP" for node in effects[0].node_group.nodes)


@EFFECTS
def test_the_composite_is_the_first_of_the_artists_effects(shot, engine_picture, tmp_path):
    """Blender's own new effect reads the scene from its group's input and has no Render Layers node."""
    scene = bpy.context.scene
    for name, node in (("switched off", None), ("first", None), ("second", "CompositorNodeInvert")):
        effect = scene.compositor_effects.new(name=name)
        effect.enable_for_render = name != "switched off"
        effect.node_group = tree = bpy.data.node_groups.new(name, "CompositorNodeTree")
        for direction in ("INPUT", "OUTPUT"):
            tree.interface.new_socket("Image", in_out=direction, socket_type="NodeSocketColor")
        image, end = tree.nodes.new("NodeGroupInput").outputs[0], tree.nodes.new("NodeGroupOutput")
        if node is not None:
            invert = tree.nodes.new(node)
            tree.links.new(image, invert.inputs["Color"])
            image = invert.outputs[0]
        tree.links.new(image, end.inputs[0])
    bpy.ops.effigy.set_up_composite()
    bpy.ops.effigy.set_up_composite()
    counts = [len(effect.node_group.nodes) for effect in scene.compositor_effects]
    assert counts == [2, 5, 3]
    picture = render_png(tmp_path / "effects.png")
    opaque, color = alone(engine_picture)
    seen = opaque & (np.arange(SIZE)[None, :] < SIZE // 2)
    assert seen.sum() > 300
    # Inverted in scene-linear values.
    linear = np.clip(color[seen], 0, 1) ** 2.2
    assert np.abs(picture[seen][:, :3] - (1 - linear) ** (1 / 2.2)).mean() < 0.02


def test_the_panel_of_the_artists_engine_offers_it_and_says_when_it_is_done(shot, module):
    panel = module("blender_addon.engine.panels").EFFIGY_PT_engine_composite

    def words() -> str:
        layout = Layout()
        panel.draw(SimpleNamespace(layout=layout), bpy.context)
        return layout.words

    assert panel.poll(bpy.context) and "Cycles alone does not render avatars" in words()
    bpy.ops.effigy.set_up_composite()
    assert "are composited into this scene's image" in words() and "Set Up Again" in words()
    shot.armature.effigy.avatar = ""
    assert not panel.poll(bpy.context)


def test_what_cannot_be_composited_is_refused_with_a_sentence(engine_avatars):
    stage(engine_avatars / "ann.effigy")
    with pytest.raises(RuntimeError, match="choose Cycles or EEVEE"):
        bpy.ops.effigy.set_up_composite()
    bpy.context.scene.render.engine = "CYCLES"
    for obj in bpy.context.scene.objects:
        obj.effigy.avatar = ""
    with pytest.raises(RuntimeError, match="no avatar in this scene"):
        bpy.ops.effigy.set_up_composite()


def test_a_render_without_the_avatars_is_announced_and_tab_and_properties_say_the_same(shot, module, monkeypatch):
    told = []
    shown = module("blender_addon.engine.shown")
    monkeypatch.setattr(shown, "report_soon", lambda sentence, kind="ERROR": told.append((sentence, kind)))
    scene = bpy.context.scene
    scene.render.resolution_x = scene.render.resolution_y = 16

    def state() -> str:
        """What both panels say; they must agree."""
        layouts = []
        for draw in (
            module("blender_addon.engine.panels").EFFIGY_PT_engine_composite.draw,
            module("blender_addon.panels.render_panel").EFFIGY_PT_render.draw,
        ):
            layouts.append(Layout())
            draw(SimpleNamespace(layout=layouts[-1]), bpy.context)
        words = [sentence for sentence in layouts[0].texts if "vatars" in sentence or "Set Up" in sentence]
        assert all(sentence in layouts[1].texts for sentence in words)
        return " ".join(layouts[0].texts)

    assert "Cycles alone does not render avatars" in state()
    bpy.ops.render.render()
    assert len(told) == 1 and "Cycles renders this image without the avatars" in told[0][0] and told[0][1]
    bpy.ops.effigy.set_up_composite()
    assert "are composited" in state()
    bpy.ops.render.render()
    assert len(told) == 1
    # The artist's own change of the compositor is noticed, and one button restores it.
    module("blender_addon.engine.depth_composite").find_composite(scene).mute = True
    assert "show no avatars" in state() and "Set Up Again" in state()
    scene.render.engine = "EFFIGY"
    assert shown.shown_in(scene) is shown.Shown.BY_ENGINE
    bpy.ops.render.render()
    assert len(told) == 1
    scene.render.engine = "CYCLES"
    shot.mesh.hide_render = True
    assert shown.shown_in(scene) is shown.Shown.NO_AVATARS


def test_the_trouble_of_a_composite_is_none_of_the_effigy_engines(shot, module):
    trouble = module("blender_addon.engine.avatar_pass").trouble
    node = module("blender_addon.engine.depth_composite").find_composite
    bpy.ops.effigy.set_up_composite()
    scene = bpy.context.scene
    scene.render.use_compositing = False
    assert trouble(scene)
    scene.render.engine = "EFFIGY"
    assert trouble(scene) is None
    scene.render.engine = "CYCLES"
    bpy.data.scenes.remove(module("blender_addon.engine.avatar_pass").find_pass(scene))
    node(scene).label = "Ann in the shot"
    assert "node “Ann in the shot”" in trouble(scene)


def test_the_pass_of_a_linked_scene_is_no_pass_here(shot, module, tmp_path):
    bpy.ops.effigy.set_up_composite()
    name = module("blender_addon.engine.avatar_pass").find_pass(bpy.context.scene).name
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "shot.blend"), link=True) as (_, wanted):
        wanted.scenes = [name]
    linked = wanted.scenes[0]
    assert linked.library and module("blender_addon.engine.avatar_pass").scene_of(linked) is None
