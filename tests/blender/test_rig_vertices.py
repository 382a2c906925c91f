"""Blender evaluates the same vertices as the backend, for any pose, expression and identity."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from rig_scenes import answer, evaluated_vertices, make_rig, rigging, set_pose

TOLERANCE = 1e-4
"""Metres: a tenth of a millimetre."""


@pytest.mark.parametrize("head", ["open", "flame"])
def test_evaluated_vertices_are_the_backends_for_random_poses_and_expressions(head):
    truth, made = answer(head), make_rig(head)
    for expression, rotations, posed in zip(truth["pose_expression"], truth["pose_rotations"], truth["posed"]):
        set_pose(made, expression, rotations)
        difference = np.abs(evaluated_vertices(made) - posed).max()
        assert difference < TOLERANCE, f"{1000 * difference:.4f} mm"
        # Single precision leaves a hundredth of the tolerance; a larger difference would hide a wrong corrective.
        assert difference < 1e-6


@pytest.mark.parametrize("head", ["open", "flame"])
def test_unmuted_identity_keys_and_refreshed_joints_give_the_other_persons_posed_head(head):
    truth, made = answer(head), make_rig(head)
    change = truth["other_identity"] - truth["identity"]
    for name, value in zip(made.identity_names, change.tolist()):
        if value:
            made.key_blocks[name].mute, made.key_blocks[name].value = False, value
    rigging().armature.refresh_joints(made)
    assert np.allclose(rigging().armature.identity_of(made), truth["other_identity"], atol=1e-6)
    for expression, rotations, posed in zip(truth["pose_expression"], truth["pose_rotations"], truth["posed_other"]):
        set_pose(made, expression, rotations)
        assert np.abs(evaluated_vertices(made) - posed).max() < 1e-6


def test_identity_keys_are_muted_at_zero_and_behind_all_others():
    made = make_rig()
    names = made.key_blocks.keys()
    identity = names.index(made.identity_names[0])
    assert names[0] == "Basis" and names[1 : 1 + len(made.expression_names)] == list(made.expression_names)
    assert names[identity:] == list(made.identity_names)
    assert all(block.mute and block.value == 0 for block in made.key_blocks[identity:])


def test_sliders_offer_the_range_of_their_head_model():
    arkit, flame = make_rig("open").key_blocks["mouthSmileLeft"], make_rig("flame").key_blocks["expression_003"]
    assert (arkit.slider_min, arkit.slider_max) == (0, 1)
    assert (flame.slider_min, flame.slider_max) == (-10, 10)


def test_correctives_work_without_permission_to_run_python():
    made = make_rig("flame")
    drivers = made.mesh.data.shape_keys.animation_data.drivers
    assert len(drivers) == 36
    assert all(curve.driver.is_simple_expression and curve.driver.is_valid for curve in drivers)


def test_the_mesh_is_unwrapped_smooth_and_skinned_to_named_bones():
    truth, made = answer("open"), make_rig()
    mesh = made.mesh.data
    assert {bone.name: bone.parent and bone.parent.name for bone in made.armature.data.bones} == {
        "root": None,
        "neck": "root",
        "jaw": "neck",
        "eye.L": "neck",
        "eye.R": "neck",
    }
    assert [group.name for group in made.mesh.vertex_groups] == ["root", "neck", "jaw", "eye.L", "eye.R"]
    uv = np.empty(2 * len(mesh.loops), np.float32)
    mesh.uv_layers.active.uv.foreach_get("vector", uv)
    assert np.array_equal(uv.reshape(-1, 2), truth["uv"][truth["uv_faces"].ravel()])
    assert all(polygon.use_smooth for polygon in mesh.polygons)
    normal = np.array(mesh.polygons[0].normal)
    a, b, c = truth["vertices"][truth["faces"][0]]
    assert normal @ rigging().conventions.points_to_blender(np.cross(b - a, c - a)) > 0


def test_joints_follow_the_identity_and_refreshing_them_changes_nothing_else():
    truth, made = answer("open"), make_rig()
    rig = rigging()
    bpy.context.view_layer.objects.active = made.mesh
    made.mesh.select_set(True)
    rig.armature.refresh_joints(made)
    heads = np.array([made.armature.data.bones[made.bone_name(joint)].head_local for joint in rig.data.JOINT_NAMES])
    assert np.allclose(rig.conventions.points_to_head(heads), truth["joints"], atol=1e-6)
    assert bpy.context.view_layer.objects.active == made.mesh and bpy.context.selected_objects == [made.mesh]


@pytest.mark.parametrize("how", ["hide_viewport", "hide_set", "collection left out", "another scene"])
def test_joints_can_be_refreshed_and_rigs_built_where_the_artist_does_not_see_them(how):
    truth, made, rig = answer("open"), make_rig(), rigging()
    layer = bpy.context.view_layer
    if how == "hide_viewport":
        made.armature.hide_viewport = True
    elif how == "hide_set":
        made.armature.hide_set(True)
    elif how == "collection left out":
        layer.layer_collection.children["Ann"].exclude = True
    else:
        bpy.context.window.scene = bpy.data.scenes.new("another")
        layer = bpy.context.view_layer
    change = truth["other_identity"] - truth["identity"]
    for name, value in zip(made.identity_names, change.tolist()):
        made.key_blocks[name].mute, made.key_blocks[name].value = value == 0, value
    rig.armature.refresh_joints(made)
    expected = truth["joints"] + np.einsum("s,sjc->jc", change, truth["joint_identity"])
    heads = np.array([made.armature.data.bones[made.bone_name(joint)].head_local for joint in rig.data.JOINT_NAMES])
    assert np.allclose(rig.conventions.points_to_head(heads), expected, atol=1e-6)
    assert not made.armature.visible_get(view_layer=layer) and len(made.armature.users_collection) == 1
    if how == "another scene":
        rig.build.build_rig(rig.data.RigData.from_answer(truth), "Bob", bpy.data.scenes[0].collection)
        bob = bpy.data.objects["Bob rig"]
        assert len(bob.data.bones) == 5 and bob.users_scene == (bpy.data.scenes[0],)


def test_building_yields_often_and_leaves_nothing_when_it_is_cancelled():
    rig = rigging()
    data = rig.data.RigData.from_answer(answer("open"))
    kinds = bpy.data.objects, bpy.data.meshes, bpy.data.armatures, bpy.data.collections
    before = [len(kind) for kind in kinds]
    steps = rig.build.build_rig_steps(data, "Ann", bpy.context.scene.collection)
    for _ in range(10):
        assert 0 <= next(steps) < 1
    steps.close()
    assert [len(kind) for kind in kinds] == before
    progress, steps = [], rig.build.build_rig_steps(data, "Ann", bpy.context.scene.collection)
    try:
        while True:
            progress.append(next(steps))
    except StopIteration as end:
        assert end.value.mesh.name == "Ann"
    assert len(progress) > 20 and progress == sorted(progress) and progress[-1] <= 1


def test_arrays_that_do_not_fit_together_are_refused_with_a_sentence():
    rig = rigging()
    broken = answer("open") | {"joints": np.zeros((4, 3))}
    with pytest.raises(Exception, match=r"head model does not fit together: joints is \(4, 3\)"):
        rig.data.RigData.from_answer(broken)
    lacking = {name: value for name, value in answer("open").items() if name != "skinning"}
    with pytest.raises(Exception, match="install the backend again"):
        rig.data.RigData.from_answer(lacking)


def test_irises_lips_and_mouth_have_their_own_materials_which_rigs_share():
    truth, made = answer("open"), make_rig()
    mesh = made.mesh.data
    names = [material["effigy_paint"] for material in mesh.materials]
    painted = np.array([names[polygon.material_index] for polygon in mesh.polygons])
    assert set(painted) == set(names)
    iris = np.unique(truth["faces"][painted == "iris"])
    assert set(iris) <= set(truth["regions"]["eyes"]) and truth["vertices"][iris, 2].min() > truth["joints"][3, 2]
    left, right = (truth["vertices"][iris, 0] > 0).sum(), (truth["vertices"][iris, 0] < 0).sum()
    assert left == right > 0
    again = make_rig(called="Bob")
    assert again.mesh.data.materials[:] == mesh.materials[:]
