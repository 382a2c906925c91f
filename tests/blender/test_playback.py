"""Baked playback: what it answers is what the worker would, only where the animation still is what was baked."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import bpy
import numpy as np
import pytest
from engine_scenes import add_rig, session, stage


@pytest.fixture
def viewport(module):
    return {name: module(f"blender_addon.viewport.{name}") for name in ("baking", "cache", "splats", "splats_request")}


@pytest.fixture
def rig(engine_avatars):
    """Six frames of a smile that grows while the head turns."""
    made = stage(engine_avatars / "ann.effigy")
    scene, smile = bpy.context.scene, made.key_blocks["mouthSmileLeft"]
    scene.frame_start, scene.frame_end = 3, 8
    for frame, value in ((3, 0.0), (8, 1.0)):
        smile.value = value
        smile.keyframe_insert("value", frame=frame)
        made.armature.rotation_euler.z = value
        made.armature.keyframe_insert("rotation_euler", frame=frame)
    scene.frame_set(5)
    yield made
    bpy.ops.effigy.clear_playback.poll() and bpy.ops.effigy.clear_playback()


def answered(rig, viewport, frame: int):
    """What the 3D View would be given at a frame, by the bake."""
    bpy.context.scene.frame_set(frame)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    key = viewport["splats_request"].pose_key(viewport["baking"].read_pose(rig, depsgraph))
    return viewport["cache"].baked_splats(rig, frame, key)


def by_worker(rig, viewport, frame: int):
    bpy.context.scene.frame_set(frame)
    depsgraph, baking = bpy.context.evaluated_depsgraph_get(), viewport["baking"]
    viewpoint = baking.ColorViewpoint(None).in_frame(bpy.context.scene, depsgraph)
    path = Path(bpy.path.abspath(rig.armature.effigy.avatar))
    pose = baking.read_pose(rig, depsgraph)
    request = viewport["splats_request"].SplatsRequest(path, pose, viewpoint)
    answer = session().client().call("avatar.splats", request.message())
    return viewport["splats"].Splats.from_answer(answer, pose.head_motion)


@pytest.mark.parametrize("storage", ["MEMORY", "DISK"])
def test_every_frame_of_the_range_is_answered_as_by_the_worker(rig, viewport, storage):
    bpy.context.scene.effigy.bake_to = storage
    assert bpy.ops.effigy.bake_playback() == {"FINISHED"}
    assert bpy.context.scene.frame_current == 5, "the artist's frame was not given back"
    bake = viewport["cache"].bake_of(rig)
    folder = getattr(bake.frames, "folder", None)
    assert bake.count == 6 and (folder is not None) == (storage == "DISK")
    for frame in (3, 6, 8):
        found, expected = answered(rig, viewport, frame), by_worker(rig, viewport, frame)
        assert np.allclose(found.means, expected.means, atol=1e-6) and np.array_equal(found.motion, expected.motion)
        for name in ("opacities", "colors", "scales", "quaternions"):
            assert np.allclose(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-3), name
    assert answered(rig, viewport, 2) is None and answered(rig, viewport, 9) is None
    bpy.ops.effigy.clear_playback()
    assert answered(rig, viewport, 6) is None and not (folder and folder.exists())
    assert not bpy.ops.effigy.clear_playback.poll()


def test_a_frame_is_read_from_its_bake_and_the_same_one_kept(rig, viewport):
    bpy.ops.effigy.bake_playback()
    keys = viewport["cache"].bake_of(rig).keys
    for frame, key in zip(range(3, 9), keys):
        first = viewport["cache"].baked_splats(rig, frame, key)
        assert first is not None and viewport["cache"].baked_splats(rig, frame, key) is first


def test_what_is_animated_anew_plays_live_and_the_rest_stays_baked(rig, viewport, module):
    bpy.ops.effigy.bake_playback()
    blink = rig.key_blocks["eyeBlinkRight"]
    for frame, value in ((5, 1.0), (6, 0.0), (7, 1.0)):
        blink.value = value
        blink.keyframe_insert("value", frame=frame)
    assert answered(rig, viewport, 6) is None and answered(rig, viewport, 3) is not None
    panel, bake = module("blender_addon.panels.playback_panel"), viewport["cache"].bake_of(rig)
    assert "1 frame has changed since" in panel.describe(rig.armature, bake)
    rig.armature.location.x += 0.3
    assert answered(rig, viewport, 7) is not None, "a head that only goes elsewhere keeps its splats"


def test_another_avatar_is_not_shown_what_was_baked_of_the_first(rig, viewport, engine_avatars, module):
    bpy.ops.effigy.bake_playback()
    rig.armature.effigy.avatar = str(engine_avatars / "ben.effigy")
    assert answered(rig, viewport, 6) is None
    panel = module("blender_addon.panels.playback_panel")
    assert "a different avatar" in panel.describe(rig.armature, viewport["cache"].bake_of(rig))


def test_packing_and_unpacking_an_avatar_keeps_what_was_baked(rig, viewport, tmp_path):
    bpy.ops.effigy.bake_playback()
    bpy.ops.effigy.pack_avatar()
    assert answered(rig, viewport, 4) is not None
    bpy.ops.effigy.unpack_avatar(filepath=str(tmp_path / "ann.effigy"))
    assert answered(rig, viewport, 4) is not None


def test_a_bake_beyond_the_limit_is_refused_before_it_begins(rig, viewport):
    bpy.context.scene.effigy.bake_limit = 10
    bpy.context.scene.frame_end = 2000
    with pytest.raises(RuntimeError, match="the limit is 10 MB: .* frames fit"):
        bpy.ops.effigy.bake_playback()
    assert viewport["cache"].bake_of(rig) is None and bpy.context.scene.frame_current == 5


def test_frames_that_another_bake_has_reserved_count_towards_the_limit(rig, viewport, engine_avatars):
    create, gaussians = viewport["cache"].create, 1000
    room_for_ten = 10 * gaussians * viewport["cache"].BYTES_PER_SPLAT
    create(rig, 1, 6, gaussians, room_for_ten, False)
    other = add_rig(engine_avatars / "ben.effigy")
    with pytest.raises(viewport["cache"].EffigyError, match="4 frames fit"):
        create(other, 1, 5, gaussians, room_for_ten, False)
    assert len(create(other, 1, 4, gaussians, room_for_ten, False).keys) == 4
    viewport["cache"].clear(other)


def test_a_stopped_bake_keeps_what_it_has(rig, viewport, module):
    tasks = module("blender_addon.tasks")
    task = viewport["baking"].bake(bpy.context, [rig], 3, 8)
    until = time.monotonic() + 60
    while task.progress < 0.3 and time.monotonic() < until:
        session().client().pump()
        task.advance(0.001)
    with pytest.raises(RuntimeError, match="already in progress"):
        bpy.ops.effigy.bake_playback()
    task.cancel()
    assert task.state == "cancelled" and bpy.context.scene.frame_current == 5
    assert "What is baked stays" in task.message
    assert 2 <= viewport["cache"].bake_of(rig).count < 6 and answered(rig, viewport, 3) is not None
    assert not viewport["cache"].store.in_progress and task in tasks.all_tasks()


def test_two_avatars_are_baked_together_and_another_file_forgets_them(rig, viewport, engine_avatars):
    second = add_rig(engine_avatars / "ben.effigy")
    bpy.ops.effigy.bake_playback()
    uids = [made.uid for made in (rig, second)]
    assert set(uids) == set(viewport["cache"].store.bakes)
    bpy.ops.wm.read_homefile(use_empty=True)
    assert not viewport["cache"].store.bakes


def test_without_an_avatar_or_a_camera_it_is_a_sentence(rig):
    bpy.context.scene.camera = None
    with pytest.raises(RuntimeError, match="no camera"):
        bpy.ops.effigy.bake_playback()
    rig.armature.effigy.avatar = ""
    with pytest.raises(RuntimeError, match="no avatar in this view layer"):
        bpy.ops.effigy.bake_playback()


def test_a_bake_on_a_disk_that_fills_up_keeps_its_frames_and_says_so(rig, viewport, module, monkeypatch):
    bpy.context.scene.effigy.bake_to = "DISK"
    frames = module("blender_addon.viewport.baked_frames").FramesOnDisk
    store, stored = frames.store, []

    class Full:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            if len(stored) > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._file.write(data[: max(1, len(data) // 2)])

    def counting(self, index, singles, halves):
        stored.append(index)
        if not isinstance(self._file, Full):
            self._file = Full(self._file)
        store(self, index, singles, halves)

    monkeypatch.setattr(frames, "store", counting)
    with pytest.raises(RuntimeError, match="could not be written .*No space left on device.*free some space"):
        bpy.ops.effigy.bake_playback()
    bake = viewport["cache"].bake_of(rig)
    assert bake.count == 3 and bpy.context.scene.frame_current == 5 and not viewport["cache"].store.in_progress
    assert np.allclose(answered(rig, viewport, 5).means, by_worker(rig, viewport, 5).means, atol=1e-6)
    assert answered(rig, viewport, 6) is None and answered(rig, viewport, 8) is None


def test_a_bake_whose_file_was_cut_off_plays_live(rig, viewport):
    bpy.context.scene.effigy.bake_to = "DISK"
    bpy.ops.effigy.bake_playback()
    bake = viewport["cache"].bake_of(rig)
    os.truncate(bake.frames.folder / "frames", bake.frames.gaussians * 34 * 2)
    assert answered(rig, viewport, 4) is not None and answered(rig, viewport, 6) is None and bake.count == 5


def test_the_bake_of_a_deleted_rig_is_freed_by_the_next_one_and_by_clearing(rig, viewport, engine_avatars):
    bpy.ops.effigy.bake_playback()
    cache, uid = viewport["cache"], rig.uid
    bpy.data.batch_remove([rig.mesh, rig.armature])
    assert uid in cache.store.bakes, "an undo may bring the rig back"
    other = add_rig(engine_avatars / "ben.effigy")
    bpy.ops.effigy.bake_playback()
    assert set(cache.store.bakes) == {other.uid}
    bpy.data.batch_remove([other.mesh, other.armature])
    cache.clear_deleted()
    assert not cache.store.bakes


def test_finished_tasks_leave_the_list_and_hold_nothing(rig, module):
    tasks = module("blender_addon.tasks")
    for _ in range(tasks.MOST_FINISHED + 5):
        tasks.wait(tasks.start_local("nothing", lambda: iter([1.0])))
    listed = tasks.all_tasks()
    assert len(listed) <= tasks.MOST_FINISHED + 1
    assert all(task._steps is None and task._build is None for task in listed)
    tasks.clear_finished()


def test_a_worker_that_never_answers_does_not_block_a_bake_for_ever(rig, module, monkeypatch):
    tasks = module("blender_addon.tasks")
    monkeypatch.setattr(tasks, "ANSWER_SECONDS", 0.5)
    pid = session().client().pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(RuntimeError, match="did not answer “avatar.splats” within .* stuck"):
        bpy.ops.effigy.bake_playback()
    monkeypatch.undo()
    assert bpy.ops.effigy.bake_playback() == {"FINISHED"} and session().client().pid != pid


def test_a_bake_goes_on_when_the_worker_is_killed(rig, viewport):
    os.kill(session().client().pid, signal.SIGKILL)
    assert bpy.ops.effigy.bake_playback() == {"FINISHED"}
    assert viewport["cache"].bake_of(rig).count == 6
