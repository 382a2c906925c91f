"""The splats follow the rig as Blender evaluates it, the newest pose comes first, and no resource is leaked."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import bpy
import numpy as np
import pytest
from engine_scenes import PACKAGE, add_rig, session
from test_extension_screen import Layout
from viewport_scenes import in_gpu, viewport


@pytest.fixture(autouse=True)
def reset(effigy):
    viewport("live").state.reset()
    yield
    viewport("live").state.reset()


@pytest.fixture
def ann(engine_avatars):
    return add_rig(engine_avatars / "ann.effigy")


def space():
    return next(area.spaces.active for screen in bpy.data.screens for area in screen.areas if area.type == "VIEW_3D")


def viewpoint(angle=0.0, distance=1.0, orthographic=False):
    position = np.array((np.sin(angle), -np.cos(angle), 0)) * distance
    return viewport("viewpoint").Viewpoint(position, -position / distance, orthographic)


def update(seen_from=None, view=1):
    """What a 3D View does when it begins to draw. Returns the avatars' states by their armatures' names."""
    bpy.context.view_layer.update()
    depsgraph = bpy.context.evaluated_depsgraph_get()
    context = SimpleNamespace(
        scene=bpy.context.scene,
        space_data=space(),
        view_layer=SimpleNamespace(depsgraph=depsgraph, objects=bpy.context.view_layer.objects),
    )
    visible = viewport("live").update_view(context, view, seen_from or viewpoint())
    return {rig.armature.name: avatar for rig, avatar in visible}


def settle(rig, seen_from=None, seconds=60):
    """Updates and pumps until the splats are those of the current pose and no request is pending."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        avatar = update(seen_from)[rig.armature.name]
        if avatar.fresh and avatar.shown is avatar.requested and not session().client().busy:
            return avatar
        assert avatar.error is None
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
def test_every_way_to_pose_the_rig_moves_the_splats(ann, pose):
    before = settle(ann).splats
    pose(ann)
    after = settle(ann).splats
    assert after is not before and np.abs(after.means - before.means).max() > 0.005


def test_a_moving_parent_moves_the_splats_at_once_and_causes_no_request(ann):
    settle(ann)
    parent = bpy.data.objects.new("parent", None)
    bpy.context.scene.collection.objects.link(parent)
    ann.armature.parent = parent
    avatar = settle(ann)
    before, version = avatar.splats, avatar.version
    parent.location, parent.scale = (0.001, 0.0, 0.0005), (1.0001, 1.0001, 1.0001)
    avatar = update()[ann.armature.name]
    means, _ = viewport("splats").moved_with_head(avatar.splats, avatar.motion)
    assert avatar.splats is before and avatar.version == version and avatar.fresh
    assert np.abs(means - (before.means * 1.0001 + (0.001, 0, 0.0005))).max() < 1e-5


def test_an_avatar_whose_mesh_is_shown_instead_is_not_evaluated(ann):
    requested = settle(ann).requested
    ann.armature.effigy_view.mode = "MESH"
    ann.key_blocks["jawOpen"].value = 0.5
    assert update()[ann.armature.name].requested is requested
    ann.armature.effigy_view.mode = "SPLATS"
    assert settle(ann).requested is not requested


def test_scrubbing_never_queues_and_ends_at_the_newest_pose(ann):
    settle(ann)
    for value in np.linspace(0, 1, 60):
        ann.key_blocks["jawOpen"].value = value
        update()
    assert len(session().client()._state.pending) <= 1
    session().client().pump()
    scrubbed = viewport("live").state_of(ann).version
    avatar = settle(ann)
    # One request was in progress, one waited, and the colours of a still view may be requested once more.
    assert avatar.version - scrubbed <= 3
    assert viewport("splats_request").pose_key(avatar.pose) == avatar.shown.key and ann.key_blocks["jawOpen"].value == 1


def test_colours_follow_the_view_once_it_is_still(ann):
    live = viewport("live")
    avatar = settle(ann)
    version = avatar.version
    for angle in np.linspace(0, 0.2, 5):
        update(viewpoint(angle))
    assert avatar.requested is avatar.shown
    time.sleep(live.SETTLE_SECONDS + 0.05)
    assert settle(ann, viewpoint(0.2)).version == version + 1
    settle(ann, viewpoint(0.2))
    assert avatar.version == version + 1


