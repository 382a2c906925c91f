"""How a track fits its film: the worst frames, the wire over the film and the landmarks."""

from __future__ import annotations

import bpy
import numpy as np
import pytest


@pytest.fixture
def rig(demo_capture, module):
    bpy.ops.effigy.import_capture(directory=str(demo_capture), set_up=True)
    return module("blender_addon.active").need_rig(bpy.context)


@pytest.fixture
def fit(module):
    return module("blender_addon.rig.fit")


def set_errors(rig, fit, errors) -> None:
    stored = rig.armature[fit.FIT_PROPERTY]
    frames = list(range(1, len(errors) + 1))
    rig.armature[fit.FIT_PROPERTY] = {"error": errors, "frames": frames, "fps": stored["fps"]}


def test_an_imported_rig_knows_the_error_of_every_frame(rig, fit, demo_capture):
    shown, errors, rate = fit.errors_of(rig)
    assert list(shown) == list(range(1, 13)) and rate == 25
    assert ((errors > 0) & (errors < 20)).all()
    assert fit.error_at(rig, 3) == pytest.approx(errors[2]) and fit.error_at(rig, 0) is None
    worst = fit.worst_frames(rig)
    assert worst[0] == 1 + int(np.argmax(errors)) and all(abs(worst[0] - other) >= 10 for other in worst[1:])
    # The whole film is seen: Blender's default cube would hide it.
    assert rig.armature.effigy_view.over_film == "WIRE"


def test_the_button_goes_from_the_worst_frame_to_the_next_and_around(rig, fit):
    set_errors(rig, fit, [1.0] * 9 + [7.0, 8.0, 7.5] + [1.0] * 15 + [9.0, -1.0] + [0.5] * 11)
    assert fit.worst_frames(rig)[:2] == [28, 11]
    scene = bpy.context.scene
    seen = []
    for _ in range(len(fit.worst_frames(rig)) + 1):
        bpy.ops.effigy.show_worst_frame()
        seen.append(scene.frame_current)
    assert seen == [28, 11, 28]
    assert fit.error_at(rig, 29) is None


def test_the_worst_frames_follow_the_strip_that_the_artist_moves_and_stretches(rig, fit, module):
    set_errors(rig, fit, [1.0] * 4 + [5.0] + [1.0] * 7)
    strip = module("blender_addon.rig.performance").tracked_strip(rig)
    strip.frame_start_ui = 101
    assert fit.worst_frames(rig)[0] == 105
    strip.scale = 2
    assert fit.worst_frames(rig)[0] == 109 and fit.error_at(rig, 109) == 5.0


def test_a_rig_without_errors_says_what_to_do(rig, fit):
    del rig.armature[fit.FIT_PROPERTY]
    with pytest.raises(RuntimeError, match="add its capture again"):
        bpy.ops.effigy.show_worst_frame()
    rig.armature[fit.FIT_PROPERTY] = {"error": "x", "frames": [1.0], "fps": 25.0}
    assert fit.worst_frames(rig) == [] and fit.error_at(rig, 1) is None


def test_a_mesh_that_is_shown_as_wire_is_seen_through_in_solid_shading_only_until_it_has_an_avatar(rig, module):
    visibility = module("blender_addon.viewport.mesh_visibility")
    view = rig.armature.effigy_view
    visibility.update_all()
    materials = {slot.material for slot in rig.mesh.material_slots}
    assert view.seen_through and not view.cleared and len(materials) == 1
    assert materials.pop().diffuse_color[3] == 0 and rig.mesh.visible_camera
    view.over_film = "SOLID"
    visibility.update_all()
    assert not view.seen_through and all(slot.material.diffuse_color[3] == 1 for slot in rig.mesh.material_slots)
    view.over_film = "WIRE"
    visibility.update_all()
    visibility.show_all()
    assert not view.seen_through and all(slot.link == "DATA" for slot in rig.mesh.material_slots)


def test_landmarks_lie_on_the_pixels_of_the_film_where_they_were_found(rig, fit, module):
    landmarks = module("blender_addon.viewport.landmarks")
    camera, scene = fit.film_camera(rig), bpy.context.scene
    pixels = np.array([[(0.0, 0.0), (128.0, 128.0), (200.0, 40.0), (np.nan, np.nan)]])
    points = landmarks.points_of(camera, pixels, 0)
    assert points.shape == (3, 3)
    projection = np.array(camera.calc_matrix_camera(bpy.context.evaluated_depsgraph_get(), x=256, y=256))
    world = np.array(camera.matrix_world.inverted())
    clip = np.c_[points, np.ones(3)] @ (projection @ world).T
    seen = (clip[:, :2] / clip[:, 3:] * (1, -1) + 1) * 128
    assert seen == pytest.approx(pixels[0, :3], abs=0.05)
    scene.frame_set(4)
    assert landmarks._shown_frame(camera, scene) == 3
    scene.frame_set(100)
    assert landmarks._shown_frame(camera, scene) == 11


@pytest.mark.parametrize("changed", [False, True])
def test_the_default_cube_is_hidden_only_as_blender_made_it(demo_capture, changed):
    bpy.ops.wm.read_homefile(use_factory_startup=True, app_template="")
    cube = bpy.data.objects["Cube"]
    if changed:
        cube.location.x = 3
    bpy.ops.effigy.import_capture(directory=str(demo_capture), set_up=True)
    assert cube.hide_viewport == cube.hide_render == (not changed)


def test_frames_of_which_the_track_is_unsure_are_marked_on_a_click_and_gone_to(rig, fit):
    set_errors(rig, fit, [1.0] * 20 + [-1.0] * 3 + [1.0] * 30 + [4.0, 1.0, 5.0] + [1.0] * 20)
    stored, scene = rig.armature[fit.FIT_PROPERTY], bpy.context.scene
    stored["flagged"] = [0] * 70 + [1] + [0] * 5
    scene.timeline_markers.new("mine", frame=4)
    assert fit.unsure_ranges(rig) == [(21, 23, "no face"), (54, 56, "error 5.0 px"), (71, 71, "error 1.0 px")]
    for _ in range(2):
        bpy.ops.effigy.mark_unsure_frames()
        marks = {marker.frame: marker.name.split(": ")[-1] for marker in scene.timeline_markers}
        assert marks == {4: "mine", 21: "3 frames, no face", 54: "3 frames, error 5.0 px", 71: "error 1.0 px"}
    seen, scene.frame_current = [], 60
    for backwards in (False, False, True, True):
        bpy.ops.effigy.show_unsure_frame(backwards=backwards)
        seen.append(scene.frame_current)
    assert seen == [71, 21, 71, 54]
    bpy.ops.effigy.mark_unsure_frames(clear=True)
    assert [marker.name for marker in scene.timeline_markers] == ["mine"]
    del rig.armature[fit.FIT_PROPERTY]
    with pytest.raises(RuntimeError, match="does not know how well"):
        bpy.ops.effigy.mark_unsure_frames()
