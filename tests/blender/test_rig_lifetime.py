"""A rig is recognised and works after undo, copying, renaming, saving, appending and linking."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from rig_scenes import answer, evaluated_vertices, make_track, read_pose, rigging, set_pose, tracked_rig, value_of


def the_rig():
    found = list(rigging().rig_properties.find_rigs(bpy.context.scene.objects))
    assert len(found) == 1
    return found[0]


def assert_works(made, frame=5):
    """The performance plays, and correctives follow this rig's own bones."""
    track = make_track()
    bpy.context.scene.frame_set(1 + frame)
    assert np.allclose(read_pose(made)["expression"], track.expression[frame], atol=1e-6)
    assert np.allclose(read_pose(made)["jaw"], track.rotations[frame, 2], atol=1e-6)
    drivers = made.mesh.data.shape_keys.animation_data.drivers
    assert {curve.driver.variables[0].targets[0].id for curve in drivers} == {made.armature}


def test_a_rig_is_found_from_its_armature_or_its_mesh_and_from_nothing_else():
    made, properties = tracked_rig(), rigging().rig_properties
    assert properties.find_rig(made.mesh) == made and properties.find_rig(made.armature) == made
    depsgraph = bpy.context.evaluated_depsgraph_get()
    assert all(properties.find_rig(part.evaluated_get(depsgraph)) == made for part in (made.mesh, made.armature))
    other = bpy.data.objects.new("Ann rig", None)
    assert properties.find_rig(other) is None and properties.find_rig(None) is None
    other["effigy_rig"] = "an artist's own note"
    assert properties.find_rig(other) is None


def test_renaming_objects_data_and_bones_changes_nothing():
    made = tracked_rig()
    made.armature.name, made.mesh.name = "x", "y"
    made.armature.data.name, made.mesh.data.name = "z", "w"
    for bone in made.armature.data.bones:
        bone.name = f"DEF-{bone.name}"
    made = the_rig()
    assert made.bone_name("jaw") == "DEF-jaw"
    assert_works(made)
    truth = answer("open")
    for data in (made.armature.animation_data, made.mesh.data.shape_keys.animation_data):
        for track in data.nla_tracks:
            track.mute = True
    made.pose_bone("root").location = (0, 0, 0)
    set_pose(made, truth["pose_expression"][0], truth["pose_rotations"][0])
    assert np.abs(evaluated_vertices(made) - truth["posed"][0]).max() < 1e-6


def test_a_copy_is_an_independent_rig():
    made = tracked_rig()
    bpy.ops.object.select_all(action="DESELECT")
    for obj in (made.armature, made.mesh):
        obj.select_set(True)
    bpy.ops.object.duplicate()
    copy = next(rig for rig in rigging().rig_properties.find_rigs(bpy.context.scene.objects) if rig != made)
    assert_works(made)
    assert_works(copy)
    bpy.context.scene.frame_set(3)
    before = value_of(made, "cheekPuff")
    block = copy.key_blocks["cheekPuff"]
    block.value += 0.2
    block.keyframe_insert("value", frame=3)
    bpy.context.scene.frame_set(3)
    assert value_of(made, "cheekPuff") == pytest.approx(before, abs=1e-6)
    assert value_of(copy, "cheekPuff") == pytest.approx(before + 0.2, abs=1e-5)


def test_undo_and_redo_keep_it():
    tracked_rig()
    bpy.ops.ed.undo_push(message="imported")
    made = the_rig()
    made.armature.name = "renamed"
    made.pose_bone("neck").rotation_quaternion = (0, 1, 0, 0)
    bpy.ops.ed.undo_push(message="renamed")
    bpy.ops.ed.undo()
    assert the_rig().armature.name == "Ann rig"
    assert_works(the_rig())
    bpy.ops.ed.redo()
    assert the_rig().armature.name == "renamed"
    assert_works(the_rig())


def test_deleting_and_undoing_brings_it_back():
    made = tracked_rig()
    bpy.ops.ed.undo_push(message="imported")
    bpy.data.objects.remove(made.mesh)
    bpy.ops.ed.undo_push(message="deleted")
    assert list(rigging().rig_properties.find_rigs(bpy.context.scene.objects)) == []
    bpy.ops.ed.undo()
    assert_works(the_rig())


def test_saving_and_loading_keep_it(tmp_path):
    tracked_rig()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"), use_scripts=False)
    made = the_rig()
    truth = answer("open")
    assert made.expression_names == tuple(truth["expression_names"])
    assert made.head_fingerprint == str(truth["head"]["fingerprint"])
    assert np.allclose(made.base_identity, truth["identity"])
    assert_works(made)


@pytest.mark.parametrize("link", [False, True])
def test_an_appended_or_linked_collection_works_beside_one_of_the_same_name(tmp_path, link):
    tracked_rig()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=False)
    own = tracked_rig()
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=link) as (_, wanted):
        wanted.collections = ["Ann"]
    bpy.context.scene.collection.children.link(wanted.collections[0])
    brought = next(rig for rig in rigging().rig_properties.find_rigs(bpy.context.scene.objects) if rig != own)
    assert_works(own)
    assert_works(brought)
    assert brought.is_editable != link
    if link:
        with pytest.raises(Exception, match="library override"):
            rigging().sliders.reset(brought)


def test_a_rig_of_a_newer_effigy_is_refused_with_a_sentence():
    made = tracked_rig()
    made.armature["effigy_rig"]["schema"] = 99
    with pytest.raises(Exception, match="newer Effigy"):
        rigging().rig_properties.find_rig(made.mesh)