@pytest.mark.parametrize("nearer", [True, False], ids=["nearer", "orthographic"])
def test_colours_follow_a_view_that_moves_nearer_or_becomes_orthographic(ann, nearer):
    live = viewport("live")
    version = settle(ann).version
    now = viewpoint(distance=0.4) if nearer else viewpoint(orthographic=True)
    update(now)
    time.sleep(live.SETTLE_SECONDS + 0.05)
    assert settle(ann, now).version == version + 1


def test_another_view_becomes_active_after_the_active_one_is_closed(ann):
    avatar = settle(ann)
    ann.key_blocks["jawOpen"].value = 0.4
    update(view=1)
    update(view=2)
    # Neither number belongs to an open region, as after a view is closed; now the second view moves.
    time.sleep(viewport("live").SETTLE_SECONDS + 0.05)
    before = settle(ann).requested
    update(viewpoint(0.3), view=2)
    time.sleep(viewport("live").SETTLE_SECONDS + 0.05)
    update(viewpoint(0.3), view=2)
    assert avatar.requested is not before


def test_only_anchors_while_moving_and_all_gaussians_when_still(ann):
    bpy.context.scene.effigy_view.quality = "ANCHORS"
    whole = len(settle(ann).splats.means)
    time.sleep(viewport("live").SETTLE_SECONDS + 0.05)
    whole = max(whole, len(settle(ann).splats.means))
    ann.key_blocks["jawOpen"].value = 0.5
    update()
    until = time.monotonic() + 30
    while not update()[ann.armature.name].fresh and time.monotonic() < until:
        session().client().pump()
    anchors = len(ann.mesh.data.vertices)
    counts = {len(viewport("live").state_of(ann).splats.means)}
    time.sleep(viewport("live").SETTLE_SECONDS + 0.05)
    counts.add(len(settle(ann).splats.means))
    assert whole > anchors and counts <= {anchors, whole} and len(settle(ann).splats.means) == whole


def test_a_hidden_mesh_hides_its_avatar(ann):
    name = ann.armature.name
    assert name in update()
    ann.mesh.hide_set(True)
    assert name not in update()
    ann.mesh.hide_set(False)
    ann.mesh.hide_viewport = True
    assert name not in update()
    ann.mesh.hide_viewport = False
    layer = bpy.context.view_layer.layer_collection.children[ann.mesh.users_collection[0].name]
    layer.hide_viewport = True
    assert name not in update()
    layer.hide_viewport = False
    assert name in update()
    layer.exclude = True
    assert name not in update()


def test_baked_splats_are_used_instead_of_the_workers(ann, monkeypatch):
    cache = viewport("cache")
    splats = settle(ann).splats
    asked = []
    monkeypatch.setattr(
        cache, "baked_splats", lambda rig, frame, key: asked.append((rig.armature.name, frame)) or splats
    )
    ann.key_blocks["jawOpen"].value = 0.5
    avatar = update()[ann.armature.name]
    assert avatar.fresh and avatar.splats is splats and asked == [(ann.armature.name, bpy.context.scene.frame_current)]
    assert not session().client().busy
    monkeypatch.setattr(cache, "baked_splats", lambda rig, frame, key: None)
    ann.key_blocks["jawOpen"].value = 0.6
    assert settle(ann).splats is not splats


def test_an_avatar_whose_file_is_gone_reports_it_and_keeps_the_last_splats(ann, engine_avatars, tmp_path):
    splats = settle(ann).splats
    ann.armature.effigy.avatar = str(tmp_path / "gone.effigy")
    ann.key_blocks["jawOpen"].value = 0.5
    avatar = update()[ann.armature.name]
    assert "gone.effigy" in avatar.error and avatar.splats is splats
    ann.armature.effigy.avatar = str(engine_avatars / "ann.effigy")
    avatar.failed_at = -np.inf
    avatar.error = None
    assert settle(ann).splats is not splats


