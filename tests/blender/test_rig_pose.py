"""The pose that the worker gets is the one that Blender shows, with keys, parents, constraints and hidden meshes."""

from __future__ import annotations

from cProfile import Profile

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix, Vector
from rig_scenes import (
    answer,
    evaluated_vertices,
    make_rig,
    make_track,
    read_pose,
    rigging,
    set_pose,
    tracked_rig,
    value_of,
)

JOINTS = ("neck", "jaw", "eye_L", "eye_R")


@pytest.mark.parametrize("head", ["open", "flame"])
def test_a_set_pose_reads_back(head):
    truth, made = answer(head), make_rig(head)
    for expression, rotations in zip(truth["pose_expression"], truth["pose_rotations"]):
        set_pose(made, expression, rotations)
        pose = read_pose(made)
        assert np.allclose(pose["expression"], expression, atol=1e-6)
        for joint, rotation in zip(JOINTS, rotations[1:]):
            assert np.allclose(pose[joint], rotation, atol=1e-6), joint


def test_the_root_transform_moves_the_head_to_where_blender_shows_it():
    truth, made = answer("open"), make_rig()
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    parent.matrix_world = Matrix.LocRotScale(Vector((3, -2, 1)), Euler((0.3, 0.5, -1.2)), Vector((1.7, 1.7, 1.7)))
    made.armature.parent = parent
    made.armature.matrix_basis = Matrix.LocRotScale(Vector((0.2, 0.1, 0)), Euler((0, 0.2, 0)), Vector((0.5, 0.5, 0.5)))
    made.pose_bone("root").location = (0.01, 0.02, 0.03)
    set_pose(made, truth["pose_expression"][0], truth["pose_rotations"][0])
    root = read_pose(made)["root"]
    scale = np.cbrt(np.linalg.det(root[:3, :3]))
    assert scale == pytest.approx(0.85, abs=1e-5)
    # The vertices in the world, which the root transform must reproduce from the vertices without a root.
    shown = evaluated_vertices(made)
    world = np.array(made.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world)
    world = rigging().conventions.transform_to_head(world)
    shown = shown @ world[:3, :3].T + world[:3, 3]
    unrooted = truth["pose_rotations"][0].copy()
    unrooted[0] = 0
    parentless = make_rig(called="Bob")
    set_pose(parentless, truth["pose_expression"][0], unrooted)
    expected = evaluated_vertices(parentless) @ root[:3, :3].T + root[:3, 3]
    assert np.abs(shown - expected).max() < 1e-5


def test_rotations_near_and_beyond_180_degrees_are_read_as_the_shorter_rotation():
    made = make_rig()
    bone = made.pose_bone("neck")
    for angle, expected in ((3.0, 3.0), (3.5, 3.5 - 2 * np.pi), (-3.0, -3.0), (1e-5, 1e-5)):
        bone.rotation_quaternion = (np.cos(angle / 2), 0, np.sin(angle / 2), 0)
        bpy.context.view_layer.update()
        assert np.allclose(read_pose(made)["neck"], (0, expected, 0), atol=2e-6)
        bone.rotation_quaternion = (-np.cos(angle / 2), 0, -np.sin(angle / 2), 0)
        bpy.context.view_layer.update()
        assert np.allclose(read_pose(made)["neck"], (0, expected, 0), atol=2e-6)


def test_a_constraint_on_an_eye_is_read_and_drives_its_correctives():
    made = make_rig("flame")
    target = bpy.data.objects.new("target", None)
    bpy.context.scene.collection.objects.link(target)
    eye = made.armature.data.bones["eye.L"].head_local
    target.location = eye + Vector((0, -1, 0.5))
    constraint = made.pose_bone("eye_L").constraints.new("DAMPED_TRACK")
    constraint.target, constraint.track_axis = target, "TRACK_Y"
    bpy.context.view_layer.update()
    # Looking up is a negative rotation about head space's x axis.
    assert np.allclose(read_pose(made)["eye_L"], (-np.arctan(0.5), 0, 0), atol=1e-5)
    key = made.mesh.data.shape_keys.evaluated_get(bpy.context.evaluated_depsgraph_get())
    assert key.key_blocks["corrective_eye_L_7"].value == pytest.approx(-np.sin(np.arctan(0.5)), abs=1e-5)


@pytest.mark.parametrize("how", ["hide_viewport", "hide_set"])
def test_expressions_are_evaluated_while_the_mesh_is_hidden(how):
    made, track = tracked_rig(), make_track()
    if how == "hide_set":
        made.mesh.hide_set(True)
    else:
        made.mesh.hide_viewport = True
    for frame in (2, 5):
        bpy.context.scene.frame_set(1 + frame)
        assert np.allclose(read_pose(made)["expression"], track.expression[frame], atol=1e-6)


