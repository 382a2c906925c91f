"""Native splats in files: copies, overrides, what remains without Effigy, and the USD file for a render farm."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import bpy
import numpy as np
import pytest
from engine_scenes import add_rig, read_png, set_format
from native_scenes import cloud_of, difference, needs_5_3, nod, places, stage_cat, wanted

FILM = 24
"""Frames."""


@pytest.fixture
def cat(engine_avatars, effigy):
    return stage_cat(engine_avatars)


@pytest.fixture
def cloud(cat):
    bpy.ops.effigy.native_splats()
    return cloud_of(cat)


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
def test_a_farm_renders_the_file_without_effigy(cloud, cat, tmp_path):
    # A fast turn: six degrees a frame.
    nod(cat, range(1, FILM + 1), np.linspace(-1.2, 1.2, FILM))
    set_format("PNG")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.context.scene.render.filepath = str(tmp_path / "live_")
    bpy.ops.render.render(animation=True)
    bpy.context.scene.frame_set(3)
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
        "bpy.ops.render.render(animation=True)"
    )
    (tmp_path / "user").mkdir()
    environment = os.environ | {"BLENDER_USER_RESOURCES": str(tmp_path / "user")}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "farm", env=environment, check=True, timeout=120)
    files = [
        (tmp_path / f"live_{frame:04d}.png", tmp_path / "farm" / f"farm_{frame:04d}.png")
        for frame in range(1, FILM + 1)
    ]
    live, farm = ([read_png(pair[way]) for pair in files] for way in (0, 1))
    away = max(difference(*pair) for pair in zip(live, farm, strict=True))
    shifted = min(
        difference(*pair)
        for pairs in (zip(farm, live[1:]), zip(farm[1:], live), itertools.pairwise(live))
        for pair in pairs
    )
    print(f"from the frames with Effigy: {away:.5f}; from their neighbours: at least {shifted:.5f}")
    assert live[0][..., 3].mean() > 0.1 and away < 0.002 and shifted > 3 * away


@needs_5_3
def test_baking_again_replaces_the_file_and_a_failed_bake_leaves_it(cloud, cat, tmp_path, module, monkeypatch):
    nod(cat, (1, 3))
    cloud.is_holdout = True
    path = tmp_path / "splats.usdc"
    # As in a long range.
    monkeypatch.setattr(module("blender_addon.native.usd"), "KEPT", 1)
    bpy.ops.effigy.bake_to_disk(filepath=str(path), first=1, last=2)
    cat.armature.location.x = 0.5
    bpy.context.scene.frame_end = 2
    bpy.ops.effigy.bake_to_disk(filepath=str(path), first=1)
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