def test_after_an_error_the_worker_is_asked_again_only_after_the_pause(ann, monkeypatch):
    """Redraws come many times a second, and each request for a broken avatar would read its file again."""
    live, requests = viewport("live"), []

    class FailingClient:
        def request(self, method, params, on_result, on_error, latest):
            requests.append(method)
            on_error(RuntimeError("The avatar is damaged."))

    monkeypatch.setattr(live.session, "client", FailingClient)
    for jaw in (0.0, 0.1, 0.2):
        # Neither a redraw nor a new pose ends the pause.
        ann.key_blocks["jawOpen"].value = jaw
        avatar = update()[ann.armature.name]
    assert requests == ["avatar.splats"] and avatar.error == "The avatar is damaged."
    avatar.failed_at -= live.RETRY_SECONDS - 1.0
    update()
    assert len(requests) == 1
    avatar.failed_at -= 1.0
    update()
    assert len(requests) == 2
    update()
    assert len(requests) == 2


def test_the_mesh_is_transparent_while_splats_are_shown_and_visible_again_afterwards(ann):
    visibility = viewport("mesh_visibility")
    own = [slot.material for slot in ann.mesh.material_slots]
    assert visibility.needs_update(ann)
    visibility.update_all()
    assert all(slot.material.diffuse_color[3] == 0 for slot in ann.mesh.material_slots) and not visibility.needs_update(
        ann
    )
    assert list(ann.mesh.data.materials) == own
    ann.armature.effigy_view.mode = "MESH"
    assert visibility.needs_update(ann)
    visibility.update_all()
    assert [slot.material for slot in ann.mesh.material_slots] == own


def test_gpu_resources_of_deleted_avatars_and_closed_views_are_freed(ann):
    draw, live = viewport("draw"), viewport("live")
    settle(ann)
    open_view = SimpleNamespace(as_pointer=lambda: 7)
    area = SimpleNamespace(type="VIEW_3D", regions=[open_view])
    window = SimpleNamespace(screen=SimpleNamespace(areas=[area]))
    context = SimpleNamespace(window_manager=SimpleNamespace(windows=[window]))
    uid = ann.uid
    draw.state.views |= {7: draw._View(), 8: draw._View()}
    draw.state.meshes |= {uid: object(), -1: object()}
    try:
        draw._clean_up(context)
        assert set(draw.state.views) == {7} and set(draw.state.meshes) == {uid}
        bpy.data.objects.remove(ann.armature)
        draw._clean_up(context)
        assert draw.state.meshes == {} and uid not in live.state.avatars
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


def test_disabling_the_extension_leaves_no_handler_and_no_splats(ann):
    settle(ann)
    viewport("mesh_visibility").update_all()
    mesh, before = ann.mesh, handlers_of_ours()
    assert mesh.material_slots[0].link == "OBJECT"
    live, draw = viewport("live"), viewport("draw")
    assert any("_on_scene_changed" in name for name in before) and len(draw.state.handles) == 2
    bpy.ops.preferences.addon_disable(module=PACKAGE)
    try:
        assert handlers_of_ours() == [] and draw.state.handles == [] and live.state.avatars == {}
        assert mesh.material_slots[0].link == "DATA" and mesh.color[3] == 1
        assert not hasattr(bpy.types.Object, "effigy_view") and not bpy.app.timers.is_registered(live._redraw)
    finally:
        bpy.ops.preferences.addon_enable(module=PACKAGE)
    assert handlers_of_ours() == before


def test_undo_deletion_and_loading_reset_what_is_shown(ann, tmp_path):
    settle(ann)
    bpy.ops.ed.undo_push(message="shown")
    ann.key_blocks["jawOpen"].value = 0.5
    bpy.ops.ed.undo_push(message="posed")
    name = ann.armature.name
    bpy.ops.ed.undo()
    rig_properties = importlib.import_module(f"{PACKAGE}.blender_addon.rig.rig_properties")
    again = rig_properties.find_rig(bpy.data.objects[name])
    assert settle(again).fresh
    gone = again.uid
    bpy.data.objects.remove(again.mesh)
    assert update() == {}
    assert gone in viewport("live").state.avatars
    bpy.data.objects.remove(again.armature)
    viewport("live").state.forget_deleted()
    assert gone not in viewport("live").state.avatars
    bpy.ops.wm.read_homefile(use_empty=True)
    assert viewport("live").state.avatars == {}


