"""Native splats: an avatar as a point cloud that has its colours and follows its rig."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from native_scenes import SUPPORTED, cloud_of, needs_5_3, nod, places, stage_cat, values_of, wanted
from test_extension_screen import drawn
from test_viewport_live import update


@pytest.fixture
def cat(engine_avatars, effigy):
    return stage_cat(engine_avatars)


@pytest.fixture
def cloud(cat):
    bpy.ops.effigy.native_splats()
    return cloud_of(cat)


@pytest.mark.skipif(SUPPORTED, reason="This Blender draws Gaussians by itself")
def test_earlier_versions_get_a_sentence_and_nothing_else(cat, effigy):
    with pytest.raises(RuntimeError, match="from version 5.3 on"):
        bpy.ops.effigy.native_splats()
    assert not hasattr(cat.mesh, "effigy_native") and not hasattr(bpy.types, "EFFIGY_PT_native")
    modules = {function.__module__ for function in bpy.app.handlers.frame_change_post}
    assert not any(".native." in name for name in modules)


@needs_5_3
def test_the_point_cloud_has_the_avatars_splats(cloud, cat, module):
    assert cloud.data.type == "GAUSSIAN_SPLAT" and cloud.parent == cat.mesh
    _, expected = wanted(module, cat)
    values = values_of(cloud)
    assert np.abs(places(cloud) - expected.means).max() < 1e-5
    assert np.abs(values["scale"] - expected.scales).max() < 1e-6
    assert np.abs(values["radiance:base"][:, 3] - expected.opacities).max() < 1e-6
    assert not any(getattr(cat.mesh, ray) for ray in module("blender_addon.native.mesh_rays").RAYS)


@needs_5_3
@pytest.mark.parametrize("turn", [0.0, 1.1])
def test_from_the_camera_it_has_the_avatars_colours_and_from_elsewhere_its_harmonics(
    cloud, cat, module, monkeypatch, turn
):
    radiance, harmonics = (module(f"blender_addon.{name}") for name in ("native.radiance", "player.harmonics"))
    monkeypatch.setattr(radiance, "for_blended_light", lambda colors, *_: colors)
    player = module("blender_addon.player.evaluate").Player
    evaluate, noise = player.splats_and_harmonics, np.random.default_rng(0)
    strong = []

    def with_strong_harmonics(self, *arguments):
        """An untrained avatar has hardly any."""
        answer, own = evaluate(self, *arguments)
        strong[:] = [noise.normal(0, 0.1, own.shape).astype(np.float32)]
        return answer, strong[0]

    monkeypatch.setattr(player, "splats_and_harmonics", with_strong_harmonics)
    module("blender_addon.native.update").state.written.clear()
    cat.armature.rotation_euler.z = turn
    bpy.context.view_layer.update()
    bpy.context.view_layer.update()
    request, expected = wanted(module, cat)
    values, in_object = values_of(cloud), np.array(cloud.matrix_world)[:3, :3].T
    coefficients = [values["radiance:base"][:, :3]] + [values[f"radiance:sh_{number}"] for number in range(3)]

    def seen(coefficients, directions):
        """Of Gaussians with coefficients (4, G, 3) from unit directions (3, G)."""
        functions = harmonics.functions(1, directions)
        return sum(np.reshape(value, (-1, 1)) * rows for value, rows in zip(functions, coefficients))

    away = (expected.means - request.viewpoint.position).T
    away /= np.linalg.norm(away, axis=0)
    assert np.abs(0.5 + seen(coefficients, in_object @ away) - expected.colors).max() < 1e-4
    count, to_head = strong[0].shape[2], module("blender_addon.rig.conventions").points_to_head
    away, other = away[:, :count], np.array(((0.6,), (0.0,), (-0.8,)))
    ours = [seen([rows[:count] for rows in coefficients], in_object @ each) for each in (other, away)]
    theirs = [seen(strong[0].transpose(0, 2, 1), to_head(each.T).T) for each in (other, away)]
    lit = expected.colors[:count].min(1) > 0.01
    assert np.abs((ours[0] - ours[1]) - (theirs[0] - theirs[1]))[lit].max() < 1e-3


@needs_5_3
def test_it_follows_keys_bones_and_parents_also_where_the_mesh_is_hidden(cloud, cat, module):
    nod(cat)
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    parent.location, parent.rotation_euler = (0.1, 0.2, 0.3), (0, 0, 0.4)
    cat.armature.parent = parent
    before = places(cloud)
    for hidden, frame in ((False, 2), (True, 4)):
        cat.mesh.hide_render = cat.mesh.hide_viewport = hidden
        bpy.context.scene.frame_set(frame, subframe=0.5)
        assert np.abs(places(cloud) - wanted(module, cat)[1].means).max() < 1e-5
        assert np.abs(places(cloud) - before).max() > 0.02
        before = places(cloud)
    cat.mesh.hide_viewport = False
    cat.key_blocks["mouthSmileLeft"].value = 0.0
    bpy.context.view_layer.update()
    bpy.context.view_layer.update()
    assert np.abs(places(cloud) - before).max() > 1e-3


@needs_5_3
def test_a_head_that_is_scaled_to_nothing_is_not_seen(cloud, cat):
    for frame, scale in ((1, 1.0), (2, 0.0)):
        cat.armature.scale = scale, scale, scale
        cat.armature.keyframe_insert("scale", frame=frame)
    shown = []
    for frame in (1, 2, 1):
        bpy.context.scene.frame_set(frame)
        shown.append(values_of(cloud)["radiance:base"][:, 3].max())
    assert shown[0] == shown[2] > 0.5 > shown[1] == 0


@needs_5_3
@pytest.mark.parametrize("parts", [("armature", "mesh"), ("mesh",)])
def test_a_deleted_head_is_not_seen(cloud, cat, parts):
    for obj in list(bpy.context.selected_objects):
        obj.select_set(False)
    for part in parts:
        getattr(cat, part).select_set(True)
    # As with X in the 3D View.
    bpy.ops.object.delete()
    bpy.context.view_layer.update()
    bpy.context.view_layer.update()
    assert values_of(cloud)["radiance:base"][:, 3].max() == 0


@needs_5_3
def test_scripts_set_the_scenes_light(cloud, cat):
    before = values_of(cloud)["radiance:base"]
    # The scene has no lamp.
    cloud.effigy_native.light = 1.0
    bpy.context.view_layer.update()
    bpy.context.view_layer.update()
    assert values_of(cloud)["radiance:base"][:, :3].mean() < before[:, :3].mean() - 0.3


@needs_5_3
def test_the_grade_is_in_the_splats(cloud, cat):
    shown = []
    for exposure in (0.0, 1.0, 0.0):
        cat.armature.effigy.exposure = exposure
        bpy.context.view_layer.update()
        bpy.context.view_layer.update()
        shown.append(values_of(cloud)["radiance:base"].copy())
    plain, light, again = shown
    assert light[:, :3].mean() > plain[:, :3].mean() + 0.1 and (light[:, 3] == plain[:, 3]).all()
    assert (again == plain).all()


@needs_5_3
def test_the_scenes_light_falls_on_one_side(cloud, cat):
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.rotation_euler = 3.0, (0, np.pi / 2, 0)
    bpy.context.scene.collection.objects.link(sun)
    bpy.context.view_layer.update()
    before = values_of(cloud)["radiance:base"]
    cloud.effigy_native.light = 0.0
    cloud.effigy_native.keyframe_insert("light", frame=1)
    cloud.effigy_native.light = 1.0
    cloud.effigy_native.keyframe_insert("light", frame=3)
    bpy.context.scene.frame_set(1)
    assert np.array_equal(values_of(cloud)["radiance:base"], before)
    bpy.context.scene.frame_set(3)
    after, side = values_of(cloud)["radiance:base"], places(cloud)[:, 0]
    # It shines from +X.
    change = (after - before)[:, :3].mean(1)
    assert change[side > 0.06].mean() > change[side < -0.06].mean() + 0.3
    assert change[side < -0.06].mean() < -0.3


@needs_5_3
def test_the_window_and_the_panels_know_what_blender_draws(cat, module):
    bpy.context.scene.render.engine = "EFFIGY"
    assert cat.armature.name in update()
    bpy.context.scene.render.engine = "CYCLES"
    shown = module("blender_addon.engine.shown")
    assert shown.shown_in(bpy.context.scene) is shown.Shown.NOT
    assert "Native Splats" in drawn("EFFIGY_PT_native")
    bpy.ops.effigy.native_splats()
    assert cat.armature.name not in update()
    assert shown.shown_in(bpy.context.scene) is shown.Shown.NATIVE and not shown.sentence(bpy.context.scene)
    words = drawn("EFFIGY_PT_native")
    assert all(word in words for word in ("Scene Light", "Remove", "Bake to Disk", "3D Views Drawn by Effigy"))
    assert "Composite over the Scene" not in drawn("EFFIGY_PT_render")
    cloud_of(cat).hide_viewport = True
    assert cat.armature.name in update()


@needs_5_3
def test_sides_that_were_never_filmed_look_as_the_nearest_that_was(module):
    harmonics, conditions = module("blender_addon.player.harmonics"), module("blender_addon.player.conditions")
    # Lighter by 0.15 towards one side, filmed up to 0.5 rad.
    own = np.zeros((4, 3, 1), np.float32)
    own[3] = -0.15 / 0.4886
    views = np.array(((-0.5, 0.5), (-0.2, 0.2)))
    kept = harmonics.taken_at(own, lambda directions: conditions.within_views(directions, views))

    def seen(coefficients, yaw):
        return harmonics.colors_from(np.array(((np.sin(yaw),), (0.0,), (-np.cos(yaw),))), coefficients)[0, 0] - 0.5

    assert abs(seen(own, 1.5) - 0.15) < 0.01 and seen(kept, 1.5) < 0.12
    assert 0.02 < seen(kept, 0.5) < 0.1 and abs(seen(kept, 0.0)) < 0.01


@needs_5_3
def test_gaussians_of_two_colours_blend_in_light_as_in_encoded_values(module):
    radiance = module("blender_addon.native.radiance")
    colors = np.tile(((0.3,), (0.6,)), (50, 3)).astype(np.float32)
    means, weights = np.random.default_rng(0).random((100, 3)) * 1e-3, np.ones(100)
    wanted = radiance.encode(radiance.decode(radiance.for_blended_light(colors, means, weights)).mean(0))
    plain = radiance.encode(radiance.decode(colors).mean(0))
    assert np.abs(wanted - 0.45).max() < 0.002 < 0.015 < np.abs(plain - 0.45).min()
