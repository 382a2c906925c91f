"""An avatar with a baked model is played in Blender's process: the same splats as the worker's, at once, without it."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from engine_scenes import add_rig, session
from test_extension_screen import Layout
from test_viewport_live import bone, constraint, driver, key_value, settle, update, viewpoint
from viewport_scenes import read_pose, splats_of, view_camera, viewport


@pytest.fixture(autouse=True)
def reset(effigy):
    viewport("live").state.reset()
    yield
    viewport("live").state.reset()


@pytest.fixture
def cat(engine_avatars):
    return add_rig(engine_avatars / "cat.effigy")


@pytest.fixture
def no_worker(monkeypatch):
    def refuse():
        raise AssertionError("the worker was asked")

    monkeypatch.setattr(session(), "client", refuse)


def played(rig):
    avatar = update()[rig.armature.name]
    assert avatar.fresh and avatar.error is None and avatar.source is viewport("avatar_state").Source.PLAYER
    return avatar.splats


def view_words(module):
    layout = Layout()
    module("blender_addon.panels.view_panel").EFFIGY_PT_view.draw(SimpleNamespace(layout=layout), bpy.context)
    return layout.words


@pytest.mark.parametrize("pose", [key_value, bone, driver, constraint])
def test_every_pose_is_shown_in_the_redraw_that_reads_it(cat, no_worker, pose):
    before = played(cat)
    pose(cat)
    after = played(cat)
    assert np.abs(after.means - before.means).max() > 0.005


def test_shoulders_of_an_avatar_that_the_worker_evaluates_have_a_bone_and_a_switch(
    cat, engine_avatars, tmp_path, module
):
    """One of graph U-Nets, which has no baked model."""
    content = (engine_avatars / "ann.effigy").read_bytes()
    length = int.from_bytes(content[:8], "little")
    tensors, path = json.loads(content[8 : 8 + length]), tmp_path / "ann.effigy"
    numbers, begin = np.zeros((6, 3), np.float16).tobytes(), len(content) - 8 - length
    tensors["baked.bust_means"] = {"dtype": "F16", "shape": [6, 3], "data_offsets": [begin, begin + len(numbers)]}
    text = json.dumps(tensors).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :] + numbers)
    avatars, players = module("blender_addon.avatars"), module("blender_addon.player.players")
    assert not players.has_player(path) and players.has_bust(path)
    assert not players.has_bust(engine_avatars / "ann.effigy") and not players.has_bust(tmp_path / "gone.effigy")
    for file, torso in ((engine_avatars / "ann.effigy", None), (path, "torso")):
        avatars.set_avatar(cat, file, avatars.AvatarInfo(cat.head_name, cat.head_fingerprint, cat.base_identity, 1, 64))
        assert cat.torso_bone == torso
    live = viewport("live")
    nothing = viewport("avatar_state").Source.NONE
    shown = SimpleNamespace(file=("key", path), error=None, source=nothing, fresh=False, unfilmed=False)
    words = []
    for avatar in (shown, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(live, "state_of", lambda _, avatar=avatar: avatar)
            words.append(view_words(module))
    assert "Shoulders" in words[0] and "Shoulders" not in words[1]


def test_the_panel_says_what_is_seen(cat, no_worker, module):
    assert "Played in Blender" not in view_words(module)
    played(cat)
    words = view_words(module)
    assert "Played in Blender, without the backend" in words and "never filmed" not in words


def test_the_panel_says_that_a_face_was_never_filmed(cat, no_worker, module, monkeypatch):
    monkeypatch.setattr(module("blender_addon.player.evaluate").Player, "distance", lambda self, pose: 2.6)
    played(cat)
    assert "This face was never filmed: it is drawn from the rig." in view_words(module)


def test_the_panel_offers_to_make_networks_playable(engine_avatars, module):
    ann = add_rig(engine_avatars / "ann.effigy")
    settle(ann)
    words = view_words(module)
    assert "Computed by the backend" in words and "Make Playable without Backend" in words


def apply_transforms(rig):
    """As *Apply ▸ All Transforms* on the mesh."""
    rig.mesh.rotation_euler, rig.mesh.scale = (0.3, 0.2, 0.1), (2, 2, 2)
    bpy.context.view_layer.update()
    rig.mesh.data.transform(rig.mesh.matrix_basis, shape_keys=True)
    rig.mesh.matrix_basis.identity()


@pytest.mark.parametrize("change", [key_value, bone, apply_transforms])
def test_the_splats_are_those_of_the_worker(cat, engine_avatars, change, module):
    cat.armature.location, cat.armature.rotation_euler = (0.3, -1, 2), (0.2, 0.4, 0.9)
    change(cat)
    bpy.context.scene.camera = bpy.data.objects.new("eye", bpy.data.cameras.new("eye"))
    bpy.context.scene.collection.objects.link(bpy.context.scene.camera)
    bpy.context.scene.camera.location = 0.3, -2.0, 2.1
    bpy.context.scene.camera.rotation_euler = np.pi / 2, 0, 0
    camera = view_camera()
    expected = splats_of(cat, engine_avatars / "cat.effigy", camera)
    depsgraph = bpy.context.evaluated_depsgraph_get()
    player = module("blender_addon.player.players").player_of(cat, engine_avatars / "cat.effigy", depsgraph)
    seen_from = viewport("viewpoint").Viewpoint.from_view_matrix(camera.view, camera.orthographic)
    answer = player.splats(read_pose(cat).message(), seen_from.message())
    found = viewport("splats").Splats.from_answer(answer, np.eye(4))
    assert np.abs(found.means - expected.means).max() < 1e-5
    assert np.abs(found.colors - expected.colors).max() < 1 / 255
    assert np.abs(found.covariances - expected.covariances).max() < 1e-2 * np.abs(expected.covariances).max()


def test_sculpted_shape_keys_are_followed_when_sculpting_ends(cat, no_worker):
    cat.key_blocks["jawForward"].value = 1.0
    before = played(cat)
    bpy.context.view_layer.objects.active = cat.mesh
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.context.view_layer.update()
    bpy.ops.object.mode_set(mode="OBJECT")
    for point in cat.key_blocks["jawForward"].data:
        point.co.z += 0.02
    bpy.context.view_layer.update()
    after = played(cat)
    assert np.abs(after.means - before.means).max() == pytest.approx(0.02, abs=0.002)


def test_colours_follow_a_still_view(cat, no_worker):
    before = played(cat)
    live = viewport("live")
    live.state.views[1].moved_at = live.state.avatars[cat.uid].moved_at = -np.inf
    update(viewpoint(0.5))
    live.state.views[1].moved_at = -np.inf
    after = update(viewpoint(0.5))[cat.armature.name].splats
    assert np.abs(after.colors - before.colors).max() > 1e-3


def test_an_avatar_without_a_baked_model_is_evaluated_by_the_worker(engine_avatars):
    ann = add_rig(engine_avatars / "ann.effigy")
    avatar = update()[ann.armature.name]
    assert avatar.splats is None and avatar.requested is not None


def test_an_avatar_of_networks_is_made_playable_in_a_file_of_its_own(engine_avatars, tmp_path, module, monkeypatch):
    networks = tmp_path / "ann.effigy"
    shutil.copyfile(engine_avatars / "ann.effigy", networks)
    ann = add_rig(networks)
    (tmp_path / "ann_playable.effigy").write_bytes(b"the artist's")
    tasks, jobs = module("blender_addon.tasks"), []

    def start(title, kind, params, build, message):
        """The job is done at once."""
        jobs.append((kind, params))
        shutil.copyfile(engine_avatars / "cat.effigy", params["out"])
        return tasks.start_local(title, lambda: build({}))

    monkeypatch.setattr(tasks, "start", start)
    assert bpy.ops.effigy.make_playable(wait=True) == {"FINISHED"}
    out = tmp_path / "ann_playable-2.effigy"
    assert jobs == [("bake", {"avatar": str(networks), "out": str(out)})]
    assert module("blender_addon.avatars").avatar_path(ann.armature) == out
    assert (tmp_path / "ann_playable.effigy").read_bytes() == b"the artist's"
    played(ann)
    with pytest.raises(RuntimeError, match="plays ann_playable-2.effigy by itself already"):
        bpy.ops.effigy.make_playable()
    ann.armature.effigy.avatar = str(networks)
    with pytest.raises(RuntimeError, match="keeps the networks: choose another name"):
        bpy.ops.effigy.make_playable(filepath=str(networks))


def test_networks_replace_their_bake_once_it_is_still_if_they_are_wanted(engine_avatars, tmp_path, module, monkeypatch):
    live, source = viewport("live"), viewport("avatar_state").Source
    paths = {name: tmp_path / f"{name}.effigy" for name in ("anna", "anna_playable")}
    for path, made in zip(paths.values(), ("ann.effigy", "cat.effigy"), strict=True):
        shutil.copyfile(engine_avatars / made, path)
    players = module("blender_addon.player.players")
    read = players.read_baked

    def baked(path):
        found = read(path)
        return found and replace(found, distilled=True)

    monkeypatch.setattr(players, "read_baked", baked)
    anna = add_rig(paths["anna_playable"])
    scene, name = bpy.context.scene.effigy_view, anna.armature.name

    def still():
        time.sleep(live.SETTLE_SECONDS + 0.05)
        return settle(anna)

    assert "Networks when Still" not in view_words(module)
    update()
    # A file beside the bake is not looked at unless it was used on this computer before.
    scene.networks = True
    assert still().source is source.DISTILLED and "Networks when Still" not in view_words(module)
    module("blender_addon.trusted_paths").trust(paths["anna"])
    still()
    update()
    avatar = still()
    assert (
        avatar.source is source.NETWORKS and avatar.requested.networks and "Networks when Still" in view_words(module)
    )
    networks = avatar.splats
    # A new pose is played at once, and an answer that is late is not shown.
    anna.key_blocks["jawOpen"].value = 0.5
    avatar = update()[name]
    assert avatar.fresh and avatar.source is source.DISTILLED
    live._on_splats(anna.uid, replace(avatar.requested), {}, np.eye(4))
    assert avatar.source is source.DISTILLED
    anna.key_blocks["jawOpen"].value = 0.0
    update()
    still()
    update()
    avatar = still()
    assert avatar.source is source.NETWORKS and np.array_equal(avatar.splats.colors, networks.colors)
    scene.networks = False
    update()
    assert still().source is source.DISTILLED


def test_a_bake_goes_on_while_its_networks_cannot_be_computed(cat, module):
    live, source = viewport("live"), viewport("avatar_state").Source
    played(cat)
    avatar = live.state_of(cat)
    avatar.source, bpy.context.scene.effigy_view.networks = source.DISTILLED, True
    live._on_error(cat.uid, "There is no backend.")
    key_value(cat)
    assert update()[cat.armature.name].fresh and avatar.error == "There is no backend."
    words = view_words(module)
    assert "There is no backend." in words and source.PLAYER.value in words


def test_what_was_baked_of_networks_is_said_to_be(cat, no_worker, module):
    players = module("blender_addon.player.players")
    played(cat)
    for kept in (players._files, players._players):
        kept.clear()
    read = players.read_baked
    players.read_baked = lambda path: replace(read(path), distilled=True)
    try:
        key_value(cat)
        assert update()[cat.armature.name].source is viewport("avatar_state").Source.DISTILLED
    finally:
        players.read_baked = read
        players._files.clear()


def test_an_avatar_that_replaces_another_is_shown_at_once(cat, engine_avatars):
    source = viewport("avatar_state").Source
    before = played(cat)
    cat.armature.effigy.avatar = str(engine_avatars / "ann.effigy")
    assert settle(cat).source is source.WORKER
    assert settle(cat).splats is not before
    cat.armature.effigy.avatar = str(engine_avatars / "cat.effigy")
    assert np.array_equal(played(cat).means, before.means)


def test_a_damaged_file_gives_a_sentence(cat, tmp_path, engine_avatars, module):
    content = bytearray((engine_avatars / "cat.effigy").read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    content[start : start + 4000] = b"\xff" * 4000
    (tmp_path / "bad.effigy").write_bytes(content)
    with pytest.raises(module("blender_addon.errors").EffigyError, match="damaged"):
        module("blender_addon.player.players").player_of(
            cat, tmp_path / "bad.effigy", bpy.context.evaluated_depsgraph_get()
        )
