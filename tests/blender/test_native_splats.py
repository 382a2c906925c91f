"""Native splats: an avatar as a point cloud that Cycles draws, follows its rig, and plays from a file on a farm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest
from engine_scenes import add_rig, read_png, set_format, stage
from test_extension_screen import drawn
from test_viewport_live import update

SUPPORTED = "type" in bpy.types.PointCloud.bl_rna.properties
needs_5_3 = pytest.mark.skipif(not SUPPORTED, reason="Blender draws Gaussians by itself from version 5.3 on")
LAYOUT = {"FLOAT_VECTOR": ("vector", 3), "FLOAT4": ("vector", 4), "QUATERNION": ("value", 4)}


@pytest.fixture
def cat(engine_avatars, effigy):
    rig = stage(engine_avatars / "cat.effigy")
    render = bpy.context.scene.render
    render.engine, render.resolution_x, render.resolution_y = "CYCLES", 32, 32
    render.threads_mode, render.threads = "FIXED", 1
    bpy.context.scene.cycles.samples, bpy.context.scene.cycles.use_denoising = 16, False
    return rig


@pytest.fixture
def cloud(cat):
    bpy.ops.effigy.native_splats()
    return cloud_of(cat)


def cloud_of(rig):
    return next(obj for obj in bpy.data.objects if obj.type == "POINTCLOUD" and obj.effigy_native.mesh == rig.mesh)


def values_of(cloud):
    """Each attribute of the evaluated point cloud, by name."""
    data, found = cloud.evaluated_get(bpy.context.evaluated_depsgraph_get()).data, {}
    for attribute in data.attributes:
        key, width = LAYOUT[attribute.data_type]
        found[attribute.name] = np.empty(len(attribute.data) * width, np.float32)
        attribute.data.foreach_get(key, found[attribute.name])
        found[attribute.name] = found[attribute.name].reshape(-1, width)
    return found


def places(cloud):
    """(G, 3) in the world."""
    motion = np.array(cloud.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world)
    return values_of(cloud)["position"] @ motion[:3, :3].T + motion[:3, 3]


def wanted(module, rig):
    """The splats of the rig's pose as the engine Effigy evaluates them."""
    frame, depsgraph = module("blender_addon.native.frame"), bpy.context.evaluated_depsgraph_get()
    request = frame.request_of(rig, None, depsgraph, asked=True)
    answer = request.player.splats(request.pose.message(), request.viewpoint.message())
    return request, module("blender_addon.viewport.splats").Splats.from_answer(answer, np.eye(4))


def render(path, **settings):
    for name, value in settings.items():
        setattr(bpy.context.scene.render, name, value)
    set_format("PNG")
    bpy.context.scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    return read_png(path)


def difference(one, other):
    """Mean difference of blocks of 4 x 4 pixels: Cycles chooses by chance which Gaussians a ray meets."""
    return np.abs((one - other).reshape(8, 4, 8, 4, 4).mean((1, 3))).mean()


