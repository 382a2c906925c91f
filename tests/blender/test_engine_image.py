"""F12 with the engine Effigy: it draws what the backend draws, in Blender's colours, passes, sizes and borders."""

from __future__ import annotations

import importlib

import bpy
import engine_truth
import numpy as np
import pytest
from engine_scenes import PACKAGE, SIZE, add_rig, read_by_backend, render_png, set_format, stage

LEVEL = 1 / 255


def test_a_png_holds_the_colours_that_the_backend_draws(engine_avatars, engine_picture, tmp_path):
    stage(engine_avatars / "ann.effigy")
    ours = render_png(tmp_path / "ours.png")
    truth = engine_picture
    head = truth["alpha"] > 0.99
    assert head.sum() > 2000
    assert np.abs(ours[..., :3] - truth["color"])[head].mean() < 2 * LEVEL
    assert np.abs(ours[..., :3] - truth["color"])[head].max() < 6 * LEVEL
    assert np.abs(ours[..., 3] - truth["alpha"]).max() < 3 * LEVEL
    # Turned the other way round, or by half a pixel, it would differ.
    assert np.abs(ours[:, ::-1, :3] - truth["color"])[head & head[:, ::-1]].mean() > 20 * LEVEL


def test_passes_are_scene_linear_colour_and_depth_in_metres(engine_avatars, engine_picture, tmp_path):
    stage(engine_avatars / "ann.effigy")
    bpy.context.view_layer.use_pass_z = True
    set_format("EXR")
    bpy.context.scene.render.filepath = str(tmp_path / "passes.exr")
    bpy.ops.render.render(write_still=True)
    read = read_by_backend(tmp_path / "passes.exr")
    channels = {name.removeprefix("ViewLayer."): pixels for name, pixels in read.items()}
    truth, head = engine_picture, engine_picture["alpha"] > 0.99
    depth = channels["Depth.Z"]
    assert np.abs(depth - truth["depth"])[head].max() < 1e-3
    assert (depth[truth["alpha"] == 0] == 1e10).all()
    assert engine_truth.DISTANCE - 0.2 < depth[head].min() < engine_truth.DISTANCE
    encoded = np.clip(truth["color"][head], 0, 1)
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    ours = np.stack([channels[f"Combined.{name}"] for name in "RGB"], -1)
    assert np.abs(ours[head] - linear).max() < 0.02
    edge = (truth["alpha"] > 0.2) & (truth["alpha"] < 0.8)
    straight = truth["color"][edge] / truth["alpha"][edge][:, None]
    assert np.abs(ours[edge] / truth["alpha"][edge][:, None] - ((straight + 0.055) / 1.055) ** 2.4).mean() < 0.01


