"""The track as keyframes in NLA strips, and keys set by hand above them."""

from __future__ import annotations

from dataclasses import replace

import bpy
import numpy as np
import pytest
from rig_scenes import make_rig, make_track, read_pose, rigging, tracked_rig, value_of

JOINTS = ("neck", "jaw", "eye_L", "eye_R")


def test_every_tracked_number_is_read_back_at_its_frame():
    made, track = tracked_rig(), make_track()
    for frame in range(track.frame_count):
        bpy.context.scene.frame_set(1 + frame)
        pose = read_pose(made)
        assert np.allclose(pose["expression"], track.expression[frame], atol=1e-6)
        for index, joint in enumerate(JOINTS, 1):
            assert np.allclose(pose[joint], track.rotations[frame, index], atol=1e-6), joint


def a_torso(track) -> np.ndarray:
    """(F, 4, 4) `TrackData.torso_to_camera` of a torso that stays before the camera, turned and beside the head."""
    pose = track.head_to_camera[0].astype(np.float64)
    turn = np.eye(4)
    turn[:3, 3] = 0.02, -0.01, 0.03
    turn[:2, :2] = (np.cos(0.2), -np.sin(0.2)), (np.sin(0.2), np.cos(0.2))
    return np.tile((pose @ turn).astype(np.float32), (track.frame_count, 1, 1))


def test_a_tracked_torso_has_a_bone_that_is_read_back_and_can_be_posed():
    made, track = tracked_rig(), make_track()
    assert made.torso_bone is None, "the footage shows no shoulders"
    assert np.allclose(read_pose(made)["torso"], np.eye(4), atol=1e-5), "it goes with the root"
    track = replace(track, torso_to_camera=a_torso(track))
    made.armature.location, made.armature.rotation_euler, made.armature.scale = (1, 2, 3), (0.3, 0.2, 0.1), (2, 2, 2)
    rigging().performance.apply_track(made, track)
    assert made.torso_bone == "torso" and not made.armature.data.bones["torso"].use_deform
    for frame in range(track.frame_count):
        bpy.context.scene.frame_set(1 + frame)
        assert np.allclose(read_pose(made)["torso"], track.torso[frame], atol=1e-4)
    rigging().performance.apply_track(made, track)
    assert [bone.name for bone in made.armature.data.bones].count("torso") == 1
    before = read_pose(made)
    bone = made.armature.pose.bones["torso"]
    bone.rotation_quaternion = (np.cos(0.2), 0, np.sin(0.2), 0)
    bone.keyframe_insert("rotation_quaternion", frame=bpy.context.scene.frame_current)
    bpy.context.view_layer.update()
    after = read_pose(made)
    assert not np.allclose(after["torso"], before["torso"], atol=0.05)
    assert np.allclose(after["root"], before["root"]) and np.allclose(after["neck"], before["neck"])


def test_a_hidden_bust_has_no_torso():
    made = tracked_rig()
    made.armature.effigy.show_bust = False
    assert "torso" not in read_pose(made)


def test_values_beyond_the_slider_are_kept():
    made, track = tracked_rig(), make_track()
    frame, index = np.unravel_index(track.expression.argmax(), track.expression.shape)
    assert track.expression[frame, index] > 1
    bpy.context.scene.frame_set(1 + int(frame))
    assert value_of(made, made.expression_names[index]) == pytest.approx(track.expression[frame, index], abs=1e-6)


def test_the_performance_is_in_strips_and_the_action_above_them_is_free_for_keys_set_by_hand():
    made, rig = tracked_rig(), rigging()
    for target, names, blend in (
        (made.mesh.data.shape_keys, [rig.performance.NEUTRAL, rig.performance.TRACKED], "ADD"),
        (made.armature, [rig.performance.TRACKED], "COMBINE"),
    ):
        data = target.animation_data
        assert data.action is None and data.action_blend_type == blend
        assert [track.name for track in data.nla_tracks] == names
        assert all(strip.blend_type == "REPLACE" for track in data.nla_tracks for strip in track.strips)
    assert rig.performance.has_performance(made)


