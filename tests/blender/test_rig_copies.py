"""Copies of a rig, whole and in part, and rigs from other files and scenes lie where Blender draws them."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from rig_digest import digest
from rig_place import armature, assert_where_drawn, drawn, mesh, of_avatar, rig, select, sentence, skull
from rig_scenes import read_pose, rigging

BESIDE = "was moved without its armature"


def duplicate(*objects, linked: bool = False) -> None:
    select(*objects)
    bpy.ops.object.duplicate(linked=linked)


@pytest.mark.parametrize("linked", [False, True])
def test_a_copy_of_both_parts_is_a_rig_of_its_own(scene, linked):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    duplicate(armature(), mesh(), linked=linked)
    copy = rig("Ann.001")
    assert copy.armature == bpy.data.objects["Ann rig.001"] and rig("Ann rig.001") == copy
    copy.armature.location.x += 1
    bpy.context.view_layer.update()
    for each in (rig(), copy):
        assert sentence(each) == ""
        assert_where_drawn(each)
    assert np.allclose(drawn(copy) - drawn(rig()), (1, 0, 0), atol=1e-5)
    bpy.ops.ed.undo_push(message="copied")
    bpy.ops.ed.undo()
    assert digest() == before


@pytest.mark.parametrize("linked", [False, True])
def test_a_copy_of_the_mesh_alone_lies_where_it_is_drawn_and_leaves_the_original(scene, linked):
    duplicate(mesh(), linked=linked)
    copied = bpy.data.objects["Ann.001"]
    copied.location.x += 0.4
    bpy.context.view_layer.update()
    copy = rig("Ann.001")
    assert [each.mesh for each in rigging().rig_properties.find_rigs(bpy.context.scene.objects)] == [mesh(), copied]
    assert rig("Ann rig").mesh == mesh() and copy.uid != rig().uid
    assert_where_drawn(rig())
    assert_where_drawn(copy, skull())
    assert np.abs(of_avatar(copy) - of_avatar(rig())).max() > 0.3
    assert sentence(rig()) == "" and BESIDE in sentence(copy)
    if not linked:
        copy.key_blocks["cheekPuff"].value = 0.9
        bpy.context.view_layer.update()
        assert_where_drawn(rig())


def test_a_copy_of_the_armature_alone_never_acts_on_the_original_and_can_be_made_whole(scene, module):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    duplicate(armature())
    copy = bpy.data.objects["Ann rig.001"]
    active = module("blender_addon.active")
    assert "without its mesh" in active.problem(bpy.context) and not active.has_rig(bpy.context)
    with pytest.raises(Exception, match="without its mesh"):
        active.need_rig(bpy.context)
    for refused in (bpy.ops.effigy.key_all, bpy.ops.effigy.reset_expression, bpy.ops.effigy.mirror_expression):
        with pytest.raises(RuntimeError, match="without its mesh"):
            refused()
    assert mesh().data.shape_keys.animation_data.action is None
    copy.location.x += 1
    bpy.context.view_layer.update()
    bpy.ops.ed.undo_push(message="copied")
    copied = digest()
    assert bpy.ops.effigy.mend_rig(True) == {"FINISHED"}
    made = rig("Ann rig.001")
    assert made.mesh != mesh() and made.mesh.data.shape_keys != mesh().data.shape_keys
    bpy.context.view_layer.update()
    for each in (rig(), made):
        assert_where_drawn(each)
    made.key_blocks["cheekPuff"].value = 0.9
    made.pose_bone("neck").rotation_quaternion = 1, 0, 0, 0
    bpy.context.view_layer.update()
    assert_where_drawn(rig())
    made.key_blocks["cheekPuff"].value = 0
    bpy.ops.ed.undo()
    assert digest() == copied
    bpy.ops.ed.undo()
    assert digest() == before


def test_a_mesh_and_an_armature_that_were_taken_apart_are_joined_again(scene, module):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    # Blender removes the modifier as well.
    select(mesh())
    bpy.ops.object.parent_clear(type="CLEAR")
    active = module("blender_addon.active")
    assert "without its armature" in active.problem(bpy.context)
    bpy.ops.ed.undo_push(message="apart")
    assert bpy.ops.effigy.mend_rig(True) == {"FINISHED"}
    bpy.context.view_layer.update()
    assert sentence(rig()) == ""
    assert_where_drawn(rig())
    bpy.ops.ed.undo()
    bpy.ops.ed.undo()
    assert digest() == before


def test_keys_of_a_completed_copy_are_its_own(scene):
    bpy.ops.effigy.key_all()
    duplicate(armature())
    assert bpy.ops.effigy.mend_rig() == {"FINISHED"}
    keys, copied = (rig(name).mesh.data.shape_keys.animation_data for name in ("Ann rig", "Ann rig.001"))
    assert copied.action is not None and copied.action != keys.action
    if hasattr(copied, "action_slot"):
        assert copied.action_slot is not None


def test_a_part_with_two_possible_partners_is_joined_with_neither(scene, module):
    duplicate(mesh())
    for each in (mesh(), bpy.data.objects["Ann.001"]):
        select(each)
        bpy.ops.object.parent_clear(type="CLEAR")
    select(armature())
    assert not module("blender_addon.active").can_complete(bpy.context)


def test_an_armature_whose_mesh_was_joined_to_another_object_is_named(scene, module):
    bpy.ops.mesh.primitive_cube_add()
    select(bpy.context.object, mesh())
    bpy.ops.object.join()
    with pytest.raises(
        Exception, match="“Ann rig” is the armature of a rig without its mesh. If the mesh was deleted or"
    ):
        module("blender_addon.active").need_rig(bpy.context)


def test_a_mesh_without_shape_keys_is_told(scene, module):
    select(mesh())
    bpy.ops.object.shape_key_remove(all=True)
    assert "lost its shape keys" in module("blender_addon.active").problem(bpy.context)


@pytest.mark.parametrize("how", ["link", "append", "override"])
def test_a_rig_from_another_file_lies_where_it_is_drawn(shot, how):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    with bpy.data.libraries.load(str(shot), link=how != "append") as (_, wanted):
        wanted.collections = ["Ann"]
    collection = wanted.collections[0]
    bpy.context.scene.collection.children.link(collection)
    if how == "override":
        collection = collection.override_hierarchy_create(bpy.context.scene, bpy.context.view_layer)
    made = rigging().rig_properties.find_rig(next(obj for obj in collection.objects if obj.type == "MESH"))
    bpy.context.view_layer.update()
    assert_where_drawn(made)
    if how != "link":
        made.armature.location.x += 1
        made.armature.scale *= 0.8
        bpy.context.view_layer.update()
        assert_where_drawn(made)
    bpy.ops.ed.undo_push(message=how)
    bpy.ops.ed.undo()
    assert digest() == before


@pytest.mark.parametrize("kind", ["LINK_COPY", "FULL_COPY"])
def test_a_copied_scene_shows_the_rig_where_it_is_drawn(scene, kind):
    bpy.ops.ed.undo_push(message="before")
    before = digest()
    first = bpy.context.scene
    bpy.ops.scene.new(type=kind)
    copied = next(each for each in bpy.data.scenes if each != first)
    made = next(rigging().rig_properties.find_rigs(copied.objects))
    assert (made.mesh == mesh()) == (kind == "LINK_COPY")
    depsgraph = copied.view_layers[0].depsgraph or bpy.context.evaluated_depsgraph_get()
    depsgraph.update()
    root = rigging().pose.read_pose(made, depsgraph).root
    assert np.allclose(root, read_pose(rig())["root"], atol=1e-6)
    bpy.ops.ed.undo_push(message=kind)
    bpy.ops.ed.undo()
    assert digest() == before


def test_an_instance_of_the_collection_lies_where_it_is_drawn(scene, module, engine_avatars):
    """Also where the mesh of the rig itself was moved by itself."""
    mesh().location.x += 0.4
    armature().effigy.avatar = str(engine_avatars / "ann.effigy")
    empty = bpy.data.objects.new("instance", None)
    bpy.context.scene.collection.objects.link(empty)
    empty.instance_type, empty.instance_collection = "COLLECTION", bpy.data.collections["Ann"]
    empty.location, empty.scale = (1, 2, 3), [0.5] * 3
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    found = module("blender_addon.engine.subjects").collect_subjects(depsgraph)
    own, instance = (each.pose.root for each in found.subjects)
    moved = rigging().conventions.transform_to_head(np.array(empty.matrix_world))
    assert np.allclose(own, read_pose(rig())["root"], atol=1e-6) and np.allclose(instance, moved @ own, atol=1e-5)
    assert any(BESIDE in warning for warning in found.warnings)


@pytest.mark.parametrize("linked", [False, True])
def test_a_copy_of_the_mesh_alone_is_an_avatar_of_its_own_in_renders(scene, module, engine_avatars, linked):
    armature().effigy.avatar = str(engine_avatars / "ann.effigy")
    duplicate(mesh(), linked=linked)
    bpy.data.objects["Ann.001"].location.x += 0.4
    bpy.context.view_layer.update()
    found = module("blender_addon.engine.subjects").collect_subjects(bpy.context.evaluated_depsgraph_get())
    assert len(found.subjects) == 2
    apart = found.subjects[1].pose.root[:3, 3] - found.subjects[0].pose.root[:3, 3]
    assert np.linalg.norm(apart) == pytest.approx(0.4 * 1.3, abs=1e-5)
