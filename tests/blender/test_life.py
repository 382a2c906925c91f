"""Eyes and life: a gaze target, blinks, small eye movements and breath, above the performance and removable."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from rig_scenes import make_rig, read_pose, rigging, tracked_rig

EFFIGY = bpy.ops.effigy
LIDS = ("eyeBlinkLeft", "eyeBlinkRight")
BACK = np.array(((1, 0, 0), (0, 0, -1), (0, 1, 0)))
"""Head space to Blender's axes."""


@pytest.fixture
def life(module):
    return module("blender_addon.rig.life")


@pytest.fixture
def gaze(module):
    return module("blender_addon.rig.gaze_target")


def shown(made):
    bpy.context.view_layer.objects.active = made.armature
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end, scene.render.fps = 1, 240, 24
    return made


@pytest.fixture
def rig():
    return shown(tracked_rig())


def sliders(made) -> dict[str, float]:
    keys = made.mesh.data.shape_keys.evaluated_get(bpy.context.evaluated_depsgraph_get()).key_blocks
    return {name: keys[name].value for name in made.slider_names}


def over_time(made, names, frames=range(1, 241)) -> np.ndarray:
    """(F, N) the sliders' values."""
    rows = []
    for frame in frames:
        bpy.context.scene.frame_set(frame)
        values = sliders(made)
        rows.append([values[name] for name in names])
    return np.array(rows)


def sight(made) -> tuple[np.ndarray, np.ndarray]:
    """(2, 3) the eyes' joints, and (2, 3) the directions in which they look, in Blender's world."""
    bpy.context.view_layer.update()
    armature = made.armature.evaluated_get(bpy.context.evaluated_depsgraph_get())
    bones = [armature.pose.bones[made.bone_name(joint)] for joint in ("eye_L", "eye_R")]
    world = np.array(armature.matrix_world)
    places = [world @ np.array(bone.matrix) for bone in bones]
    return np.array([each[:3, 3] for each in places]), np.array(
        [each[:3, 1] / np.linalg.norm(each[:3, 1]) for each in places]
    )


def actions(made) -> dict[str, list]:
    """All keys of the rig's actions but those of life, by the action's name."""
    return {
        action.name: [
            tuple(point.co) for curve in rigging().action.curves_of(action) for point in curve.keyframe_points
        ]
        for action in bpy.data.actions
        if "effigy_life" not in action
    }


@pytest.mark.parametrize("head", ["open", "flame", "tracked"])
def test_both_eyes_look_at_the_target_and_the_lids_follow(head, gaze):
    made = shown(tracked_rig() if head == "tracked" else make_rig(head))
    bpy.context.scene.frame_set(5)
    if head == "tracked":
        made.armature.location, made.armature.rotation_euler, made.armature.scale = (
            (1, 2, 3),
            (0.1, 0.2, 0.5),
            [1.5] * 3,
        )
    assert EFFIGY.add_gaze_target(distance=0.3) == {"FINISHED"}
    target = gaze.target_of(made)
    target["head"] = 0.0
    before = np.array(target.location)
    axes = gaze.eyes_of(made, bpy.context.evaluated_depsgraph_get())[1]
    for left, up in ((0.0, 0.0), (0.05, 0.06), (-0.06, -0.07)):
        target.location = before + left * axes[0] + up * axes[2]
        target.update_tag()
        places, directions = sight(made)
        wanted = np.array(target.location) - places
        assert np.allclose(directions, wanted / np.linalg.norm(wanted, axis=1)[:, None], atol=1e-3)
        values = sliders(made)
        if "eyeLookUpLeft" in values:
            raised = [values[f"eyeLook{way}{side}"] for side in ("Left", "Right") for way in ("Up", "Down")]
            assert np.allclose(raised[:2], raised[2:], atol=0.1)
            assert (raised[0] > 0.15) == (up > 0) and (raised[1] > 0.15) == (up < 0)
    # What the worker gets is what is seen.
    turned = read_pose(made)["eye_L"]
    assert turned[0] > 0.05