def test_a_key_set_by_hand_gives_the_value_that_was_set_and_the_performance_continues_beneath_it():
    made, track, scene = tracked_rig(), make_track(), bpy.context.scene
    name, frame = "mouthSmileLeft", 6
    smile = made.expression_names.index(name)
    scene.frame_set(frame)
    block = made.key_blocks[name]
    tracked = block.value
    edited = 0.5 * tracked
    block.value = edited
    block.keyframe_insert("value", frame=frame)
    jaw = made.pose_bone("jaw")
    jaw.rotation_quaternion = (np.cos(0.2), np.sin(0.2), 0, 0)
    jaw.keyframe_insert("rotation_quaternion", frame=frame)
    scene.frame_set(frame)
    assert value_of(made, name) == pytest.approx(edited, abs=1e-5)
    assert np.allclose(read_pose(made)["jaw"], (0.4, 0, 0), atol=1e-5)
    scene.frame_set(frame + 4)
    expected = np.clip(track.expression[frame + 3, smile] + edited - tracked, 0, None)
    assert value_of(made, name) == pytest.approx(expected, abs=1e-5)
    opened = 0.4 - track.rotations[frame - 1, 2, 0] + track.rotations[frame + 3, 2, 0]
    assert np.allclose(read_pose(made)["jaw"], (opened, 0, 0), atol=1e-4)


def test_a_refined_track_replaces_the_action_in_the_strip_and_keeps_keys_set_by_hand():
    made, track, scene, rig = tracked_rig(), make_track(), bpy.context.scene, rigging()
    scene.frame_set(6)
    block = made.key_blocks["cheekPuff"]
    block.value += 0.1
    block.keyframe_insert("value", frame=6)
    made.armature.animation_data.nla_tracks[0].strips[0].name = "mine to name"
    actions = len(bpy.data.actions)
    moved = track.head_to_camera.copy()
    moved[:, 0, 3] += 0.01
    refined = replace(track, expression=track.expression * np.float32(0.5), head_to_camera=moved)
    placement = rig.performance.placement_of(made)
    rig.performance.apply_track(made, refined)
    assert len(bpy.data.actions) == actions
    assert np.array_equal(rig.performance.placement_of(made).camera_pose, placement.camera_pose)
    assert made.armature.animation_data.nla_tracks[0].strips[0].name == "mine to name"
    puff, brow = (made.expression_names.index(name) for name in ("cheekPuff", "browInnerUp"))
    scene.frame_set(6)
    assert value_of(made, "cheekPuff") == pytest.approx(refined.expression[5, puff] + 0.1, abs=1e-5)
    assert value_of(made, "browInnerUp") == pytest.approx(refined.expression[5, brow], abs=1e-6)
    expected = rig.conventions.BLENDER_TO_HEAD @ placement.camera_pose @ moved[5]
    assert np.allclose(read_pose(made)["root"], expected, atol=1e-5)


def test_a_refined_track_keeps_the_place_the_rate_and_the_cuts_of_its_strips():
    """The artist has cut the strips in two, cut three frames off the second and moved it."""
    made, track, rig = make_rig(), make_track(), rigging()
    placement = rig.performance.Placement(rig.conventions.default_camera_pose(track.head_to_camera), 1001)
    rig.performance.apply_track(made, track, placement, 0.96)
    targets = (made.armature, made.mesh.data.shape_keys)
    for target in targets:
        tracks = target.animation_data.nla_tracks
        first = tracks[-1].strips[0]
        first.action_frame_end = 1005
        second = tracks.new().strips.new("second", 1100, first.action)
        if hasattr(second, "action_slot"):
            second.action_slot = first.action_slot
        second.action_frame_start, second.scale = 1008, 0.96

    def strips():
        found = [each.strips[0] for target in targets for each in target.animation_data.nla_tracks[-2:]]
        names = ("frame_start", "frame_end", "action_frame_start", "action_frame_end", "scale")
        return found, [[getattr(strip, name) for name in names] for strip in found]

    old, before = strips()[0][0].action.name, strips()[1]
    rig.performance.apply_track(made, replace(track, expression=track.expression * np.float32(0.5)))
    found, after = strips()
    assert after == before
    assert old not in bpy.data.actions and len({strip.action.name for strip in found}) == 2


