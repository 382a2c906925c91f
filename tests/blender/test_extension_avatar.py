"""Training in Blender, and avatar files: adding, packing, losing and relinking them, also on several rigs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest


@pytest.fixture
def project(demo_capture, demo_avatar, tmp_path) -> Path:
    """A temporary folder with the avatar in it."""
    shutil.copyfile(demo_avatar, tmp_path / "anna.effigy")
    return tmp_path


@pytest.fixture
def rig(demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    return module("blender_addon.active").need_rig(bpy.context)


def test_training_puts_its_avatar_on_the_rig(demo_avatar, module):
    info = module("blender_addon.avatars").read_info(demo_avatar)
    assert info.gaussians > 1000 and info.size == 128


def test_an_avatar_is_added_to_the_active_rig(rig, project, module):
    avatars = module("blender_addon.avatars")
    with pytest.raises(Exception, match="has no avatar yet"):
        avatars.avatar_path(rig.armature)
    assert bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy")) == {"FINISHED"}
    assert avatars.avatar_path(rig.armature) == project / "anna.effigy"


def test_an_avatar_without_a_rig_brings_one_of_its_own_person(project, module):
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    rig = module("blender_addon.active").need_rig(bpy.context)
    info = module("blender_addon.avatars").read_info(project / "anna.effigy")
    assert rig.base_identity == pytest.approx(info.identity, abs=1e-6)
    assert module("blender_addon.avatars").avatar_path(rig.armature) == project / "anna.effigy"


def test_shoulders_that_the_footage_shows_come_with_a_bone_and_can_be_hidden(rig, project, module):
    players, pose = module("blender_addon.player.players"), module("blender_addon.rig.pose")
    assert rig.torso_bone == "torso" and players.has_bust(project / "anna.effigy")
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"), new_rig=True)
    own = module("blender_addon.active").need_rig(bpy.context)
    assert own.armature != rig.armature and own.torso_bone == "torso"
    depsgraph = bpy.context.evaluated_depsgraph_get()
    player = players.player_of(own, project / "anna.effigy", depsgraph)
    view, counts = {"view": np.array((0.0, 0.0, 1.0))}, []
    for shown in (True, False):
        own.armature.effigy.show_bust = shown
        counts.append(len(player.splats(pose.read_pose(own, depsgraph).message(), view)["means"]))
    assert counts == [player.baked.gaussians, player.baked.gaussians - len(player.baked.bust.means)]


def test_a_new_rig_of_a_flame_head_says_why_it_needs_the_backend(effigy, module, monkeypatch):
    """Its avatar has neither the faces nor the expressions of the head, whose licence keeps them out of it."""
    preferences, importing = module("blender_addon.preferences"), module("blender_addon.importing")

    def no_backend():
        raise module("blender_addon.errors").EffigyError(preferences.NO_BACKEND)

    monkeypatch.setattr(preferences, "backend_python", no_backend)
    monkeypatch.setattr(preferences, "worker_command", list)
    info = SimpleNamespace(head_name="FLAME", head_fingerprint="0123456789abcdef", identity=np.zeros(300))
    known = set(bpy.data.objects)
    steps = importing._build_for_avatar(bpy.context.scene, Path("anna.effigy"), info)
    with pytest.raises(
        Exception, match="new rig of the head “FLAME” needs the backend.*licence.*press Install Backend"
    ):
        next(steps)
    assert set(bpy.data.objects) == known


def test_several_people_live_in_one_file(rig, project, module):
    shutil.copyfile(project / "anna.effigy", project / "ben.effigy")
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    bpy.ops.effigy.add_avatar(filepath=str(project / "ben.effigy"), new_rig=True)
    rigs = list(module("blender_addon.rig.rig_properties").find_rigs(bpy.context.scene.objects))
    paths = {module("blender_addon.avatars").avatar_path(rig.armature).name for rig in rigs}
    assert len(rigs) == 2 and paths == {"anna.effigy", "ben.effigy"}


def test_a_new_head_stands_beside_those_that_are_there_with_its_camera(rig, project, demo_capture, module):
    tasks, find_rigs = module("blender_addon.tasks"), module("blender_addon.rig.rig_properties").find_rigs
    assert rig.mesh.data.shape_keys.name == "demo face"
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"), new_rig=True)
    assert "The rig stands beside" in tasks.all_tasks()[-1].message
    bpy.ops.effigy.import_capture(directory=str(demo_capture))
    assert "The rig stands beside" in tasks.all_tasks()[-1].message
    bpy.context.view_layer.update()
    heads = [made.armature for made in find_rigs(bpy.context.scene.objects)]
    places = [np.array((head.matrix_world @ head.pose.bones["root"].matrix).translation) for head in heads]
    assert len(places) == 3
    for number, place in enumerate(places):
        assert all(np.linalg.norm(place - other) > 0.3 for other in places[:number])
    cameras = [np.array(obj.matrix_world.translation) for obj in bpy.data.objects if obj.type == "CAMERA"]
    # What the second camera sees is what the first one sees.
    assert cameras[1] - cameras[0] == pytest.approx(places[2] - places[0], abs=1e-5)
    # There is room again where a head has been moved away.
    heads[0].location.z += 2
    bpy.context.view_layer.update()
    room_beside = module("blender_addon.rig.room").room_beside
    assert room_beside(rig, find_rigs(bpy.context.scene.objects)) == 0
    bpy.context.view_layer.objects.active = heads[1]
    bpy.ops.object.mode_set(mode="EDIT")
    for bone in list(heads[1].data.edit_bones):
        heads[1].data.edit_bones.remove(bone)
    bpy.ops.object.mode_set(mode="OBJECT")
    assert room_beside(rig, find_rigs(bpy.context.scene.objects)) == 0


@pytest.mark.parametrize("content", [b"", b"no avatar at all", None])
def test_a_file_that_is_no_avatar_is_refused_with_a_sentence(rig, content, tmp_path):
    path = tmp_path / "broken.effigy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuntimeError, match="broken.effigy"):
        bpy.ops.effigy.add_avatar(filepath=str(path))
    assert rig.armature.effigy.avatar == ""


def test_a_lost_avatar_is_reported_when_the_file_is_opened_and_can_be_relinked(rig, project, module, capsys):
    avatars = module("blender_addon.avatars")
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "shot.blend"))
    name = rig.armature.name
    assert bpy.data.objects[name].effigy.avatar == "//anna.effigy"
    (project / "moved").mkdir()
    (project / "anna.effigy").rename(project / "moved" / "anna.effigy")
    capsys.readouterr()
    bpy.ops.wm.open_mainfile(filepath=str(project / "shot.blend"))
    assert "press Relink" in capsys.readouterr().out
    armature = bpy.data.objects[name]
    assert list(avatars.missing(bpy.context.scene)) == [armature]
    with pytest.raises(Exception, match="press Relink"):
        avatars.avatar_path(armature)
    bpy.ops.effigy.relink_avatar(filepath=str(project / "moved" / "anna.effigy"))
    assert avatars.avatar_path(armature) == project / "moved" / "anna.effigy"
    assert armature.effigy.avatar == "//moved/anna.effigy"


def test_relinking_changes_the_active_rig_and_those_that_miss_the_same_file_and_no_others(
    rig, project, demo_capture, module
):
    find_rigs = module("blender_addon.rig.rig_properties").find_rigs
    for _ in range(2):
        bpy.ops.effigy.import_capture(directory=str(demo_capture))
    anna, twin, ben = (made.armature for made in find_rigs(bpy.context.scene.objects))
    anna.effigy.avatar = twin.effigy.avatar = str(project / "gone" / "anna.effigy")
    ben.effigy.avatar = str(project / "gone" / "ben.effigy")
    found = project / "anna.effigy"
    bpy.context.view_layer.objects.active = anna
    bpy.ops.effigy.relink_avatar(filepath=str(found))
    paths = [Path(bpy.path.abspath(armature.effigy.avatar)) for armature in (anna, twin, ben)]
    assert paths == [found, found, project / "gone" / "ben.effigy"]
    shutil.copyfile(found, project / "ben.effigy")
    bpy.context.view_layer.objects.active = ben
    bpy.ops.effigy.relink_avatar(filepath=str(project / "ben.effigy"))
    paths = [Path(bpy.path.abspath(armature.effigy.avatar)) for armature in (anna, twin, ben)]
    assert paths == [found, found, project / "ben.effigy"]


def test_a_packed_avatar_does_not_need_its_file_and_survives_saving_and_appending(rig, project, module):
    avatars = module("blender_addon.avatars")
    content = (project / "anna.effigy").read_bytes()
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    bpy.ops.effigy.pack_avatar()
    (project / "anna.effigy").unlink()
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "shot.blend"))
    name = rig.armature.name
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(str(project / "shot.blend")) as (source, target):
        target.objects = [name]
    armature = target.objects[0]
    assert avatars.avatar_path(armature).read_bytes() == content
    bpy.context.scene.collection.objects.link(armature)
    bpy.ops.wm.open_mainfile(filepath=str(project / "shot.blend"))
    bpy.ops.effigy.unpack_avatar()
    assert (project / "anna.effigy").read_bytes() == content
    assert bpy.data.objects[name].effigy.avatar == "//anna.effigy" and not bpy.data.texts


def test_a_packed_avatar_that_is_replaced_leaves_the_file_unless_another_rig_uses_it(rig, project):
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    bpy.ops.effigy.pack_avatar()
    twin = rig.armature.copy()
    assert len(bpy.data.texts) == 1 and twin.effigy.packed == rig.armature.effigy.packed
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    assert len(bpy.data.texts) == 1 and rig.armature.effigy.packed is None
    bpy.data.objects.remove(twin)
    bpy.ops.effigy.pack_avatar()
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    assert [text.users for text in bpy.data.texts] in ([], [0])


def test_a_packed_avatar_that_was_edited_is_reported(rig, project, module):
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    bpy.ops.effigy.pack_avatar()
    rig.armature.effigy.packed.lines[0].body = "???"
    with pytest.raises(Exception, match="was edited"):
        module("blender_addon.avatars").avatar_path(rig.armature)


def test_a_linked_rig_finds_its_avatar_beside_its_own_file(rig, project, tmp_path_factory, module):
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "character.blend"))
    name = rig.armature.name
    bpy.ops.wm.read_homefile(use_empty=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path_factory.mktemp("shots") / "shot.blend"))
    with bpy.data.libraries.load(str(project / "character.blend"), link=True) as (source, target):
        target.objects = [name]
    assert module("blender_addon.avatars").avatar_path(target.objects[0]) == project / "anna.effigy"


def test_an_avatar_survives_renaming_copying_and_undo(rig, project, module):
    avatars = module("blender_addon.avatars")
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    copy = rig.armature.copy()
    copy.name = "someone else"
    assert avatars.avatar_path(copy) == project / "anna.effigy"
    rig.armature.effigy.avatar = ""
    assert avatars.avatar_path(copy) == project / "anna.effigy"


def test_a_stopped_training_is_resumed_with_what_it_was_started_with(rig, tmp_path, module):
    tasks, training, session = (module(f"blender_addon.{name}") for name in ("tasks", "training", "worker.session"))
    shutil.copytree(Path(bpy.path.abspath(rig.armature.effigy.capture)), tmp_path / "anna.capture")
    settings = rig.armature.effigy
    settings.capture, settings.size, settings.device, settings.minutes = str(tmp_path / "anna.capture"), 96, "cpu", 3.0
    assert not training.can_resume(rig)
    task = training.train(rig)
    with pytest.raises(RuntimeError, match="being trained already"):
        bpy.ops.effigy.train_avatar()
    until = time.monotonic() + 120
    while (task.job.done < 10 or task.job.preview is None) and time.monotonic() < until and not task.finished:
        session.client().pump()
        time.sleep(0.02)
    assert task.job.preview is not None, task.message
    bpy.ops.effigy.cancel_job(index=tasks.all_tasks().index(task))
    assert tasks.wait(task, 60).state == "cancelled"
    assert training.can_resume(rig) and not rig.armature.effigy.avatar
    # What the panel says meanwhile is of the next training, not of this one.
    settings.size = 256
    resumed = training.resume(rig)
    assert resumed.params["size"] == 96 and resumed.params["resume"] is True
    until = time.monotonic() + 120
    while not resumed.job.done and time.monotonic() < until and not resumed.finished:
        session.client().pump()
        time.sleep(0.02)
    assert not resumed.finished, resumed.message
    resumed.cancel()
    assert tasks.wait(resumed, 60).state == "cancelled"


def test_training_a_rig_without_its_capture_is_refused_with_a_sentence(rig, tmp_path):
    rig.armature.effigy.capture = str(tmp_path / "gone.capture")
    with pytest.raises(RuntimeError, match="gone.capture"):
        bpy.ops.effigy.train_avatar()
    rig.armature.effigy.capture = ""
    with pytest.raises(RuntimeError, match="which capture"):
        bpy.ops.effigy.train_avatar()


def test_the_refined_track_replaces_the_tracked_performance(rig, demo_capture, module, tmp_path):
    assert not bpy.ops.effigy.take_refined_track.poll()
    capture = tmp_path / "anna.capture"
    shutil.copytree(demo_capture, capture)
    with np.load(demo_capture / "track.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["rotations"][:, 2, 0] += 0.1
    np.savez(capture / "track_refined.npz", **arrays)
    rig.armature.effigy.capture = str(capture)
    bpy.context.scene.frame_set(2)
    jaw = rig.armature.pose.bones["jaw"]
    before = jaw.rotation_quaternion.copy()
    assert bpy.ops.effigy.take_refined_track() == {"FINISHED"}
    bpy.context.scene.frame_set(2)
    jaw = module("blender_addon.active").need_rig(bpy.context).armature.pose.bones["jaw"]
    assert jaw.rotation_quaternion.rotation_difference(before).angle == pytest.approx(0.1, abs=0.02)


def test_the_avatar_refines_the_track_of_its_footage(rig, project, module, demo_capture, tmp_path):
    assert not bpy.ops.effigy.refine_track.poll()
    capture = tmp_path / "anna.capture"
    shutil.copytree(demo_capture, capture)
    with np.load(demo_capture / "track.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    rig.armature.effigy.capture = str(capture)
    bpy.ops.effigy.add_avatar(filepath=str(project / "anna.effigy"))
    stored = (capture / "track.npz").read_bytes()
    assert bpy.ops.effigy.refine_track(wait=True) == {"FINISHED"}
    with np.load(capture / "track_refined.npz") as archive:
        refined = {name: archive[name] for name in archive.files}
    assert (capture / "track.npz").read_bytes() == stored
    moved = np.abs(refined["expression"] - arrays["expression"]).max(1)
    good = arrays["flags"] == 0
    assert (moved[good] > 0).all() and (moved[~good] == 0).all()
    bpy.context.scene.frame_set(2)
    rig = module("blender_addon.active").need_rig(bpy.context)
    name = rig.expression_names[0]
    value = rig.mesh.data.shape_keys.key_blocks[name].value
    assert value == pytest.approx(refined["expression"][1, 0], abs=1e-4)