def test_eyes_keep_their_limits_and_the_head_makes_its_share(rig, gaze):
    bpy.context.scene.frame_set(5)
    EFFIGY.add_gaze_target()
    target = gaze.target_of(rig)
    eyes, axes = gaze.eyes_of(rig, bpy.context.evaluated_depsgraph_get())
    target["head"] = 0.0
    still = read_pose(rig)["neck"]
    target.location = eyes + 1.0 * axes[0] - 1.0 * axes[1]
    target.update_tag()
    bpy.context.view_layer.update()
    pose = read_pose(rig)
    for joint in ("eye_L", "eye_R"):
        assert np.degrees(np.linalg.norm(pose[joint])) < 58
        assert np.degrees(pose[joint][1]) > 25
    # To the left by 60 degrees: the head takes half of it.
    target.location = eyes + np.sin(np.pi / 3) * axes[0] + 0.5 * axes[1]
    target["head"] = 0.5
    target.update_tag()
    bpy.context.view_layer.update()
    turned = np.degrees(read_pose(rig)["neck"] - still)
    assert 15 < turned[1] < 40 and abs(turned[0]) < 8
    target["eyes"] = target["head"] = 0.0
    target.update_tag()
    bpy.context.view_layer.update()
    assert np.allclose(read_pose(rig)["neck"], still, atol=1e-5)


def test_without_the_target_the_rig_is_as_it_was(rig, gaze):
    bpy.context.scene.frame_set(5)
    before, objects, kept = read_pose(rig), set(bpy.data.objects), actions(rig)
    EFFIGY.add_gaze_target()
    with pytest.raises(RuntimeError, match="already"):
        EFFIGY.add_gaze_target()
    target = gaze.target_of(rig)
    target.location.x += 0.3
    target["eyes"] = 0.5
    target.keyframe_insert('["eyes"]', frame=5)
    bpy.context.scene.frame_set(5)
    assert not np.allclose(read_pose(rig)["eye_L"], before["eye_L"], atol=1e-2)
    EFFIGY.remove_life(what="TARGET")
    bpy.context.scene.frame_set(5)
    after = read_pose(rig)
    assert all(np.allclose(after[key], before[key], atol=1e-5) for key in before)
    assert set(bpy.data.objects) == objects and kept.items() <= actions(rig).items()
    assert not [driver for driver in rig.mesh.data.shape_keys.animation_data.drivers if "eyeLook" in driver.data_path]
    assert not any(rig.pose_bone(joint).constraints for joint in ("neck", "eye_L", "eye_R"))
    EFFIGY.remove_life(what="TARGET")


def test_a_target_that_was_deleted_can_be_added_again(rig, gaze):
    EFFIGY.add_gaze_target()
    bpy.data.objects.remove(gaze.target_of(rig))
    assert gaze.target_of(rig) is None
    EFFIGY.add_gaze_target()
    assert gaze.target_of(rig) is not None
    assert len(rig.pose_bone("eye_L").constraints) == 2


def test_a_target_that_a_copy_of_the_rig_follows_stays_for_it(rig, gaze):
    EFFIGY.add_gaze_target()
    target = gaze.target_of(rig)
    bpy.ops.object.select_all(action="DESELECT")
    for part in (rig.mesh, rig.armature):
        part.select_set(True)
    bpy.ops.object.duplicate()
    copy = rigging().rig_properties.find_rig(bpy.context.object)
    assert copy.armature != rig.armature and gaze.target_of(copy) == target
    for each, is_last in ((copy, False), (rig, True)):
        bpy.context.view_layer.objects.active = each.armature
        EFFIGY.remove_life(what="TARGET")
        assert gaze.target_of(each) is None
        assert len([obj for obj in bpy.data.objects if obj.type == "EMPTY"]) == (0 if is_last else 3)


def test_numbers_of_a_stranger_that_are_none_are_left_out(rig, life):
    EFFIGY.add_saccades()
    action = life.life_of(rig)[life.SACCADES].action
    action[life.SETTINGS_PROPERTY] = {"size": float("nan"), "jumps": 2.0}
    assert life.settings_of(life.life_of(rig)[life.SACCADES]) == {"jumps": 2.0}