def test_a_track_fits_a_rig_whose_mouth_effigy_has_added_and_no_other_head():
    made, track, rig = make_rig(), make_track(), rigging()
    with pytest.raises(Exception, match="track the capture again"):
        rig.performance.apply_track(made, replace(track, head_fingerprint="0123456789abcdef"))
    rig.performance.apply_track(made, replace(track, head_fingerprint=f"{track.head_fingerprint}+mouth1"))


def test_a_rig_of_which_a_strip_is_being_edited_is_refused_before_anything_changes():
    made, rig = tracked_rig(), rigging()
    actions, data = len(bpy.data.actions), made.armature.animation_data
    data.nla_tracks[0].select = data.nla_tracks[0].strips[0].select = True
    data.nla_tracks.active = data.nla_tracks[0]
    data.use_tweak_mode = True
    assert data.use_tweak_mode
    before = made.mesh.data.shape_keys.animation_data.nla_tracks[-1].strips[0].action
    with pytest.raises(Exception, match="Tweak Mode"):
        rig.performance.apply_track(made, make_track())
    data.use_tweak_mode = False
    assert len(bpy.data.actions) == actions
    assert made.mesh.data.shape_keys.animation_data.nla_tracks[-1].strips[0].action == before


def test_keys_set_by_hand_change_the_neutral_face_when_the_performance_is_muted_or_removed():
    made, scene, rig = tracked_rig(), bpy.context.scene, rigging()
    scene.frame_set(6)
    block = made.key_blocks["cheekPuff"]
    block.value += 0.3
    block.keyframe_insert("value", frame=6)
    key = made.mesh.data.shape_keys
    for track in key.animation_data.nla_tracks:
        track.mute = track.name == rig.performance.TRACKED
    scene.frame_set(3)
    assert value_of(made, "cheekPuff") == pytest.approx(0.3, abs=1e-6)
    assert value_of(made, "browInnerUp") == 0
    rig.performance.remove_performance(made)
    scene.frame_set(4)
    assert value_of(made, "cheekPuff") == pytest.approx(0.3, abs=1e-6)
    assert not rig.performance.has_performance(made)
    assert [len(target.animation_data.nla_tracks) for target in (key, made.armature)] == [0, 0]
    rig.performance.apply_track(made, make_track())
    scene.frame_set(6)
    assert rig.performance.has_performance(made)


@pytest.mark.parametrize("scale", [1.0, 25 / 30, 30 / 23.976])
def test_keys_lie_at_the_times_of_their_frames_at_the_scenes_rate(scale):
    """A telephone that drops to half its rate after four frames, in a scene of another rate."""
    made, track, rig, scene = make_rig(), make_track(), rigging(), bpy.context.scene
    count = track.frame_count
    positions = np.concatenate((np.arange(4.0), 3 + 2 * np.arange(1, count - 3)))
    track = replace(track, times=positions / float(track.fps))
    placement = rig.performance.Placement(rig.conventions.default_camera_pose(track.head_to_camera), 101)
    rig.performance.apply_track(made, track, placement, scale)
    smile = made.expression_names.index("mouthSmileLeft")
    for frame in range(count):
        moment = 101 + scale * positions[frame]
        scene.frame_set(int(moment), subframe=float(moment % 1))
        assert value_of(made, "mouthSmileLeft") == pytest.approx(track.expression[frame, smile], abs=1e-3)
    (strip,) = made.armature.animation_data.nla_tracks[0].strips
    assert strip.frame_start == 101 and strip.frame_end == pytest.approx(101 + scale * positions[-1], abs=1e-3)


def test_a_performance_whose_first_frames_have_no_face_is_not_shifted():
    made, track, rig = make_rig(), make_track(), rigging()
    gap = track.expression.copy()
    gap[:3] = np.nan
    rig.performance.apply_track(made, replace(track, expression=gap))
    smile = made.expression_names.index("mouthSmileLeft")
    for frame in (3, 6):
        bpy.context.scene.frame_set(1 + frame)
        assert value_of(made, "mouthSmileLeft") == pytest.approx(track.expression[frame, smile], abs=1e-6)


