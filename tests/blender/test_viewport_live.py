"""The splats follow the rig through Blender's evaluation, the newest pose first, and leave nothing behind."""

from __future__ import annotations

import ctypes
import gc
import importlib
import time
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from engine_scenes import PACKAGE, add_rig, session
from viewport_scenes import in_gpu, viewport


@pytest.fixture(autouse=True)
def forgotten(effigy):
    viewport("live").forget()
    yield
    viewport("live").baked = None
    viewport("live").forget()


@pytest.fixture
def ann(engine_avatars):
    return add_rig(engine_avatars / "ann.effigy")


def space():
    return next(area.spaces.active for screen in bpy.data.screens for area in screen.areas if area.type == "VIEW_3D")


def eye(angle=0.0, distance=1.0):
    place = np.array((np.sin(angle), -np.cos(angle), 0)) * distance
    return viewport("live").Eye(place, -place / distance, False)


def look(eye_now=None, view=1):
    """As a 3D View does when it begins to draw; the actors by their armature's name."""
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    context = SimpleNamespace(
        scene=bpy.context.scene,
        space_data=space(),
        view_layer=SimpleNamespace(depsgraph=depsgraph, objects=bpy.context.view_layer.objects),
    )
    return {rig.armature.name: actor for rig, actor in viewport("live").look(context, view, eye_now or eye())}


