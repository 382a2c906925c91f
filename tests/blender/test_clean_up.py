"""Clean-up of a performance by its operators: what changes, what stays, and what the artist is told."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from rig_scenes import make_rig, make_track, read_pose, rigging, tracked_rig, value_of

FIRST, LAST = 1, 12
FRAMES = np.arange(1.0, 13)
EFFIGY = bpy.ops.effigy


@pytest.fixture
def rig():
    made = tracked_rig()
    bpy.context.view_layer.objects.active = made.armature
    scene = bpy.context.scene
    scene.render.fps, scene.render.fps_base = 30000, 1001
    return made


@pytest.fixture
def takes(module):
    return module("blender_addon.rig.takes")


def sampled(takes, rig, name="") -> dict[tuple[str, str], np.ndarray]:
    take = takes.take_of(rig, name)
    return {(each.name, each.kind): each.sample(FRAMES) for each in takes.channels_of(rig, take)}


def value(takes, rig, name: str) -> np.ndarray:
    return sampled(takes, rig)[name, "value"][:, 0]


def plant(rig, takes, name: str, frame: int, height: float) -> None:
    take = takes.take_of(rig)
    curve = next(each for each in takes.channels_of(rig, take) if each.name == name).curves[0]
    curve.keyframe_points[frame - 1].co.y += height
    curve.update()


def keys_by_hand(rig) -> bpy.types.Action:
    """Keys of the artist's own above the performance."""
    block = rig.key_blocks["cheekPuff"]
    block.value += 0.2
    block.keyframe_insert("value", frame=6)
    return rig.mesh.data.shape_keys.animation_data.action


def points(action) -> list[tuple[float, ...]]:
    return [
        (*point.co, *point.handle_left, *point.handle_right)
        for curve in rigging().action.curves_of(action)
        for point in curve.keyframe_points
    ]


def test_simplify_keeps_every_channel_within_the_tolerance_and_the_keys_by_hand(rig, takes, module):
    before, mine = sampled(takes, rig), points(keys_by_hand(rig))
    cleaning = module("blender_addon.rig.cleaning")
    done = cleaning.simplify(rig, cleaning.Choice(), 2.0)
    assert done.after < done.before / 2 and 0 < done.error <= 2.0
    apart = {}
    for channel in takes.channels_of(rig, takes.take_of(rig)):
        moved = np.linalg.norm(channel.sample(FRAMES) - before[channel.name, channel.kind], axis=1) * channel.reach
        apart[channel.name] = max(apart.get(channel.name, 0.0), moved.max())
    assert max(apart.values()) == pytest.approx(done.error, rel=0.01) and max(apart, key=apart.get) == done.channel
    # In the pose, at its own frames, and with the numbers of a rotation keyed together.
    bpy.context.scene.frame_set(5)
    assert value_of(rig, "mouthSmileLeft") == pytest.approx(before["mouthSmileLeft", "value"][4, 0], abs=0.4)
    (neck,) = [each for each in takes.channels_of(rig, takes.take_of(rig)) if each.name == "neck"]
    assert len({tuple(point.co.x for point in curve.keyframe_points) for curve in neck.curves}) == 1
    assert points(rig.mesh.data.shape_keys.animation_data.action) == mine


def test_a_range_and_parts_leave_everything_else_as_it_was(rig, takes):
    def outside() -> dict:
        take = takes.take_of(rig)
        return {
            (each.name, each.kind): [
                [tuple(point.co) for point in curve.keyframe_points if not 4 <= point.co.x <= 9]
                for curve in each.curves
            ]
            for each in takes.channels_of(rig, take)
        }

    before, kept = sampled(takes, rig), outside()
    EFFIGY.smooth_performance(
        method="SAVITZKY_GOLAY", window=5, frames="RANGE", first=4, last=9, fade=1, parts={"mouth"}
    )
    after = sampled(takes, rig)
    assert outside() == kept
    changed = {name for (name, kind), old in before.items() if not np.allclose(old, after[name, kind], atol=1e-5)}
    assert changed and all(name.startswith(("mouth", "tongue")) for name in changed)
    assert not np.allclose(before["mouthSmileLeft", "value"], after["mouthSmileLeft", "value"], atol=1e-3)