def test_blinks_close_the_lids_wholly_and_leave_every_other_key(rig, life):
    rig.key_blocks["cheekPuff"].keyframe_insert("value", frame=30)
    before, kept = over_time(rig, (*LIDS, "mouthSmileLeft")), actions(rig)
    assert EFFIGY.add_blinks(blinks=30, doubles=0.0, jumps=False) == {"FINISHED"}
    after = over_time(rig, (*LIDS, "mouthSmileLeft"))
    assert actions(rig) == kept
    assert np.array_equal(after[:, 2], before[:, 2])
    shut = (after[:, :2] > 0.97).all(1)
    assert 3 <= (shut & ~np.r_[False, shut[:-1]]).sum() <= 8
    # Never further than shut, and open as before between the blinks.
    assert after[:, :2].max() < max(1.02, before[:, :2].max() + 0.02)
    assert (np.abs(after[:, :2] - before[:, :2]).max(1) < 1e-4).mean() > 0.6


def test_made_again_the_strip_keeps_its_influence_and_removed_everything_is_as_before(rig, life):
    before = over_time(rig, LIDS, range(1, 240, 3))
    EFFIGY.add_blinks(blinks=30, seed=1)
    strip = life.life_of(rig)[life.BLINKS]
    first = over_time(rig, LIDS, range(1, 240, 3))
    strip.influence = 0.5
    strip.keyframe_insert("influence", frame=1)
    counted = len(bpy.data.actions)
    EFFIGY.add_blinks(blinks=30, seed=2)
    strip = life.life_of(rig)[life.BLINKS]
    assert len(bpy.data.actions) == counted
    assert tuple(strip.fcurves.find("influence").keyframe_points[0].co) == (1, 0.5)
    assert life.settings_of(strip)["seed"] == 2 and life.settings_of(strip)["blinks"] == 30
    second = over_time(rig, LIDS, range(1, 240, 3))
    assert not np.allclose(first, second, atol=0.1) and second.max() < 0.8
    EFFIGY.remove_life(what="BLINKS")
    assert np.allclose(over_time(rig, LIDS, range(1, 240, 3)), before, atol=1e-6)
    assert len(bpy.data.actions) == counted - 1


@pytest.mark.parametrize("head", ["open", "flame"])
def test_a_rig_without_a_performance_blinks_and_is_open_otherwise(head, life):
    made = shown(make_rig(head))
    made.key_blocks["mouthSmileLeft" if head == "open" else "expression_003"].value = 0.4
    EFFIGY.add_blinks(blinks=20, doubles=0.0)
    values = over_time(made, LIDS, range(1, 241))
    assert values.max() > 0.99 and np.median(values) == 0 and values.min() == 0
    assert sliders(made)["mouthSmileLeft" if head == "open" else "expression_003"] == pytest.approx(0.4)


def test_a_gaze_that_jumps_blinks(rig, life, gaze):
    bpy.context.scene.frame_set(5)
    EFFIGY.add_gaze_target()
    target = gaze.target_of(rig)
    eyes, axes = gaze.eyes_of(rig, bpy.context.evaluated_depsgraph_get())
    start = target.location.copy()
    for frame, left in ((90, 0.0), (93, 0.4), (200, 0.4)):
        target.location = np.array(start) + left * axes[0]
        target.keyframe_insert("location", frame=frame)
    EFFIGY.add_blinks(blinks=0, doubles=0.0, jumps=True)
    values = over_time(rig, LIDS[:1], range(30, 240))[:, 0]
    assert 88 < 30 + int(values.argmax()) < 100 and values.max() > 0.97
    assert (values[70:] < 0.9).all()
    with pytest.raises(RuntimeError, match="No blink fits"):
        EFFIGY.add_blinks(blinks=0, jumps=False)