def test_a_render_reads_the_pose_of_its_frame_although_the_mesh_is_not_rendered():
    made, track, scene, rig = tracked_rig(), make_track(), bpy.context.scene, rigging()
    poses = []

    class Listener(bpy.types.RenderEngine):
        bl_idname, bl_label = "EFFIGY_TEST_LISTENER", "Listener"

        def render(self, depsgraph):
            found = next(rig.rig_properties.find_rigs(depsgraph.scene.objects))
            poses.append((depsgraph.scene.frame_current, rig.pose.read_pose(found, depsgraph).message()))

    bpy.utils.register_class(Listener)
    try:
        made.mesh.hide_render = made.mesh.hide_viewport = True
        scene.render.engine = Listener.bl_idname
        scene.camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
        scene.collection.objects.link(scene.camera)
        for frame in (3, 8):
            scene.frame_set(frame)
            bpy.ops.render.render()
    finally:
        scene.render.engine = "BLENDER_WORKBENCH"
        bpy.utils.unregister_class(Listener)
    assert [frame for frame, _ in poses] == [3, 8]
    for frame, pose in poses:
        assert np.allclose(pose["expression"], track.expression[frame - 1], atol=1e-6)
        assert np.allclose(pose["neck"], track.rotations[frame - 1, 1], atol=1e-6)


def test_a_muted_expression_is_read_as_zero():
    made = make_rig()
    made.key_blocks["cheekPuff"].value, made.key_blocks["cheekPuff"].mute = 0.5, True
    bpy.context.view_layer.update()
    assert value_of(made, "cheekPuff") == 0


def test_uneven_and_mirrored_scales_give_a_warning_and_are_read_as_their_mean():
    made, rig = make_rig(), rigging()
    depsgraph = bpy.context.evaluated_depsgraph_get
    assert rig.troubles.sentence_of(made, depsgraph()) is None
    made.armature.scale = (1, 2, 3)
    bpy.context.view_layer.update()
    assert "different amounts" in rig.troubles.sentence_of(made, depsgraph())
    assert np.allclose(read_pose(made)["root"][:3, :3], 2 * np.eye(3), atol=1e-6)
    made.armature.scale = (-1, 1, 1)
    bpy.context.view_layer.update()
    assert "mirrored" in rig.troubles.sentence_of(made, depsgraph())
    assert np.linalg.det(read_pose(made)["root"][:3, :3]) == pytest.approx(1, abs=1e-5)


def test_reading_a_pose_takes_as_many_calls_whatever_the_number_of_shape_keys():
    """It runs at every redraw. What it takes is measured in `bench.player --window`."""
    made = tracked_rig()

    def calls() -> int:
        bpy.context.view_layer.update()
        depsgraph, profile = bpy.context.evaluated_depsgraph_get(), Profile()
        profile.runcall(rigging().pose.read_pose, made, depsgraph)
        return sum(entry.callcount for entry in profile.getstats())

    calls()
    before = calls()
    for number in range(100):
        made.mesh.shape_key_add(name=f"Sculpted {number}")
    assert calls() == before


@pytest.mark.parametrize("head", ["open", "flame"])
def test_lips_close_as_far_as_the_jaw_is_open(head):
    """ARKit's mouthClose; over a shut jaw it would turn the mouth inside out."""
    made = make_rig(head)
    keys = dict(zip(made.slider_names, made.slider_keys()))
    rest = read_pose(made)["expression"]

    def effect(close: float, jaw: float, bone: float = 0.0) -> float:
        keys["mouthClose"].value, keys["jawOpen"].value = close, jaw
        rotations = np.zeros((5, 3))
        rotations[2, 0] = np.radians(bone)
        set_pose(made, np.array([block.value for block in made.expression_keys()]), rotations)
        return float(np.abs(read_pose(made)["expression"] - rest)[closes].max())

    closes = slice(None)
    if head == "open":
        closes = [made.expression_names.index("mouthClose")]
    unit = effect(1, 1)
    assert unit > 0.1 and max(effect(1, 0), effect(1, 0, -3)) < 1e-9
    assert effect(0.4, 1) == pytest.approx(0.4 * unit, rel=1e-4)
    assert effect(1, 0.25) == pytest.approx(0.25 * unit, rel=1e-4)
    assert 0.3 * unit < effect(1, 0, 9.6) < 0.6 * unit


def test_a_lost_slider_is_named():
    made = make_rig()
    made.key_blocks["jawOpen"].name = "mine"
    bpy.context.view_layer.update()
    with pytest.raises(Exception, match='no shape key "jawOpen" any more'):
        read_pose(made)