def test_an_action_of_the_artists_own_keeps_its_effect_in_a_strip_above_a_new_performance():
    """A baked action replaces the strips. Added to them instead, it would turn the head twice."""
    made, scene, rig = tracked_rig(), bpy.context.scene, rigging()
    data = made.mesh.data.shape_keys.animation_data
    baked = rig.action.new_action("baked", made.mesh.data.shape_keys)
    path = rig.performance.value_path("cheekPuff")
    frames = np.arange(4.0, 9)
    rig.action.add_curve(baked, rig.action.Curve(path, 0, "Expressions", frames, frames / 20))
    rig.action.play_action(made.mesh.data.shape_keys, baked)
    data.action_blend_type = "REPLACE"
    scene.frame_set(6)
    before = value_of(made, "cheekPuff")
    assert before == pytest.approx(0.3)
    applied = rig.performance.apply_track(made, make_track())
    assert applied.set_aside == ("baked",) and "“baked”" in applied.note
    assert data.action is None and data.nla_tracks[-1].strips[0].action == baked
    for frame in (5, 6, 8, 12):
        scene.frame_set(frame)
        assert value_of(made, "cheekPuff") == pytest.approx(min(frame, 8) / 20)
    # Keys that are set by hand from now on, and an action that is combined as usual, are left where they are.
    block = made.key_blocks["browInnerUp"]
    block.value = 0.5
    block.keyframe_insert("value", frame=12)
    mine = data.action
    assert rig.performance.apply_track(made, make_track()).set_aside == ()
    assert data.action == mine


def test_a_transferred_take_leaves_earlier_keys_alone():
    made, scene, rig = make_rig(), bpy.context.scene, rigging()
    block = made.key_blocks["cheekPuff"]
    for frame, value in ((1, 0.2), (20, 0.4)):
        block.value = value
        block.keyframe_insert("value", frame=frame)
    before = []
    for frame in (1, 10, 20):
        scene.frame_set(frame)
        before.append(value_of(made, "cheekPuff"))
    applied = rig.steps.finish(rig.added_performance.add_performance_steps(made, make_track(), "take", 300))
    assert len(applied.set_aside) == 1
    after = []
    for frame in (1, 10, 20):
        scene.frame_set(frame)
        after.append(value_of(made, "cheekPuff"))
    assert after == pytest.approx(before, abs=1e-6)
    puff, track = made.expression_names.index("cheekPuff"), make_track()
    scene.frame_set(302)
    assert value_of(made, "cheekPuff") == pytest.approx(track.expression[2, puff], abs=1e-5)


def test_frames_without_a_face_get_no_keys():
    made, track = make_rig(), make_track()
    gap = track.expression.copy()
    gap[4] = np.nan
    rigging().performance.apply_track(made, replace(track, expression=gap))
    bpy.context.scene.frame_set(5)
    smile = made.expression_names.index("mouthSmileLeft")
    assert value_of(made, "mouthSmileLeft") == pytest.approx((gap[3, smile] + gap[5, smile]) / 2, abs=1e-5)


def test_keying_that_is_cancelled_leaves_no_actions():
    rig, made = rigging(), make_rig()
    steps = rig.performance.apply_track_steps(made, make_track())
    for _ in range(5):
        next(steps)
    steps.close()
    assert len(bpy.data.actions) == 0 and not rig.performance.has_performance(made)


def test_a_track_of_another_head_is_refused():
    made = make_rig("flame")
    with pytest.raises(Exception, match="track the capture again"):
        rigging().performance.apply_track(made, make_track())


def test_quaternion_keys_do_not_change_sign_between_frames():
    made, track, rig = make_rig(), make_track(), rigging()
    rotations = track.rotations.copy()
    rotations[:, 1] = np.linspace(2.6, 3.1, track.frame_count)[:, None] * np.float32([0, 1, 0])
    rotations[6:, 1] -= np.float32([0, 2 * np.pi, 0])
    rig.performance.apply_track(made, replace(track, rotations=rotations))
    strip = made.armature.animation_data.nla_tracks[0].strips[0]
    curves = [curve for curve in rig.action.curves_of(strip.action) if '"neck"' in curve.data_path]
    keys = np.array([[curve.evaluate(1 + frame) for curve in curves] for frame in range(track.frame_count)])
    assert np.abs(np.diff(keys, axis=0)).max() < 0.1