def nod(rig, frames=(1, 5), angle=0.6):
    bone = rig.pose_bone("neck")
    for frame, turn in zip(frames, (-angle, angle)):
        bone.rotation_quaternion = np.cos(turn / 2), 0, np.sin(turn / 2), 0
        bone.keyframe_insert("rotation_quaternion", frame=frame)
        rig.key_blocks["jawOpen"].value = max(turn, 0)
        rig.key_blocks["jawOpen"].keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = frames


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
def test_from_the_camera_the_harmonics_give_the_avatars_colours(cloud, cat, module, monkeypatch, turn):
    radiance, harmonics = (module(f"blender_addon.{name}") for name in ("native.radiance", "player.harmonics"))
    monkeypatch.setattr(radiance, "for_blended_light", lambda colors, *_: colors)
    module("blender_addon.native.update").state.written.clear()
    cat.armature.rotation_euler.z = turn
    bpy.context.view_layer.update()
    bpy.context.view_layer.update()
    request, expected = wanted(module, cat)
    values, turned = values_of(cloud), np.array(cloud.matrix_world)[:3, :3]
    away = (expected.means - request.viewpoint.position) @ turned
    seen = harmonics.functions(1, (away / np.linalg.norm(away, axis=1, keepdims=True)).T)
    coefficients = [values["radiance:base"][:, :3]] + [values[f"radiance:sh_{number}"] for number in range(3)]
    colors = 0.5 + sum(np.reshape(value, (-1, 1)) * rows for value, rows in zip(seen, coefficients))
    assert np.abs(colors - expected.colors).max() < 1e-4
    # From another side they differ as the avatar's own harmonics do.
    answer, own = request.player.splats_and_harmonics(request.pose.message(), request.viewpoint.message())
    count, other = own.shape[2], np.array((0.6, 0.0, -0.8))
    ours = sum(np.reshape(f, (-1, 1)) * rows for f, rows in zip(harmonics.functions(1, turned.T @ other), coefficients))
    head = module("blender_addon.rig.conventions").points_to_head(other)
    theirs = sum(np.reshape(f, (-1, 1)) * rows for f, rows in zip(harmonics.functions(1, head), own.transpose(0, 2, 1)))
    unclamped = answer["colors"][:count].min(1) > 0.05
    assert unclamped.any() and np.abs(ours[:count] - theirs)[unclamped].max() < 0.05


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
@pytest.mark.parametrize(("in_thread", "persistent"), [(False, True), (True, False), (True, True)])
def test_a_still_and_an_animation_show_their_frames(cloud, cat, tmp_path, module, monkeypatch, in_thread, persistent):
    nod(cat)
    if in_thread:
        # As where the window reads the file's data while a thread renders.
        update = module("blender_addon.native.update")
        monkeypatch.setattr(update, "_may_write_file", lambda: not update.state.rendering)
    stills = []
    for frame in (2, 4):
        bpy.context.scene.frame_set(frame)
        stills.append(render(tmp_path / "still.png"))
    bpy.context.scene.frame_set(1)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end, bpy.context.scene.frame_step = 2, 4, 2
    bpy.context.scene.render.use_persistent_data = persistent
    bpy.context.scene.render.filepath = str(tmp_path / "film_")
    bpy.ops.render.render(animation=True)
    films = [read_png(tmp_path / f"film_{frame:04d}.png") for frame in (2, 4)]
    assert stills[0][..., 3].mean() > 0.1 and difference(*stills) > 0.02
    for still, film in zip(stills, films):
        assert difference(still, film) < 0.005


@needs_5_3
def test_motion_within_the_exposure_is_blurred(cloud, cat, tmp_path):
    for frame, x in ((1, -0.2), (3, 0.2)):
        cat.armature.location.x = x
        cat.armature.keyframe_insert("location", frame=frame)
        cat.key_blocks["jawOpen"].value = frame / 3
        cat.key_blocks["jawOpen"].keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_set(2)
    sharp = render(tmp_path / "sharp.png")[..., 3]
    blurred = render(tmp_path / "blurred.png", use_motion_blur=True, motion_blur_shutter=0.5)[..., 3]
    partly = [((alpha > 0.1) & (alpha < 0.9)).mean() for alpha in (sharp, blurred)]
    assert partly[1] > 2 * partly[0] + 0.05
    # A whole frame of the deformation too: the object's own motion is not all.
    assert abs(blurred.mean() - sharp.mean()) < 0.05


@needs_5_3
def test_it_throws_shadows_and_cuts_holes(cloud, cat, tmp_path):
    camera = bpy.context.scene.camera
    bpy.ops.mesh.primitive_plane_add(size=4, location=(0, 0.3, 0), rotation=(np.pi / 2, 0, 0))
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    # From the front and the right, so that the shadow is beside the head.
    sun.data.energy, sun.rotation_euler = 3.0, (np.pi / 2, 0, 0.9)
    bpy.context.scene.collection.objects.link(sun)
    camera.location, camera.rotation_euler = (0, -1.2, 0), (np.pi / 2, 0, 0)
    pictures = {}
    for name, hidden, holdout in (("without", True, False), ("with", False, False), ("hole", False, True)):
        cloud.hide_render, cloud.is_holdout = hidden, holdout
        pictures[name] = render(tmp_path / f"{name}.png")
    assert pictures["without"][..., 3].min() > 0.99
    darker = pictures["without"][..., :3].mean(-1) - pictures["with"][..., :3].mean(-1)
    # The sun shines to the left of the picture, where nothing but the plane is seen.
    assert darker[12:20, :10].max() > 0.2 > 0.05 > np.abs(darker[:, 24:]).max()
    assert pictures["hole"][14:18, 14:18, 3].max() < 0.1 and pictures["hole"][:4, :, 3].min() > 0.99


