"""Regions, mirroring, keying, resetting and the starter expressions."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from rig_scenes import answer, evaluated_vertices, make_rig, make_track, read_pose, rigging, tracked_rig, value_of


def test_every_arkit_shape_has_a_region_of_the_face():
    grouped = rigging().sliders.by_region(make_rig().expression_names)
    assert list(grouped) == ["brows", "eyes", "lids", "cheeks", "mouth", "jaw"]
    assert sum(map(len, grouped.values())) == 52
    assert "eyeBlinkLeft" in grouped["lids"] and "eyeLookUpLeft" in grouped["eyes"] and "jawOpen" in grouped["jaw"]
    assert list(rigging().sliders.by_region(make_rig("flame").expression_names)) == ["other"]


def test_mirror_names_are_partners():
    mirror, names = rigging().sliders.mirror_name, make_rig().expression_names
    assert (mirror("mouthSmileLeft"), mirror("jawRight"), mirror("jawOpen")) == ("mouthSmileRight", "jawLeft", None)
    for name in names:
        if mirror(name):
            assert mirror(name) in names and mirror(mirror(name)) == name


def test_a_mirrored_face_is_the_reflection_of_the_mesh():
    made, rig = make_rig(), rigging()
    names = made.expression_names
    for name, value in {"mouthSmileLeft": 0.8, "eyeLookInLeft": 0.6, "browOuterUpRight": 0.7, "jawLeft": 0.5}.items():
        made.key_blocks[name].value = value
    rotations = {"neck": (0.1, 0.3, 0.05), "jaw": (0.2, 0.1, 0), "eye_L": (0.1, 0.4, 0), "eye_R": (0, -0.1, 0)}
    for joint, rotation in rotations.items():
        axes = rig.conventions.BONE_AXES[joint]
        made.pose_bone(joint).rotation_quaternion = rig.rotations.axis_angle_to_quaternion(np.array(rotation) @ axes)
    bpy.context.view_layer.update()
    before = read_pose(made)
    rig.sliders.mirror(made)
    bpy.context.view_layer.update()
    after = read_pose(made)
    for index, name in enumerate(names):
        partner = rig.sliders.mirror_name(name)
        assert after["expression"][index] == before["expression"][names.index(partner) if partner else index]
    for joint, other in {"neck": "neck", "jaw": "jaw", "eye_L": "eye_R", "eye_R": "eye_L"}.items():
        assert np.allclose(after[joint], before[other] * (1, -1, -1), atol=1e-6)
    rig.sliders.mirror(made)
    bpy.context.view_layer.update()
    assert np.allclose(read_pose(made)["expression"], before["expression"])


def test_reset_gives_the_neutral_face_and_keeps_the_heads_position():
    made, rig = make_rig(), rigging()
    rig.presets.apply_preset(made, "Laugh")
    made.pose_bone("neck").rotation_quaternion = (0.9, 0.1, 0.2, 0)
    made.pose_bone("root").location = (0, 0.1, 0)
    rig.sliders.reset(made)
    bpy.context.view_layer.update()
    pose = read_pose(made)
    assert not pose["expression"].any()
    assert all(np.abs(pose[joint]).max() < 1e-6 for joint in ("neck", "jaw", "eye_L", "eye_R"))
    assert np.abs(pose["root"][:3, 3]).max() > 0.05


def test_key_all_sets_the_whole_face_over_the_performance():
    made, rig, scene = tracked_rig(), rigging(), bpy.context.scene
    scene.frame_set(6)
    rig.presets.apply_preset(made, "Smile")
    rig.sliders.key_all(made, 6)
    scene.frame_set(1)
    scene.frame_set(6)
    shown = read_pose(made)["expression"]
    for index, (name, value) in enumerate(zip(made.expression_names, shown)):
        # The lids go on following the gaze, which stays the performer's.
        tracked = make_track().expression[5, index] if name.startswith("eyeLook") else 0
        assert value == pytest.approx(rig.presets.PRESETS["Smile"].get(name, tracked), abs=1e-5), name
    pose, tracked = read_pose(made), make_track().rotations[5]
    # The preset closes the performer's open jaw; neck and gaze stay the performer's.
    assert np.abs(tracked[2]).max() > 0.05 and np.abs(pose["jaw"]).max() < 1e-5
    assert np.allclose(pose["neck"], tracked[1], atol=1e-5) and np.allclose(pose["eye_L"], tracked[3], atol=1e-5)


def test_there_are_twelve_presets_of_known_shapes_that_move_the_face():
    made, rig = make_rig(), rigging()
    assert len(rig.presets.PRESETS) == 12
    neutral, shapes = evaluated_vertices(made), []
    for name, values in rig.presets.PRESETS.items():
        assert set(values) <= set(made.expression_names)
        assert all(0 < value <= 1 for value in values.values() if value), name
        rig.presets.apply_preset(made, name)
        bpy.context.view_layer.update()
        shapes.append(evaluated_vertices(made))
        assert np.abs(shapes[-1] - neutral).max() > 0.002, name
    for first in range(12):
        for second in range(first):
            assert np.abs(shapes[first] - shapes[second]).max() > 0.002
    rig.presets.apply_preset(made, "Smile", strength=0.5)
    bpy.context.view_layer.update()
    assert value_of(made, "mouthSmileLeft") == pytest.approx(rig.presets.PRESETS["Smile"]["mouthSmileLeft"] / 2)


def nameless_rig():
    """A rig of a head model to which ARKit's channels could not be transferred."""
    rig, data = rigging(), answer("flame")
    data |= {"arkit_names": (), **{name: data[name][:0] for name in ("arkit_deltas", "arkit_expression", "arkit_jaw")}}
    return rig.build.build_rig(rig.data.RigData.from_answer(data), "nameless", bpy.context.scene.collection)