@pytest.mark.parametrize("operator", ["scale_performance", "smooth_performance"])
def test_what_is_cut_out_of_few_keys_does_not_bend_the_rest(rig, takes, operator):
    """A simplified curve has long segments; a change in their middle changes nothing beyond the range."""
    EFFIGY.simplify_performance(tolerance=3.0)
    fine = np.arange(1, 12.01, 0.25)
    take = takes.take_of(rig)
    before = {each.name: each.sample(fine) for each in takes.channels_of(rig, take, {"mouth"})}
    settings = {"factor": 1.5} if operator == "scale_performance" else {"cutoff": 0.2, "speed_factor": 0.0}
    getattr(EFFIGY, operator)(frames="RANGE", first=5, last=9, fade=1, parts={"mouth"}, **settings)
    away, changed = (fine <= 5) | (fine >= 9), []
    for each in takes.channels_of(rig, take, {"mouth"}):
        after = each.sample(fine)
        assert np.allclose(after[away], before[each.name][away], atol=2e-3), each.name
        changed.append(np.abs(after - before[each.name])[fine == 7].max())
        if operator == "scale_performance":
            assert np.allclose(after[fine == 7], 1.5 * before[each.name][fine == 7], atol=0.02), each.name
    assert max(changed) > 0.02


def test_smoothing_by_one_euro_calms_the_face_and_leaves_the_lids(rig, takes):
    before = sampled(takes, rig)
    EFFIGY.smooth_performance(cutoff=0.5, speed_factor=0.0)
    after = sampled(takes, rig)
    rough = lambda values: np.abs(np.diff(values[:, 0])).mean()
    assert rough(after["mouthSmileLeft", "value"]) < 0.5 * rough(before["mouthSmileLeft", "value"])
    assert np.array_equal(after["eyeBlinkLeft", "value"], before["eyeBlinkLeft", "value"])
    assert np.allclose(np.linalg.norm(after["root", "rotation"], axis=1), 1)


def test_a_planted_spike_is_removed_and_named(rig, takes, capfd):
    take = takes.take_of(rig)
    for channel in takes.channels_of(rig, take):
        # A calm face, so that the spike is the only one.
        channel.key(FRAMES, np.tile(channel.sample(FRAMES)[:1], (12, 1)))
    plant(rig, takes, "mouthSmileLeft", 7, 0.6)
    before = sampled(takes, rig)
    EFFIGY.remove_spikes()
    after = sampled(takes, rig)
    assert "Removed: mouthSmileLeft at frame 7." in capfd.readouterr().out
    assert after["mouthSmileLeft", "value"][6, 0] == pytest.approx(after["mouthSmileLeft", "value"][5, 0], abs=1e-5)
    assert all(np.allclose(before[key], after[key]) for key in before if key[0] != "mouthSmileLeft")
    EFFIGY.remove_spikes()
    assert "There are no such spikes." in capfd.readouterr().out


def test_lids_are_held_shut_in_the_preview_range(rig, takes):
    scene, before = bpy.context.scene, sampled(takes, rig)
    scene.use_preview_range, scene.frame_preview_start, scene.frame_preview_end = True, 4, 10
    assert EFFIGY.hold_lids(ease=2) == {"FINISHED"}
    after = sampled(takes, rig)
    for name in ("eyeBlinkLeft", "eyeBlinkRight"):
        assert np.allclose(after[name, "value"][5:8], 1)
        assert np.allclose(
            after[name, "value"][[0, 1, 2, 3, 9, 10, 11]], before[name, "value"][[0, 1, 2, 3, 9, 10, 11]]
        )
    scene.use_preview_range = False
    with pytest.raises(RuntimeError, match="preview range"):
        EFFIGY.hold_lids()