def test_eyes_at_rest_move_a_little_with_and_without_a_target(rig, life, gaze):
    def directions() -> np.ndarray:
        found = []
        for frame in range(20, 120):
            bpy.context.scene.frame_set(frame)
            found.append(sight(rig)[1])
        return np.array(found)

    still = directions()
    EFFIGY.add_saccades(size=1.0)
    moving = directions()
    angles = np.degrees(np.linalg.norm(moving - still, axis=2))
    assert 0.3 < angles.mean() < 2.5 and np.allclose(angles[:, 0], angles[:, 1], atol=0.1)
    EFFIGY.add_gaze_target()
    assert gaze.aim_of(rig).animation_data.nla_tracks and len(life.life_of(rig)) == 1
    target = gaze.target_of(rig)
    target["head"] = 0.0
    around = directions()
    assert 0.3 < np.degrees(np.linalg.norm(around - around.mean(0), axis=2)).mean() < 2.5
    EFFIGY.remove_life(what="TARGET")
    assert np.allclose(directions(), moving, atol=1e-4)
    EFFIGY.remove_life(what="SACCADES")
    assert np.allclose(directions(), still, atol=1e-6) and not life.life_of(rig)


def test_the_head_breathes(rig, life):
    def heights() -> np.ndarray:
        found = []
        for frame in range(20, 240, 4):
            bpy.context.scene.frame_set(frame)
            found.append(BACK @ read_pose(rig)["root"][:3, 3])
        return np.array(found)

    still = heights()
    EFFIGY.add_breathing(breaths_a_minute=20, depth=2.0)
    rise = np.linalg.norm(heights() - still, axis=1)
    assert 0.002 < rise.max() < 0.006 and rise.min() < 0.0005
    rising = (rise > 0.0015).astype(int)
    assert 2 <= (np.diff(rising) > 0).sum() <= 4
    EFFIGY.remove_life(what="BREATHING")
    assert np.allclose(heights(), still, atol=1e-7)


def test_a_range_that_ends_before_it_begins_and_a_bone_of_another_mode_are_refused(rig):
    with pytest.raises(RuntimeError, match="before it begins"):
        EFFIGY.add_blinks(first=50, last=20)
    rig.pose_bone("neck").rotation_mode = "XYZ"
    with pytest.raises(RuntimeError, match="rotation mode"):
        EFFIGY.add_breathing()


def test_a_new_take_above_hides_no_blinks_that_are_made_again(rig, life):
    from rig_scenes import make_track

    EFFIGY.add_blinks(blinks=30)
    rigging().steps.finish(rigging().added_performance.add_performance_steps(rig, make_track(), "take", 1))
    EFFIGY.add_blinks(blinks=30)
    assert rig.mesh.data.shape_keys.animation_data.nla_tracks[-1].name == life.BLINKS


def blink_keys_of(life, made) -> list[tuple[float, float]]:
    action = life.life_of(made)[life.BLINKS].action
    curve = next(each for each in rigging().action.curves_of(action) if LIDS[0] in each.data_path)
    return [tuple(point.co) for point in curve.keyframe_points]


def test_blinks_see_filmed_ones_on_the_face_controls(rig, life, module):
    takes = module("blender_addon.rig.takes")
    for channel in takes.channels_of(rig, takes.take_of(rig), only="eyeBlink"):
        frames = np.arange(2.0, 200)
        channel.key(frames, (0.9 * (frames % 50 < 20))[:, None])
    for strip in takes.take_of(rig).strips:
        strip.action_frame_end = 240
    EFFIGY.add_blinks(blinks=40, doubles=0.0, jumps=False)
    seen = blink_keys_of(life, rig)
    EFFIGY.remove_life(what="BLINKS")
    EFFIGY.add_face_controls()
    EFFIGY.controls_from_sliders(performance=True)
    EFFIGY.add_blinks(blinks=40, doubles=0.0, jumps=False)
    assert np.allclose(blink_keys_of(life, rig), seen, atol=1e-3)


def test_lids_that_follow_a_target_are_not_kept_when_the_performance_comes_from_the_controls(rig, gaze):
    looks = [f"eyeLook{way}{side}" for way in ("Up", "Down", "In", "Out") for side in ("Left", "Right")]
    frames = range(2, 240, 40)
    before = over_time(rig, looks, frames)
    EFFIGY.add_face_controls()
    EFFIGY.add_gaze_target()
    gaze.target_of(rig).location.z += 1.0
    assert np.abs(over_time(rig, looks, frames) - before).max() > 0.2
    EFFIGY.controls_from_sliders(performance=True)
    EFFIGY.sliders_from_controls(performance=True)
    EFFIGY.remove_life(what="TARGET")
    assert np.allclose(over_time(rig, looks, frames), before, atol=1e-3)