def settle(rig, eye_now=None, seconds=60):
    """Look and pump until the splats are of the pose and nothing is on its way."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        actor = look(eye_now)[rig.armature.name]
        if actor.fresh and actor.shown is actor.asked and not session().client().busy:
            return actor
        assert actor.error is None
        session().client().pump()
        time.sleep(0.01)
    raise AssertionError("The splats did not come.")


def key_value(rig):
    rig.key_blocks["jawOpen"].value = 0.8


def bone(rig):
    rig.pose_bone("neck").rotation_quaternion = 0.95, 0.0, 0.3, 0.0


def driver(rig):
    curve = rig.key_blocks["jawOpen"].driver_add("value")
    curve.driver.expression = "0.6"


def keyframe(rig):
    for frame, value in ((1, 0.0), (10, 0.9)):
        rig.key_blocks["jawOpen"].value = value
        rig.key_blocks["jawOpen"].keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_set(10)


def strip(rig):
    keyframe(rig)
    data = rig.mesh.data.shape_keys.animation_data
    action = data.action
    track = data.nla_tracks.new()
    made = track.strips.new("strip", 5, action)
    if hasattr(made, "action_slot") and made.action_slot is None:
        made.action_slot = action.slots[0]
    data.action = None
    bpy.context.scene.frame_set(14)


def constraint(rig):
    target = bpy.data.objects.new("target", None)
    target.rotation_euler = 0.2, 0.3, 0.1
    bpy.context.scene.collection.objects.link(target)
    made = rig.pose_bone("neck").constraints.new("COPY_ROTATION")
    made.target = target


@pytest.mark.parametrize("pose", [key_value, bone, driver, keyframe, strip, constraint])
def test_whatever_poses_the_rig_moves_the_splats(ann, pose):
    before = settle(ann).splats
    pose(ann)
    after = settle(ann).splats
    assert after is not before and np.abs(after.means - before.means).max() > 0.005


def test_a_parent_that_moves_carries_the_splats_at_once_and_asks_for_no_others(ann):
    settle(ann)
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    ann.armature.parent = parent
    actor = settle(ann)
    before, version = actor.splats, actor.version
    parent.location, parent.scale = (0.001, 0.0, 0.0005), (1.0001, 1.0001, 1.0001)
    actor = look()[ann.armature.name]
    means, _ = viewport("splats").carried(actor.splats, actor.motion)
    assert actor.splats is before and actor.version == version and actor.fresh
    assert np.abs(means - (before.means * 1.0001 + (0.001, 0, 0.0005))).max() < 1e-5


def test_scrubbing_never_queues_and_ends_at_the_newest_pose(ann):
    settle(ann)
    for value in np.linspace(0, 1, 60):
        ann.key_blocks["jawOpen"].value = value
        look()
    assert len(session().client()._state.pending) <= 1
    session().client().pump()
    scrubbed = viewport("live").actor_of(ann.armature).version
    actor = settle(ann)
    # One was on its way, one waited, and the colours of a view that stands still may be asked for once more.
    assert actor.version - scrubbed <= 3
    assert viewport("live").key_of(actor.pose) == actor.shown.key and ann.key_blocks["jawOpen"].value == 1


def test_colours_follow_the_view_once_it_stands_still(ann):
    live = viewport("live")
    actor = settle(ann)
    version = actor.version
    for angle in np.linspace(0, 0.2, 5):
        look(eye(angle))
    assert actor.asked is actor.shown
    time.sleep(live.SETTLED + 0.05)
    assert settle(ann, eye(0.2)).version == version + 1
    settle(ann, eye(0.2))
    assert actor.version == version + 1


@pytest.mark.parametrize("nearer", [True, False], ids=["nearer", "orthographic"])
def test_colours_follow_a_view_that_goes_nearer_or_becomes_orthographic_along_its_axis(ann, nearer):
    live = viewport("live")
    version = settle(ann).version
    now = eye(distance=0.4) if nearer else live.Eye(eye().place, eye().forward, True)
    look(now)
    time.sleep(live.SETTLED + 0.05)
    assert settle(ann, now).version == version + 1


def test_another_view_takes_over_from_one_that_was_closed(ann):
    actor = settle(ann)
    ann.key_blocks["jawOpen"].value = 0.4
    look(view=1)
    look(view=2)
    # Neither number is that of an open region, as that of a view that is gone; now the second looks from elsewhere.
    time.sleep(viewport("live").SETTLED + 0.05)
    before = settle(ann).asked
    look(eye(0.3), view=2)
    time.sleep(viewport("live").SETTLED + 0.05)
    look(eye(0.3), view=2)
    assert actor.asked is not before


def test_only_anchors_while_moving_and_everything_when_still(ann):
    bpy.context.scene.effigy_view.quality = "ANCHORS"
    whole = len(settle(ann).splats.means)
    time.sleep(viewport("live").SETTLED + 0.05)
    whole = max(whole, len(settle(ann).splats.means))
    ann.key_blocks["jawOpen"].value = 0.5
    look()
    until = time.monotonic() + 30
    while not look()[ann.armature.name].fresh and time.monotonic() < until:
        session().client().pump()
    anchors = len(ann.mesh.data.vertices)
    counts = {len(viewport("live").actor_of(ann.armature).splats.means)}
    time.sleep(viewport("live").SETTLED + 0.05)
    counts.add(len(settle(ann).splats.means))
    assert whole > anchors and counts <= {anchors, whole} and len(settle(ann).splats.means) == whole


def test_what_is_hidden_is_not_shown(ann):
    name = ann.armature.name
    assert name in look()
    ann.mesh.hide_set(True)
    assert name not in look()
    ann.mesh.hide_set(False)
    ann.mesh.hide_viewport = True
    assert name not in look()
    ann.mesh.hide_viewport = False
    layer = bpy.context.view_layer.layer_collection.children[ann.mesh.users_collection[0].name]
    layer.hide_viewport = True
    assert name not in look()
    layer.hide_viewport = False
    assert name in look()
    layer.exclude = True
    assert name not in look()


def test_a_bake_answers_in_the_workers_place(ann):
    live = viewport("live")
    splats = settle(ann).splats
    asked = []
    live.baked = lambda rig, frame, key: asked.append((rig.armature.name, frame)) or splats
    ann.key_blocks["jawOpen"].value = 0.5
    actor = look()[ann.armature.name]
    assert actor.fresh and actor.splats is splats and asked == [(ann.armature.name, bpy.context.scene.frame_current)]
    assert not session().client().busy
    live.baked = lambda rig, frame, key: None
    ann.key_blocks["jawOpen"].value = 0.6
    assert settle(ann).splats is not splats


def test_an_avatar_whose_file_is_gone_says_so_and_shows_the_last(ann, engine_avatars, tmp_path):
    splats = settle(ann).splats
    ann.armature.effigy.avatar = str(tmp_path / "gone.effigy")
    ann.key_blocks["jawOpen"].value = 0.5
    actor = look()[ann.armature.name]
    assert "gone.effigy" in actor.error and actor.splats is splats
    ann.armature.effigy.avatar = str(engine_avatars / "ann.effigy")
    actor.failed_at = -np.inf
    actor.error = None
    assert settle(ann).splats is not splats


def test_the_mesh_is_clear_while_splats_stand_for_it_and_comes_back(ann):
    dress = viewport("mesh_visibility")
    own = [slot.material for slot in ann.mesh.material_slots]
    assert dress.is_undressed(ann)
    dress.dress_all()
    assert all(slot.material.diffuse_color[3] == 0 for slot in ann.mesh.material_slots) and not dress.is_undressed(ann)
    assert [material for material in ann.mesh.data.materials] == own
    ann.armature.effigy_view.mode = "MESH"
    assert dress.is_undressed(ann)
    dress.dress_all()
    assert [slot.material for slot in ann.mesh.material_slots] == own


def test_what_is_drawn_of_deleted_avatars_and_closed_views_is_let_go(ann):
    draw, live = viewport("draw"), viewport("live")
    settle(ann)
    open_view = SimpleNamespace(as_pointer=lambda: 7)
    area = SimpleNamespace(type="VIEW_3D", regions=[open_view])
    window = SimpleNamespace(screen=SimpleNamespace(areas=[area]))
    context = SimpleNamespace(window_manager=SimpleNamespace(windows=[window]))
    uid = ann.armature.session_uid
    draw._views |= {7: draw._View(), 8: draw._View()}
    draw._meshes |= {uid: object(), -1: object()}
    try:
        draw._tidy(context)
        assert set(draw._views) == {7} and set(draw._meshes) == {uid}
        bpy.data.objects.remove(ann.armature)
        draw._tidy(context)
        assert draw._meshes == {} and uid not in live.known()
    finally:
        draw.release()


def handlers_of_ours():
    return sorted(
        f"{name}: {handler.__name__}"
        for name in dir(bpy.app.handlers)
        if isinstance(getattr(bpy.app.handlers, name), list)
        for handler in getattr(bpy.app.handlers, name)
        if handler.__module__.startswith(PACKAGE)
    )


def test_disabling_leaves_no_handler_and_no_splats(ann):
    settle(ann)
    viewport("mesh_visibility").dress_all()
    mesh, before = ann.mesh, handlers_of_ours()
    assert mesh.material_slots[0].link == "OBJECT"
    live, draw = viewport("live"), viewport("draw")
    assert any("_mark_changed" in name for name in before) and len(draw._handles) == 2
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    try:
        assert handlers_of_ours() == [] and draw._handles == [] and live._actors == {}
        assert mesh.material_slots[0].link == "DATA" and mesh.color[3] == 1
        assert not hasattr(bpy.types.Object, "effigy_view") and not bpy.app.timers.is_registered(live._wake)
    finally:
        bpy.ops.preferences.addon_enable(module=PACKAGE)
    assert handlers_of_ours() == before


def test_undo_deletion_and_loading_end_what_was_shown(ann, tmp_path):
    settle(ann)
    bpy.ops.ed.undo_push(message="shown")
    ann.key_blocks["jawOpen"].value = 0.5
    bpy.ops.ed.undo_push(message="posed")
    name = ann.armature.name
    bpy.ops.ed.undo()
    marks = importlib.import_module(f"{PACKAGE}.blender_addon.rig.rig_properties")
    again = marks.find_rig(bpy.data.objects[name])
    assert settle(again).fresh
    bpy.data.objects.remove(again.mesh)
    assert look() == {}
    gone = again.armature.session_uid
    assert gone in viewport("live").known()
    bpy.data.objects.remove(again.armature)
    viewport("live").forget_deleted()
    assert gone not in viewport("live").known()
    bpy.ops.wm.read_homefile(use_empty=True)
    assert viewport("live")._actors == {}


def test_playing_on_and_on_takes_no_more_memory(ann):
    """A short run of what `bench.viewport_memory` does at length.

    Each picture is waited for, as a window does when it swaps its buffers: in software, drawing goes on in threads, and
    on a busy machine dozens of pictures that nobody waits for lie in memory with their textures. Even so one to four
    lie there at a time, 4.7 MB each, as chance has it. So the least of many moments is compared with the least of many
    later ones: what stays behind is in all of these.
    """
    module, splats = viewport("splat_framebuffer"), viewport("splats")
    actor = settle(ann)

    def play():
        picture = module.Picture(False)
        lens = module.Lens(
            np.array(((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, -1.0), (0, 0, 0, 1.0))),
            np.array(((2.0, 0, 0, 0), (0, 2, 0, 0), (0, 0, -1.0002, -0.02), (0, 0, -1, 0))),
            200,
            200,
        )
        sizes = []
        for number in range(640):
            packed = splats.pack([(actor.splats, actor.motion, splats.Look(scale=1 - number * 1e-4))])
            picture.draw(module.Uploaded(packed), lens)
            with picture._frame.bind():
                picture._frame.read_color(0, 0, 1, 1, 4, 0, "FLOAT")
            if number % 10 == 9:
                sizes.append(megabytes_in_use())
        module.release()
        return sizes

    sizes = in_gpu(play)
    # The smallest texture that could stay behind, the order of the splats, would be 26 MB in 400 frames.
    assert min(sizes[40:]) - min(sizes[:24]) < 13, sizes


def megabytes_in_use():
    """Of this process's own, without what the allocator has been given back and keeps."""
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except (OSError, AttributeError):
        pytest.skip("Only Linux says how much memory is in use.")
    return next(int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("RssAnon"))