def test_a_region_is_scaled_with_its_keys_where_they_are(rig, takes):
    before = sampled(takes, rig)
    count = len(points(takes.take_of(rig).face.action))
    EFFIGY.scale_performance(factor=1.2)
    after = sampled(takes, rig)
    assert np.allclose(after["mouthSmileLeft", "value"], 1.2 * before["mouthSmileLeft", "value"], atol=1e-5)
    assert np.array_equal(after["browInnerUp", "value"], before["browInnerUp", "value"])
    angle = lambda quaternions: 2 * np.arctan2(np.linalg.norm(quaternions[:, 1:], axis=1), np.abs(quaternions[:, 0]))
    assert np.allclose(angle(after["jaw", "rotation"]), 1.2 * angle(before["jaw", "rotation"]), atol=1e-4)
    assert len(points(takes.take_of(rig).face.action)) == count
    # Values beyond 1 are not clipped by the slider.
    frame = int(before["mouthSmileLeft", "value"].argmax())
    bpy.context.scene.frame_set(1 + frame)
    assert value_of(rig, "mouthSmileLeft") == pytest.approx(after["mouthSmileLeft", "value"][frame, 0], abs=1e-4)


def test_the_head_calms_down_about_its_mean(rig, takes):
    before = sampled(takes, rig)
    EFFIGY.scale_performance(factor=0.5, parts={"head"})
    after = sampled(takes, rig)
    old, new = before["root", "location"], after["root", "location"]
    assert np.allclose(new - old.mean(0), 0.5 * (old - old.mean(0)), atol=1e-5)


def test_the_pose_of_a_frame_becomes_the_neutral_face(rig, takes):
    before = sampled(takes, rig)
    bpy.context.scene.frame_set(3)
    EFFIGY.offset_neutral()
    after = sampled(takes, rig)
    smile = before["mouthSmileLeft", "value"]
    assert np.allclose(after["mouthSmileLeft", "value"], smile - smile[2], atol=1e-5)
    assert np.allclose(np.abs(after["jaw", "rotation"][2]), (1, 0, 0, 0), atol=1e-5)
    assert not np.allclose(np.abs(after["jaw", "rotation"][8]), (1, 0, 0, 0), atol=1e-3)
    assert np.array_equal(after["eyeBlinkLeft", "value"], before["eyeBlinkLeft", "value"])


@pytest.mark.parametrize("part", [{}, {"frames": "RANGE", "first": 1, "last": 12, "fade": 0}])
def test_a_performance_is_mirrored_as_a_mirrored_pose_is(rig, takes, part):
    scene, sliders = bpy.context.scene, rigging().sliders
    scene.frame_set(5)
    pose = read_pose(rig)
    EFFIGY.mirror_performance(**part)
    scene.frame_set(5)
    mirrored, names = read_pose(rig), rig.expression_names
    for index, name in enumerate(names):
        other = names.index(sliders.mirror_name(name) or name)
        assert mirrored["expression"][index] == pytest.approx(pose["expression"][other], abs=1e-5), name
    for joint, other in (("jaw", "jaw"), ("neck", "neck"), ("eye_L", "eye_R"), ("eye_R", "eye_L")):
        assert np.allclose(mirrored[joint], pose[other] * (1, -1, -1), atol=1e-5), joint
    flip = np.diag((-1.0, 1, 1, 1))
    # The person's own joints are not quite in the middle.
    assert np.allclose(mirrored["root"], flip @ pose["root"] @ flip, atol=5e-4)


def add_take(rig, name="other", start=1):
    return rigging().steps.finish(rigging().added_performance.add_performance_steps(rig, make_track(), name, start))


def test_two_takes_are_blended_and_the_other_is_muted(rig, takes):
    add_take(rig)
    EFFIGY.scale_performance(factor=2.0, take="other")
    one, other = sampled(takes, rig), sampled(takes, rig, "other")
    EFFIGY.blend_takes(other="other", share=0.25, fade=0, parts={"mouth"})
    blended = sampled(takes, rig)
    smile = "mouthSmileLeft", "value"
    assert np.allclose(blended[smile], 0.75 * one[smile] + 0.25 * other[smile], atol=1e-5)
    assert all(strip.mute for strip in takes.take_of(rig, "other").strips)
    bpy.context.scene.frame_set(4)
    assert value_of(rig, "mouthSmileLeft") == pytest.approx(blended[smile][3, 0], abs=1e-4)
    for wrong, message in (({"other": "none"}, "no take “none”"), ({"other": takes.TRACKED}, "the same")):
        with pytest.raises(RuntimeError, match=message):
            EFFIGY.blend_takes(**wrong)