def test_a_worker_that_dies_under_an_undo_costs_no_pose(ann):
    settle(ann)
    name = ann.armature.name
    for value in (0.3, 0.6):
        ann.key_blocks["jawOpen"].value = value
        bpy.ops.ed.undo_push(message="posed")
        update()
    os.kill(session().client().pid, signal.SIGKILL)
    bpy.ops.ed.undo()
    rig_properties = importlib.import_module(f"{PACKAGE}.blender_addon.rig.rig_properties")
    again = rig_properties.find_rig(bpy.data.objects[name])
    assert settle(again).fresh and again.key_blocks["jawOpen"].value == pytest.approx(0.3)


def test_where_a_shader_cannot_be_built_the_mesh_shows_and_the_panel_says_why_once(ann, monkeypatch, capsys):
    import gpu

    draw, visibility = viewport("draw"), viewport("mesh_visibility")
    region = SimpleNamespace(as_pointer=lambda: 1, width=64, height=64)
    seen = SimpleNamespace(view_matrix=np.eye(4), window_matrix=np.eye(4))
    bpy.context.scene.effigy_view.with_overlays = False
    tries = []

    def refuse(info):
        tries.append(info)
        raise RuntimeError("Shader Compile Error, see console for more details")

    context = SimpleNamespace(
        region=region,
        region_data=seen,
        space_data=space(),
        scene=bpy.context.scene,
        window_manager=bpy.context.window_manager,
        view_layer=SimpleNamespace(
            depsgraph=bpy.context.evaluated_depsgraph_get(), objects=bpy.context.view_layer.objects
        ),
    )

    def redraw():
        draw._guarded(draw._update, context)
        draw._guarded(draw._draw, context)

    def words():
        layout = Layout()
        panel = importlib.import_module(f"{PACKAGE}.blender_addon.panels.view_panel").EFFIGY_PT_view
        panel.draw(SimpleNamespace(layout=layout), bpy.context)
        return layout.words

    visibility.update_all()
    assert ann.armature.effigy_view.cleared and "could not build" not in words()
    with monkeypatch.context() as patch:
        patch.setattr(gpu.shader, "create_from_info", refuse)
        in_gpu(lambda: [redraw() for _ in range(3)])
    assert len(tries) == 1 and capsys.readouterr().err.count("RuntimeError: Shader") == 1
    assert bpy.app.timers.is_registered(visibility.update_all)
    visibility.update_all()
    assert not ann.armature.effigy_view.cleared and not visibility.needs_update(ann)
    assert "could not build the shader" in words() and "update the graphics driver" in words()
    # Reloading the extension tries again.
    draw.release()
    in_gpu(redraw)
    assert "could not build" not in words() and visibility.needs_update(ann)
    draw.release()


def test_playback_does_not_leak_memory(ann):
    """A short version of `bench.viewport_memory`.

    Each image is waited for, as a window waits when it swaps its buffers. Software drawing runs in threads, and on a
    busy machine dozens of unfinished images would otherwise be in memory with their textures. Even so one to four of
    them are, at random, 4.7 MB each. The minimum over many moments is therefore compared with the minimum over many
    later ones: leaked memory is part of all of these.
    """
    module, splats = viewport("splat_framebuffer"), viewport("splats")
    avatar = settle(ann)

    def play():
        framebuffer = module.SplatFramebuffer(False)
        camera = module.ViewCamera(
            np.array(((1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, -1.0), (0, 0, 0, 1.0))),
            np.array(((2.0, 0, 0, 0), (0, 2, 0, 0), (0, 0, -1.0002, -0.02), (0, 0, -1, 0))),
            200,
            200,
        )
        sizes = []
        for number in range(640):
            packed = splats.pack([(avatar.splats, avatar.motion, splats.DrawStyle(scale=1 - number * 1e-4))])
            framebuffer.draw(module.SplatTexture(packed), camera)
            with framebuffer._frame.bind():
                framebuffer._frame.read_color(0, 0, 1, 1, 4, 0, "FLOAT")
            if number % 10 == 9:
                sizes.append(megabytes_in_use())
        module.release()
        return sizes

    sizes = in_gpu(play)
    # The smallest texture that could leak, the drawing order of the splats, would be 26 MB in 400 frames.
    assert min(sizes[40:]) - min(sizes[:24]) < 13, sizes


def megabytes_in_use():
    """Resident memory of this process, without freed memory that the allocator keeps."""
    try:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except (OSError, AttributeError):
        pytest.skip("Only Linux says how much memory is in use.")
    return next(int(line.split()[1]) / 1e3 for line in status.splitlines() if line.startswith("RssAnon"))