@needs_5_3
def test_copies_and_other_avatars_have_splats_of_their_own(cloud, cat, engine_avatars):
    other = add_rig(engine_avatars / "cat.effigy")
    bpy.ops.effigy.native_splats()
    for obj in (cat.armature, cat.mesh, cloud):
        obj.select_set(True)
    other.armature.select_set(False)
    other.mesh.select_set(False)
    bpy.ops.object.duplicate(linked=True)
    bpy.context.view_layer.update()
    clouds = [obj for obj in bpy.data.objects if obj.type == "POINTCLOUD"]
    assert len({obj.effigy_native.mesh for obj in clouds}) == len({obj.data for obj in clouds}) == 3
    copy = next(
        obj for obj in clouds if obj.name.endswith(".001") and obj.parent.parent.name.startswith(cat.armature.name)
    )
    other.armature.location.x = 1.0
    copy.parent.parent.location.x = -1.0
    bpy.context.view_layer.update()
    bpy.context.view_layer.update()
    middles = sorted(places(obj).mean(0)[0] for obj in clouds)
    assert np.allclose(middles, np.array((-1, 0, 1)) + middles[1], atol=1e-3)


@needs_5_3
def test_overrides_of_one_asset_follow_their_own_rigs(cloud, cat, tmp_path):
    asset = bpy.data.collections.new("asset")
    bpy.context.scene.collection.children.link(asset)
    for obj in (cat.armature, cat.mesh, cloud):
        for collection in obj.users_collection:
            collection.objects.unlink(obj)
        asset.objects.link(obj)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "asset.blend"))
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "asset.blend"), link=True) as (_, linked):
        linked.collections = ["asset"]
    scene, layer = bpy.context.scene, bpy.context.view_layer
    scene.collection.children.link(linked.collections[0])
    for x in (1.0, -1.0):
        made = linked.collections[0].override_hierarchy_create(scene, layer, do_fully_editable=True)
        next(obj for obj in made.all_objects if obj.type == "ARMATURE").location.x = x
    for path in (None, str(tmp_path / "shot.blend")):
        if path:
            bpy.ops.wm.save_as_mainfile(filepath=path)
            bpy.ops.wm.open_mainfile(filepath=path)
        bpy.context.scene.frame_set(2)
        clouds = [obj for obj in bpy.context.scene.objects if obj.type == "POINTCLOUD" and obj.override_library]
        assert len(clouds) == len({obj.data for obj in clouds}) == 2
        assert np.allclose(sorted(places(obj).mean(0)[0] for obj in clouds), (-1, 1), atol=0.02)
    linked_mesh = next(obj for obj in bpy.data.objects if obj.type == "MESH" and obj.library)
    override = next(obj for obj in bpy.data.objects if obj.type == "MESH" and obj.override_library)
    assert not override.visible_camera and not linked_mesh.visible_camera


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
def test_the_mesh_comes_back_with_what_the_artist_had_chosen(cat, module):
    cat.mesh.visible_glossy = False
    bpy.ops.effigy.native_splats()
    assert not cat.mesh.visible_camera
    # As with X in the 3D View.
    bpy.data.objects.remove(cloud_of(cat))
    bpy.context.view_layer.update()
    cat.armature.location.x = 0.01
    bpy.context.view_layer.update()
    assert cat.mesh.visible_camera and cat.mesh.visible_shadow and not cat.mesh.visible_glossy
    bpy.ops.effigy.native_splats()
    bpy.ops.effigy.native_splats(remove=True)
    assert cat.mesh.visible_camera and not cat.mesh.visible_glossy
    assert not any(obj.type == "POINTCLOUD" for obj in bpy.data.objects)