def test_heads_without_names_say_why_presets_and_mirroring_do_not_work():
    made, rig = nameless_rig(), rigging()
    with pytest.raises(Exception, match="ARKit"):
        rig.presets.apply_preset(made, "Smile")
    with pytest.raises(Exception, match="no left and right"):
        rig.sliders.mirror(made)
    with pytest.raises(Exception, match="choose one of Smile"):
        rig.presets.apply_preset(made, "Smirk")


def test_a_flame_head_has_arkits_sliders_and_starter_expressions_beside_its_own():
    made, rig = make_rig("flame"), rigging()
    assert list(rig.sliders.by_region(made.slider_names)) == [*rig.sliders.by_region(made.arkit_names), "other"]
    assert len(made.arkit_names) == 52 and not set(made.arkit_names) & set(made.expression_names)
    rest = evaluated_vertices(made)
    rig.presets.apply_preset(made, "Smile")
    bpy.context.view_layer.update()
    smiling, pose = evaluated_vertices(made), read_pose(made)
    assert np.abs(smiling - rest).max() > 0.004
    # The worker gets the head's own expressions, which alone give the same vertices.
    rig.sliders.reset(made)
    for block, value in zip(made.expression_keys(), pose["expression"].tolist()):
        block.value = value
    rig.sliders.refresh(made)
    bpy.context.view_layer.update()
    assert np.abs(evaluated_vertices(made) - smiling).max() < 1e-4
    assert np.allclose(read_pose(made)["expression"], pose["expression"], atol=1e-5)


def test_a_flame_heads_jaw_slider_rotates_the_jaw_like_the_bone():
    made, rig = make_rig("flame"), rigging()
    rig.sliders.set_expressions(made, {"jawOpen": 1.0})
    bpy.context.view_layer.update()
    rotation = made.arkit_jaw[made.arkit_names.index("jawOpen")]
    pose = read_pose(made)
    assert (
        np.linalg.norm(rotation) > 0.2
        and np.allclose(pose["jaw"], rotation, atol=1e-5)
        and not pose["expression"].any()
    )
    rig.sliders.mirror(made)
    rig.sliders.key_all(made, 3)
    assert made.mesh.data.shape_keys.animation_data.action is not None


def angles(made):
    """The rig's angles in degrees, by name."""
    face = made.armature.effigy_face
    return {name: np.degrees(getattr(face, name)) for name in type(face).__annotations__}


def test_one_gaze_turns_both_eyes_and_moves_the_lids():
    made = tracked_rig()
    bpy.context.scene.frame_set(6)
    face, before = made.armature.effigy_face, angles(made)
    apart = before["left_eye_sideways"] - before["right_eye_sideways"]
    face.gaze_up, face.gaze_sideways = np.radians(9.5), np.radians(-12.5)
    bpy.context.view_layer.update()
    after = angles(made)
    assert (after["gaze_up"], after["gaze_sideways"]) == (pytest.approx(9.5, abs=1e-3), pytest.approx(-12.5, abs=1e-3))
    # What the eyes differ by stays.
    assert after["left_eye_sideways"] - after["right_eye_sideways"] == pytest.approx(apart, abs=1e-3)
    for side, direction in (("Left", "In"), ("Right", "Out")):
        own = after[f"{side.lower()}_eye_sideways"], after[f"{side.lower()}_eye_up"]
        assert value_of(made, f"eyeLook{direction}{side}") == pytest.approx(-own[0] / 25, abs=1e-3)
        assert value_of(made, f"eyeLookUp{side}") == pytest.approx(own[1] / 19, abs=1e-3)
        assert value_of(made, f"eyeLookDown{side}") == 0
    # Up is a negative rotation about the head's x axis, to the person's right a negative one about its y axis.
    pose = read_pose(made)
    for joint in ("eye_L", "eye_R"):
        turned = rigging().rotations.quaternion_to_matrix(
            rigging().rotations.axis_angle_to_quaternion(pose[joint].astype(float))[None]
        )[0] @ (0, 0, 1)
        assert turned[0] < -0.15 and turned[1] > 0.1
    face.gaze_up = np.radians(90)
    assert angles(made)["gaze_up"] <= rigging().joint_limits.GAZE_UP + 0.5


