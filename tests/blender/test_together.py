"""Several videos of one person: tracked together, they have one head, and an avatar is trained on all of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest


@pytest.fixture
def two_videos(demo_capture, tmp_path):
    """Two rigs of separately tracked captures, the second with another identity, both selected and the first active."""
    rigs = []
    for number, name in enumerate(("first", "second")):
        capture = tmp_path / f"{name}.capture"
        shutil.copytree(demo_capture, capture)
        if number:
            with np.load(capture / "track.npz") as archive:
                arrays = {key: archive[key] for key in archive.files}
            arrays["identity"] = arrays["identity"] + np.float32(0.3)
            np.savez(capture / "track.npz", **arrays)
        bpy.ops.effigy.import_capture(directory=str(capture))
        rigs.append(bpy.context.object)
    _select(*rigs)
    return rigs


def _select(active, *others):
    bpy.ops.object.select_all(action="DESELECT")
    for obj in (active, *others):
        obj.select_set(True)
    bpy.context.view_layer.objects.active = active


def test_videos_tracked_together_get_rigs_with_one_head_and_train_one_avatar(two_videos, tmp_path):
    first, second = two_videos
    keys = [len(first.animation_data.nla_tracks), first.effigy.capture, tuple(first.location)]
    assert bpy.ops.effigy.track_together(wait=True) == {"FINISHED"}
    assert [len(first.animation_data.nla_tracks), first.effigy.capture, tuple(first.location)] == keys
    joined = [obj for obj in bpy.context.selected_objects if obj.type == "ARMATURE"]
    assert len(joined) == 2 and not {first, second} & set(joined)
    active = bpy.context.object
    assert Path(bpy.path.abspath(active.effigy.capture)).name == "first.capture"
    identities = []
    for name in ("first", "second"):
        with np.load(tmp_path / f"{name}.capture" / "track.npz") as archive:
            identities.append(archive["identity"])
    np.testing.assert_array_equal(*identities)
    settings = active.effigy
    settings.minutes, settings.size, settings.device = 0.05, 96, "cpu"
    assert bpy.ops.effigy.train_avatar(wait=True) == {"FINISHED"}
    assert Path(bpy.path.abspath(active.effigy.avatar)).name == "first.effigy"
    assert [Path(path).name for path in json.loads(active.effigy.training)["more"]] == ["second.capture"]


def test_one_video_alone_is_not_tracked_together(two_videos):
    first, _ = two_videos
    _select(first)
    assert not bpy.ops.effigy.track_together.poll()


def test_a_selected_rig_of_another_head_is_not_trained_on(two_videos, module, monkeypatch):
    first, second = two_videos
    training, active = module("blender_addon.training"), module("blender_addon.active")
    asked = []

    def start(title, kind, params, *rest):
        asked.append((kind, params["capture"]))
        raise module("blender_addon.errors").EffigyError("enough")

    monkeypatch.setattr(training.tasks, "start", start)
    with pytest.raises(RuntimeError, match="enough"):
        bpy.ops.effigy.train_avatar()
    assert asked == [("train", str(Path(bpy.path.abspath(first.effigy.capture))))]
    assert active.selected_of_same_head(bpy.context) == []


def test_a_selected_rig_without_footage_is_not_trained_on(two_videos, module):
    first, second = two_videos
    second["effigy_rig"] = first["effigy_rig"]
    (other,) = module("blender_addon.active").selected_of_same_head(bpy.context)
    assert other.armature == second
    second.effigy.capture = ""
    assert module("blender_addon.active").selected_of_same_head(bpy.context) == []


def test_another_video_can_be_imported_while_several_are_tracked(module, monkeypatch, tmp_path):
    importing = module("blender_addon.importing")
    running = [SimpleNamespace(params={"capture": [str(tmp_path / "a.capture"), str(tmp_path / "b.capture")]})]
    monkeypatch.setattr(importing.tasks, "running", lambda: running)
    assert importing._new_capture_folder(tmp_path / "a.mp4") == tmp_path / "a.capture"


def test_a_file_of_cameras_that_is_missing_is_refused_before_anything_is_tracked(two_videos, tmp_path):
    with pytest.raises(RuntimeError, match="transforms.json"):
        bpy.ops.effigy.track_together(cameras=str(tmp_path / "transforms.json"), wait=True)


def test_the_further_captures_of_a_stopped_training_move_with_the_blend(two_videos, module, tmp_path):
    first, _ = two_videos
    stored = {"capture": "//first.capture", "avatar": "//a.effigy", "preset": "draft", "device": "cpu"}
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    first.effigy.training = json.dumps(stored | {"more": ["//second.capture"]})
    (tmp_path / "elsewhere").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "elsewhere" / "shot.blend"))
    rig = module("blender_addon.rig.rig_properties").find_rig(bpy.data.objects[first.name])
    last = module("blender_addon.training").last_training(rig)
    assert last.more == (tmp_path / "second.capture",)
    assert json.loads(rig.armature.effigy.training)["more"] == ["//../second.capture"]


@pytest.mark.parametrize("more", ["//second.capture", [3], {"a": 1}, None])
def test_damaged_further_captures_are_no_stopped_training(two_videos, module, more):
    first, _ = two_videos
    stored = {"capture": "//first.capture", "avatar": "//a.effigy", "preset": "draft", "device": "cpu", "more": more}
    first.effigy.training = json.dumps(stored)
    rig = module("blender_addon.rig.rig_properties").find_rig(first)
    assert module("blender_addon.training").last_training(rig) is None


def test_a_stopped_training_writes_into_no_further_capture_that_only_the_blend_names(two_videos, module, tmp_path):
    first, _ = two_videos
    far = tmp_path / "far"
    shutil.copytree(tmp_path / "second.capture", far / "other.capture")
    (tmp_path / "own").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "own" / "shot.blend"))
    avatar = tmp_path / "own" / "a.effigy"
    avatar.with_name("a.effigy.checkpoint").write_bytes(b"checkpoint")
    stored = {"capture": str(tmp_path / "first.capture"), "avatar": str(avatar), "preset": "draft", "device": "cpu"}
    first.effigy.training = json.dumps(stored | {"more": [str(far / "other.capture")]})
    rig = module("blender_addon.rig.rig_properties").find_rig(first)
    module("blender_addon.trusted_paths").trust(avatar)
    waiting = module("blender_addon.rig_files").unknown(first)
    assert any("other.capture" in path for path in waiting)
    with pytest.raises(module("blender_addon.errors").EffigyError, match=r"other\.capture"):
        module("blender_addon.training").resume(rig)
