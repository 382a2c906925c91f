"""Which avatars a render has, asked without rendering."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import pytest
from rig_place import armature, mesh


@pytest.fixture
def found(scene, module, engine_avatars: Path) -> Callable[[], Any]:
    """The subjects of the open shot, whose rig has an avatar."""
    armature().effigy.avatar = str(engine_avatars / "ann.effigy")

    def collect() -> Any:
        bpy.context.view_layer.update()
        return module("blender_addon.engine.subjects").collect_subjects(bpy.context.evaluated_depsgraph_get())

    return collect


def instance_of(collection: bpy.types.Collection) -> bpy.types.Object:
    empty = bpy.data.objects.new("instance", None)
    empty.instance_type, empty.instance_collection = "COLLECTION", collection
    place = bpy.data.collections.new("instances")
    place.objects.link(empty)
    bpy.context.scene.collection.children.link(place)
    return empty


def test_a_head_whose_armature_is_not_in_the_scene_is_seen_all_the_same(found):
    for collection in list(armature().users_collection):
        collection.objects.unlink(armature())
    assert len(found().subjects) == 1


def test_what_a_head_cannot_follow_is_told_once_for_all_its_instances(found):
    instance_of(mesh().users_collection[0])
    mesh().modifiers.new("bend", "SIMPLE_DEFORM")
    seen = found()
    assert len(seen.subjects) == 2 and len(seen.warnings) == 1


def test_an_instance_in_a_collection_that_shows_only_indirectly_is_not_seen(found):
    instance_of(mesh().users_collection[0])
    bpy.context.view_layer.layer_collection.children["instances"].indirect_only = True
    assert len(found().subjects) == 1
    bpy.context.view_layer.layer_collection.children["Ann"].indirect_only = True
    assert found().subjects == ()
    bpy.context.view_layer.layer_collection.children["instances"].indirect_only = False
    assert len(found().subjects) == 1


def test_a_scene_whose_background_scene_has_the_avatar_is_empty_and_no_error(found):
    behind, bpy.context.window.scene = bpy.context.scene, bpy.data.scenes.new("front")
    bpy.context.scene.background_set = behind
    mesh().hide_render = mesh().hide_viewport = True
    assert found().subjects == ()
    bpy.context.scene.background_set = None
    with pytest.raises(Exception, match="There is no avatar to render in this scene"):
        found()


def test_a_path_on_an_object_that_is_no_rig_is_no_avatar(found):
    path = armature().effigy.avatar
    for obj in list(bpy.context.scene.objects):
        bpy.data.objects.remove(obj)
    empty = bpy.data.objects.new("empty", None)
    bpy.context.scene.collection.objects.link(empty)
    empty.effigy.avatar = path
    with pytest.raises(Exception, match="There is no avatar to render in this scene"):
        found()