def test_jaw_and_neck_are_set_in_degrees_within_the_heads_limits():
    made, rig = make_rig(), rigging()
    face, limits = made.armature.effigy_face, rig.joint_limits
    face.jaw_open, face.jaw_sideways, face.neck_turn, face.neck_nod = np.radians((20, 5, 30, -10))
    bpy.context.view_layer.update()
    shown = angles(made)
    for name, value in {"jaw_open": 20, "jaw_sideways": 5, "neck_turn": 30, "neck_nod": -10, "neck_tilt": 0}.items():
        assert shown[name] == pytest.approx(value, abs=1e-3), name
    face.jaw_sideways = face.neck_nod = 0
    bpy.context.view_layer.update()
    pose = read_pose(made)
    assert pose["jaw"] == pytest.approx(np.radians((20, 0, 0)), abs=1e-5)
    assert pose["neck"] == pytest.approx(np.radians((0, 30, 0)), abs=1e-5)
    face.jaw_open = 3.0
    assert angles(made)["jaw_open"] == pytest.approx(limits.JAW_OPEN[1], abs=1e-3)
    # The rotation mode of a bone is the artist's.
    for mode in ("XYZ", "AXIS_ANGLE", "QUATERNION"):
        made.pose_bone("jaw").rotation_mode = mode
        face.jaw_open = np.radians(12)
        bpy.context.view_layer.update()
        assert read_pose(made)["jaw"] == pytest.approx(np.radians((12, 0, 0)), abs=1e-5), mode
        rig.sliders.reset(made)
        bpy.context.view_layer.update()
        assert np.abs(read_pose(made)["jaw"]).max() < 1e-5, mode


def test_a_part_of_the_face_is_keyed_alone_and_by_auto_keying():
    made, scene = tracked_rig(), bpy.context.scene
    face, tools = made.armature.effigy_face, scene.tool_settings
    scene.frame_set(3)
    face.gaze_up = np.radians(10)
    bpy.context.view_layer.objects.active = made.armature
    assert bpy.ops.effigy.key_part(part="gaze") == {"FINISHED"}
    scene.frame_set(7)
    tools.use_keyframe_insert_auto = True
    try:
        face.gaze_up = np.radians(-10)
        face.jaw_open = np.radians(15)
    finally:
        tools.use_keyframe_insert_auto = False
    seen = {}
    for frame in (3, 7):
        scene.frame_set(frame)
        seen[frame] = angles(made)
    assert seen[3]["gaze_up"] == pytest.approx(10, abs=0.05) and seen[7]["gaze_up"] == pytest.approx(-10, abs=0.05)
    assert seen[7]["jaw_open"] == pytest.approx(15, abs=0.05)
    assert value_of(made, "eyeLookDownLeft") > 0.3


def test_a_starter_expression_keeps_the_gaze_and_its_lids_unless_it_looks_down():
    made, rig = make_rig(), rigging()
    face = made.armature.effigy_face
    face.gaze_up, face.gaze_sideways = np.radians((8, 10))
    lids = {block.name: block.value for block in rig.face_angles.look_keys(made)}
    assert len(lids) == 8 and max(lids.values()) > 0.3
    rig.presets.apply_preset(made, "Smile")
    assert angles(made)["gaze_up"] == pytest.approx(8, abs=1e-3)
    assert {block.name: block.value for block in rig.face_angles.look_keys(made)} == lids
    rig.presets.apply_preset(made, "Sleepy")
    assert angles(made)["gaze_up"] == pytest.approx(-7, abs=1e-3)
    assert angles(made)["gaze_sideways"] == pytest.approx(10, abs=1e-3)
    assert value_of(made, "eyeLookDownLeft") == pytest.approx(7 / 19, abs=1e-3)
    assert value_of(made, "eyeLookUpLeft") == 0