@needs_5_3
def test_the_last_splats_stay_where_the_avatar_cannot_be_read(cloud, cat, tmp_path, capfd, engine_avatars):
    before = values_of(cloud)
    cat.armature.effigy.avatar = str(tmp_path / "gone.effigy")
    nod(cat)
    bpy.context.scene.frame_set(4)
    assert render(tmp_path / "gone.png")[..., 3].mean() > 0.1
    assert np.array_equal(values_of(cloud)["position"], before["position"])
    assert "gone.effigy" in capfd.readouterr().out
    with pytest.raises(RuntimeError, match="no baked model"):
        cat.armature.effigy.avatar = str(engine_avatars / "ann.effigy")
        bpy.ops.effigy.native_splats()


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
def test_a_farm_renders_the_file_without_effigy(cloud, cat, tmp_path):
    nod(cat, (1, 4))
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    frames = {}
    for frame in (1, 3):
        bpy.context.scene.frame_set(frame)
        frames[frame] = render(tmp_path / "live.png")
    bpy.ops.effigy.bake_to_disk(filepath=str(tmp_path / "splats.usdc"))
    baked = cloud_of(cat)
    assert baked.effigy_native.baked and not cat.mesh.visible_camera and bpy.context.scene.frame_current == 3
    assert [file.filepath for file in bpy.data.cache_files] == ["//splats.usdc"]
    bpy.ops.wm.save_mainfile()
    (tmp_path / "farm").mkdir()
    for name in ("shot.blend", "splats.usdc"):
        os.rename(tmp_path / name, tmp_path / "farm" / name)
    script = (
        "import bpy, sys; bpy.ops.wm.open_mainfile(filepath='shot.blend'); scene = bpy.context.scene; "
        "assert not hasattr(bpy.types, 'EFFIGY_OT_native_splats'); scene.render.filepath = '//farm_'; "
        "scene.frame_start, scene.frame_end, scene.frame_step = 1, 3, 2; bpy.ops.render.render(animation=True)"
    )
    (tmp_path / "user").mkdir()
    environment = os.environ | {"BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "farm", env=environment, check=True, timeout=120)
    for frame, live in frames.items():
        farm = read_png(Path(tmp_path, "farm", f"farm_{frame:04d}.png"))
        assert live[..., 3].mean() > 0.1 and difference(farm, live) < 0.01
    assert difference(frames[1], frames[3]) > 0.02


@needs_5_3
def test_baking_again_replaces_the_file_and_a_failed_bake_leaves_it(cloud, cat, tmp_path, module, monkeypatch):
    nod(cat, (1, 3))
    cloud.is_holdout = True
    path = tmp_path / "splats.usdc"
    # As in a long range.
    monkeypatch.setattr(module("blender_addon.native.usd"), "KEPT", 1)
    bpy.ops.effigy.bake_to_disk(filepath=str(path), first=1, last=2)
    cat.armature.location.x = 0.5
    bpy.ops.effigy.bake_to_disk(filepath=str(path), first=1, last=2)
    baked = cloud_of(cat)
    assert baked == cloud and [modifier.type for modifier in baked.modifiers] == ["MESH_SEQUENCE_CACHE"]
    assert len(bpy.data.cache_files) == 1 and places(baked).mean(0)[0] > 0.4
    content = path.read_bytes()
    for arguments, sentence in (
        ({"first": 3, "last": 1}, "before the first"),
        ({"filepath": str(tmp_path / "none" / "splats.usdc")}, "no folder"),
    ):
        with pytest.raises(RuntimeError, match=sentence):
            bpy.ops.effigy.bake_to_disk(**{"filepath": str(path)} | arguments)
    bpy.ops.wm.usd_import(filepath=str(path))
    assert bpy.context.object.data.type == "GAUSSIAN_SPLAT" and len(bpy.context.object.data.points) == len(
        cloud.data.points
    )
    bpy.data.objects.remove(bpy.context.object)
    bpy.context.view_layer.objects.active = cat.armature
    cat.armature.scale = 0, 0, 0
    with pytest.raises(RuntimeError, match="scaled to nothing in all frames from 1 to 2"):
        bpy.ops.effigy.bake_to_disk(filepath=str(path), first=1, last=2)
    cat.armature.scale = 1, 1, 1
    (tmp_path / "folder.usdc").mkdir()
    (tmp_path / "folder.usdc" / "own").touch()
    with pytest.raises(RuntimeError, match="could not be written"):
        bpy.ops.effigy.bake_to_disk(filepath=str(tmp_path / "folder.usdc"), first=1, last=2)
    bpy.ops.effigy.native_splats()
    assert cloud.parent == cat.mesh and [modifier.type for modifier in cloud.modifiers] == ["NODES"]
    assert cloud.is_holdout and np.abs(places(cloud) - wanted(module, cat)[1].means).max() < 1e-5
    assert path.read_bytes() == content and {each.name for each in tmp_path.iterdir()} == {"splats.usdc", "folder.usdc"}
    bpy.ops.effigy.native_splats(remove=True)
    assert cat.mesh.visible_camera


@needs_5_3
def test_a_file_that_was_saved_without_effigy_follows_its_rig_again(cloud, cat, tmp_path):
    nod(cat)
    bpy.context.scene.frame_set(2)
    before, path = places(cloud), tmp_path / "shot.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(path))
    script = (
        f"import bpy; bpy.ops.wm.open_mainfile(filepath={str(path)!r}); bpy.context.scene.frame_set(4); "
        "print('POINTS', len(bpy.data.pointclouds[0].points)); bpy.ops.wm.save_mainfile()"
    )
    (tmp_path / "user").mkdir()
    environment = os.environ | {"BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, timeout=120, capture_output=True, text=True
    )
    assert f"POINTS {len(before)}" in done.stdout
    bpy.ops.wm.open_mainfile(filepath=str(path))
    (again,) = [obj for obj in bpy.data.objects if obj.type == "POINTCLOUD"]
    assert bpy.context.scene.frame_current == 4 and np.abs(places(again) - before).max() < 1e-5
    bpy.context.scene.frame_set(3)
    assert np.abs(places(again) - before).max() > 0.01


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
    assert "Scene Light" in words and "Remove" in words and "Bake to Disk" in words
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