def test_a_loop_ends_as_it_begins_and_leaves_the_performance_alone(rig, takes):
    scene, tracked = bpy.context.scene, points(takes.take_of(rig).face.action)
    scene.frame_set(5)
    begin = read_pose(rig)
    EFFIGY.loop_range(frames="RANGE", first=5, last=11, count=3, fade=3)
    assert points(takes.take_of(rig).face.action) == tracked
    loop = takes.take_of(rig, "Tracked performance loop")
    assert (loop.face.frame_start, loop.face.frame_end) == (5, 23) and loop.head.repeat == 3
    for frame in (11, 17, 23):
        scene.frame_set(frame)
        pose = read_pose(rig)
        assert np.allclose(pose["expression"], begin["expression"], atol=1e-4), frame
        assert np.allclose(pose["root"], begin["root"], atol=1e-4), frame
    with pytest.raises(RuntimeError, match="in which frames"):
        EFFIGY.loop_range()


def test_a_scaled_strip_that_was_moved_is_addressed_by_the_scenes_frames(rig, takes):
    for target in (rig.mesh.data.shape_keys, rig.armature):
        strip = target.animation_data.nla_tracks[-1].strips[0]
        strip.scale, strip.frame_start_ui = 2.0, 101
    scene = bpy.context.scene
    scene.frame_set(109)
    before = read_pose(rig)["expression"]
    EFFIGY.hold_lids(frames="RANGE", first=107, last=111, ease=0)
    scene.frame_set(109)
    lid = rig.expression_names.index("eyeBlinkLeft")
    assert read_pose(rig)["expression"][lid] == pytest.approx(1, abs=1e-4)
    scene.frame_set(115)
    assert read_pose(rig)["expression"][lid] == pytest.approx(make_track().expression[7, lid], abs=1e-4)
    assert before[lid] < 0.9


def test_a_change_fades_over_the_scenes_frames_in_a_scaled_strip(rig, takes):
    for target in (rig.mesh.data.shape_keys, rig.armature):
        target.animation_data.nla_tracks[-1].strips[0].scale = 4.0
    smile = lambda frame: takes.slider_channel(rig, takes.take_of(rig), "mouthSmileLeft").sample(np.array((frame,)))[0]
    before = [smile(frame) for frame in (13.0, 17.0)]
    EFFIGY.scale_performance(factor=2.0, frames="RANGE", first=9, last=41, fade=8)
    assert smile(13.0) == pytest.approx(1.5 * before[0], abs=0.02)
    assert smile(17.0) == pytest.approx(2 * before[1], abs=1e-4)


def test_what_cannot_be_done_is_said(rig):
    for operator, settings, message in (
        (EFFIGY.simplify_performance, {"take": "none"}, "has no take “none”"),
        (EFFIGY.smooth_performance, {"only": "wings"}, "choose other parts"),
        (EFFIGY.smooth_performance, {"frames": "RANGE", "first": 300, "last": 400}, "lies outside"),
        (EFFIGY.smooth_performance, {"frames": "RANGE", "first": 9, "last": 3}, "before it begins"),
        (EFFIGY.blend_takes, {}, "no other take"),
    ):
        with pytest.raises(RuntimeError, match=message):
            operator(**settings)


def test_a_rig_without_a_performance_is_told_so():
    made = make_rig()
    bpy.context.view_layer.objects.active = made.armature
    with pytest.raises(RuntimeError, match="has no performance"):
        EFFIGY.simplify_performance()


def test_lids_of_a_head_without_named_expressions_are_held_by_arkits_channel(takes):
    """The take of a FLAME head has no keys of `eyeBlinkLeft`."""
    made = make_rig("flame")
    bpy.context.view_layer.objects.active = made.armature
    add_flame_take(made)
    EFFIGY.hold_lids(frames="RANGE", first=4, last=8, ease=1)
    for frame, shut in ((2, 0.0), (6, 1.0), (11, 0.0)):
        bpy.context.scene.frame_set(frame)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        keys = made.mesh.data.shape_keys.evaluated_get(depsgraph).key_blocks
        assert keys["eyeBlinkLeft"].value == pytest.approx(shut, abs=1e-5)
    with pytest.raises(RuntimeError, match="no left and right"):
        EFFIGY.mirror_performance()


def add_flame_take(made) -> None:
    from dataclasses import replace

    performance = rigging().performance
    performance.apply_track(made, replace(make_track(), head_fingerprint=made.head_fingerprint))