def test_without_the_depth_pass_none_is_made(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    bpy.context.view_layer.use_pass_z = False
    set_format("EXR")
    bpy.context.scene.render.filepath = str(tmp_path / "passes.exr")
    bpy.ops.render.render(write_still=True)
    names = read_by_backend(tmp_path / "passes.exr")
    assert any("Combined" in name for name in names) and not any("Depth" in name for name in names)


def test_a_border_is_a_window_in_the_whole_picture(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    whole = render_png(tmp_path / "whole.png")
    render = bpy.context.scene.render
    render.use_border = True
    render.border_min_x, render.border_max_x, render.border_min_y, render.border_max_y = 0.31, 0.77, 0.22, 0.9
    framed = render_png(tmp_path / "framed.png")
    left, right, low, high = int(0.31 * SIZE), int(0.77 * SIZE), int(0.22 * SIZE), int(0.9 * SIZE)
    inside = np.zeros((SIZE, SIZE), bool)
    inside[SIZE - high : SIZE - low, left:right] = True
    assert np.abs(framed - whole)[inside].max() < 3 * LEVEL
    assert (framed[~inside] == 0).all()
    render.use_crop_to_border = True
    cropped = render_png(tmp_path / "cropped.png")
    assert cropped.shape == (high - low, right - left, 4)
    assert np.abs(cropped - whole[SIZE - high : SIZE - low, left:right]).max() < 3 * LEVEL


def test_percentage_and_aspect_change_the_size_and_not_the_view(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    whole = render_png(tmp_path / "whole.png")
    render = bpy.context.scene.render
    render.resolution_percentage = 50
    half = render_png(tmp_path / "half.png")
    assert half.shape[:2] == (SIZE // 2, SIZE // 2)
    means = whole[..., 3].reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3))
    assert np.abs(half[..., 3] - means).mean() < 4 * LEVEL
    render.resolution_percentage, render.resolution_x = 100, 2 * SIZE
    bpy.context.scene.camera.data.sensor_width *= 2
    wide = render_png(tmp_path / "wide.png")
    assert np.abs(wide[:, SIZE // 2 : -SIZE // 2] - whole).max() < 3 * LEVEL


def test_an_orthographic_camera_sees_what_a_long_lens_sees_from_afar(engine_avatars, tmp_path):
    stage(engine_avatars / "ann.effigy")
    camera = bpy.context.scene.camera
    shown = 0.45
    camera.data.type, camera.data.ortho_scale, camera.data.shift_x = "ORTHO", shown, 0.1
    flat = render_png(tmp_path / "flat.png")
    distance = 60.0
    camera.data.type, camera.data.lens = "PERSP", engine_truth.SENSOR * distance / shown
    turn = engine_truth.AZIMUTH
    camera.location = distance * np.sin(turn), -distance * np.cos(turn), engine_truth.HEIGHT
    far = render_png(tmp_path / "far.png")
    head = far[..., 3] > 0.99
    assert head.sum() > 3000
    assert np.abs(flat - far)[head].mean() < 2 * LEVEL and np.abs(flat[..., 3] - far[..., 3]).mean() < LEVEL


def test_a_film_that_is_not_transparent_has_the_colour_of_the_world_behind(engine_avatars, engine_picture, tmp_path):
    stage(engine_avatars / "ann.effigy")
    scene = bpy.context.scene
    clear = render_png(tmp_path / "clear.png")
    assert clear[0, 0].tolist() == [0, 0, 0, 0]
    scene.render.film_transparent = False
    assert render_png(tmp_path / "black.png")[0, 0].tolist() == [0, 0, 0, 1]
    scene.world = bpy.data.worlds.new("plain")
    scene.world.color = 0.5, 0.2, 0.05
    if scene.world.node_tree is not None:
        node = next(node for node in scene.world.node_tree.nodes if node.bl_idname == "ShaderNodeBackground")
        node.inputs["Color"].default_value, node.inputs["Strength"].default_value = (1.0, 0.4, 0.1, 1), 0.5
    solid = render_png(tmp_path / "solid.png")
    encoded = 1.055 * np.array((0.5, 0.2, 0.05)) ** (1 / 2.4) - 0.055
    assert np.abs(solid[0, 0, :3] - encoded).max() < LEVEL
    assert (solid[..., 3] == 1).all()
    # Soft edges too are as the backend puts them over a plain colour.
    expected = engine_picture["color"] + (1 - engine_picture["alpha"][..., None]) * encoded
    assert np.abs(solid[..., :3] - np.clip(expected, 0, 1)).max() < 6 * LEVEL


def test_two_avatars_are_drawn_together_and_hide_one_another(engine_avatars, tmp_path):
    ann = stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    ben = add_rig(engine_avatars / "ben.effigy")
    away = np.array((np.sin(engine_truth.AZIMUTH), -np.cos(engine_truth.AZIMUTH), 0))
    ben.armature.location = -0.15 * away
    behind = render_png(tmp_path / "behind.png")
    head = alone[..., 3] > 0.995
    assert np.abs(behind - alone)[head].mean() < LEVEL
    ben.armature.location = 0.15 * away
    before = render_png(tmp_path / "before.png")
    assert np.abs(before - alone)[head].mean() > 20 * LEVEL
    right = np.array((np.cos(engine_truth.AZIMUTH), np.sin(engine_truth.AZIMUTH), 0))
    ann.armature.location, ben.armature.location = -0.11 * right, 0.11 * right
    beside = render_png(tmp_path / "beside.png")
    assert (beside[..., 3] > 0.99).sum() > 1.6 * head.sum()
    ann.mesh.hide_render = True
    only_ben = render_png(tmp_path / "only_ben.png")
    assert (only_ben[..., 3] > 0.99).sum() < 1.2 * head.sum()
    assert not (only_ben[..., 3] > 0.5)[:, : SIZE // 3].any()


def test_an_excluded_collection_is_not_rendered_and_an_instance_of_it_is(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    collection = made.mesh.users_collection[0]
    instance = bpy.data.objects.new("instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", collection
    bpy.context.scene.collection.objects.link(instance)
    bpy.context.view_layer.layer_collection.children[collection.name].exclude = True
    assert np.abs(render_png(tmp_path / "same.png") - alone).max() < 2 * LEVEL
    instance.location = 0.1 * np.cos(engine_truth.AZIMUTH), 0.1 * np.sin(engine_truth.AZIMUTH), 0
    shifted = render_png(tmp_path / "shifted.png")
    pixels = round(0.1 * engine_truth.LENS / engine_truth.SENSOR * SIZE / engine_truth.DISTANCE)
    assert np.abs(shifted[:, pixels:, 3] - alone[:, :-pixels, 3]).mean() < 0.05 < np.abs(shifted - alone)[..., 3].mean()
    bpy.data.objects.remove(instance)
    assert render_png(tmp_path / "none.png")[..., 3].max() == 0


def test_a_rig_twice_as_large_from_twice_as_far_is_the_same_picture(engine_avatars, tmp_path):
    made = stage(engine_avatars / "ann.effigy")
    alone = render_png(tmp_path / "alone.png")
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    made.armature.parent = bpy.context.scene.camera.parent = parent
    parent.scale, parent.location, parent.rotation_euler = (2, 2, 2), (3, -1, 0.5), (0.3, 0.1, 2)
    assert np.abs(render_png(tmp_path / "large.png") - alone).mean() < LEVEL


def test_uneven_scale_is_told_and_still_rendered(engine_avatars, tmp_path, capfd):
    made = stage(engine_avatars / "ann.effigy")
    made.armature.scale = 1, 1, 1.3
    assert (render_png(tmp_path / "squeezed.png")[..., 3] > 0.99).sum() > 1000
    assert "scaled by different amounts" in "".join(capfd.readouterr())


def test_the_engine_shows_blenders_own_settings_and_takes_itself_out_again(effigy):
    def engines(name):
        return getattr(bpy.types, name).COMPAT_ENGINES

    shown = ("RENDER_PT_format", "RENDER_PT_output", "RENDER_PT_color_management", "DATA_PT_lens")
    assert all("EFFIGY" in engines(name) for name in shown)
    assert "EFFIGY" not in engines("RENDER_PT_stereoscopy")
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    try:
        assert not any("EFFIGY" in engines(name) for name in shown)
        assert not hasattr(bpy.types, "EffigyRenderEngine")
        with pytest.raises(TypeError):
            bpy.context.scene.render.engine = "EFFIGY"
    finally:
        bpy.ops.preferences.addon_enable(module=PACKAGE)
    assert importlib.import_module(f"{PACKAGE}.blender_addon.engine.render_engine").EffigyRenderEngine.is_registered


def test_the_enhancer_is_used_unless_the_scene_switches_it_off(engine_avatars, tmp_path, module, monkeypatch):
    engine = module("blender_addon.engine.worker_frame")
    requested, call = [], engine.call_unless_cancelled
    monkeypatch.setattr(
        engine,
        "call_unless_cancelled",
        lambda client, method, params, cancelled: (
            requested.append(params["enhanced"]) or call(client, method, params, cancelled)
        ),
    )
    stage(engine_avatars / "ann.effigy")
    render_png(tmp_path / "enhanced.png")
    bpy.context.scene.effigy.enhanced = False
    render_png(tmp_path / "plain.png")
    assert requested == [True, False]
