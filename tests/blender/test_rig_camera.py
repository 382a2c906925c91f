"""The camera of a track has the view of the footage's camera."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from rig_scenes import evaluated_vertices, make_rig, make_track, read_pose, rigging, truth


def footage_scene(frame_start=1):
    rig, made, track, scene = rigging(), make_rig(), make_track(), bpy.context.scene
    placement = rig.performance.Placement(rig.conventions.default_camera_pose(track.head_to_camera), frame_start)
    rig.performance.apply_track(made, track, placement)
    camera = rig.camera.add_camera(track, placement, "Footage", scene.collection)
    rig.camera.set_up_scene(scene, track, camera, placement)
    return made, track, camera, placement


def test_landmarks_projected_by_the_blender_camera_match_the_trackers_within_a_pixel_of_512():
    made, track, camera, placement = footage_scene(frame_start=101)
    scene, known = bpy.context.scene, truth()
    corners, barycentric = known["landmark_corners"], known["landmark_barycentric"]
    for frame in range(track.frame_count):
        scene.frame_set(101 + frame)
        world = np.array(made.mesh.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world)
        vertices = rigging().conventions.points_to_blender(evaluated_vertices(made)) @ world[:3, :3].T + world[:3, 3]
        points = (vertices[corners] * barycentric[..., None]).sum(1)
        projected = np.array([world_to_camera_view(scene, camera, Vector(point)) for point in points])
        pixels = np.stack((512 * projected[:, 0], 512 * (1 - projected[:, 1])), 1)
        expected = known["landmark_pixels"][frame]
        valid = np.isfinite(expected).all(1)
        assert valid.sum() > 400
        difference = np.linalg.norm(pixels - expected, axis=1)[valid].max()
        assert difference < 0.01, f"frame {frame}: {difference:.4f} pixels"


def test_the_trackers_camera_pose_comes_back_from_the_scene():
    made, track, camera, _ = footage_scene()
    world_to_camera = rigging().conventions.world_to_camera(np.array(camera.matrix_world))
    for frame in (0, 7):
        bpy.context.scene.frame_set(1 + frame)
        assert np.allclose(world_to_camera @ read_pose(made)["root"], track.head_to_camera[frame], atol=1e-5)


def test_the_head_stands_at_the_origin_upright_and_faces_the_front_view():
    _, track, camera, placement = footage_scene()
    middle = np.median(track.head_to_camera[:, :3, 3], axis=0)
    assert np.allclose(placement.camera_pose[:3, :3] @ middle + placement.camera_pose[:3, 3], 0, atol=1e-6)
    axis = camera.matrix_world.to_3x3() @ Vector((0, 0, -1))
    assert np.allclose(axis, (0, 1, 0), atol=1e-6)
    assert camera.matrix_world.translation.y < -0.5


def test_the_scene_takes_size_rate_and_range_of_the_footage():
    _, track, camera, _ = footage_scene(frame_start=101)
    scene = bpy.context.scene
    assert (scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage) == (512, 512, 100)
    assert (scene.render.fps, round(scene.render.fps_base, 6)) == (30, 1.001)
    assert (scene.frame_start, scene.frame_end) == (101, 100 + track.frame_count)
    assert scene.camera == camera


@pytest.mark.parametrize("rate", ["25", "24000/1001", "119/8", "15002/1000", "1/2"])
def test_any_rational_rate_is_kept(rate):
    rate = Fraction(rate)
    whole, base = rigging().camera.frame_rate(rate)
    assert isinstance(whole, int) and whole >= 1
    assert whole / base == pytest.approx(float(rate), rel=1e-6)


@pytest.mark.parametrize(("suffix", "written"), [("jpg", "JPEG"), ("png", "PNG")])
def test_the_footage_is_shown_behind_the_view_frame_by_frame(tmp_path, suffix, written):
    made, track, camera, placement = footage_scene(frame_start=101)
    for frame in range(track.frame_count):
        image = bpy.data.images.new(f"{frame}", 4, 4)
        image.filepath_raw, image.file_format = str(tmp_path / f"{frame:06d}.{suffix}"), written
        image.save()
    rigging().camera.show_footage(camera, tmp_path, track.positions, placement)
    background = camera.data.background_images[0]
    assert camera.data.animation_data is None
    assert camera.data.show_background_images and background.image.source == "SEQUENCE"
    # A camera's background images advance only when a window draws them. A texture with the same settings advances
    # whenever it is evaluated.
    material = bpy.data.materials.new("probe")
    if material.node_tree is None:
        material.use_nodes = True
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = background.image
    for setting in ("frame_duration", "frame_start", "frame_offset", "use_auto_refresh"):
        setattr(node.image_user, setting, getattr(background.image_user, setting))
    made.mesh.data.materials.append(material)
    for frame in (0, 5, track.frame_count - 1):
        bpy.context.scene.frame_set(101 + frame)
        shown = material.evaluated_get(bpy.context.evaluated_depsgraph_get()).node_tree.nodes[node.name]
        path = background.image.filepath_from_user(image_user=shown.image_user)
        assert path.endswith(f"{frame:06d}.{suffix}"), path


@pytest.mark.parametrize("scale", [1.0, 24 / 25, 59.94 / 25])
def test_every_frame_of_a_scene_of_another_rate_shows_the_image_of_its_time(tmp_path, scale):
    made, track, camera, placement = footage_scene(frame_start=101)
    for frame in range(4):
        image = bpy.data.images.new(f"{frame}", 4, 4)
        image.filepath_raw, image.file_format = str(tmp_path / f"{frame:06d}.jpg"), "JPEG"
        image.save()
    rigging().camera.show_footage(camera, tmp_path, np.arange(4.0), placement, scale)
    material = bpy.data.materials.new("probe")
    if material.node_tree is None:
        material.use_nodes = True
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = camera.data.background_images[0].image
    made.mesh.data.materials.append(material)
    for after in range(10):
        bpy.context.scene.frame_set(101 + after)
        user = camera.data.evaluated_get(bpy.context.evaluated_depsgraph_get()).background_images[0].image_user
        for setting in ("frame_duration", "frame_start", "frame_offset", "use_auto_refresh"):
            setattr(node.image_user, setting, getattr(user, setting))
        bpy.context.scene.frame_set(101 + after)
        shown = material.evaluated_get(bpy.context.evaluated_depsgraph_get()).node_tree.nodes[node.name]
        path = node.image.filepath_from_user(image_user=shown.image_user)
        assert path.endswith(f"{min(3, int(after / scale + 1e-3)):06d}.jpg"), (after, path)


def test_a_scene_of_the_footages_own_rate_is_not_taken_for_another_rate():
    scene, camera = bpy.context.scene, rigging().camera
    scene.render.fps, scene.render.fps_base = 30, 1.001
    assert camera.frames_per_frame(scene, Fraction(30000, 1001)) == 1
    assert camera.frames_per_frame(scene, Fraction(30)) == pytest.approx(1 / 1.001, abs=1e-6)


def test_times_between_frames_are_kept_however_late_in_a_film_they_lie():
    track = make_track()
    times = (100_000 + np.arange(track.frame_count) * 1.4) / float(track.fps)
    positions = replace(track, times=times).positions
    assert np.allclose(positions, 100_000 + np.arange(track.frame_count) * 1.4, rtol=0, atol=1e-3)


def test_footage_of_a_variable_rate_shows_the_frame_that_was_taken_last(tmp_path):
    """Frames at 0, 1, 2, 5 and 7 of the film's rate, in a scene of half that rate: 0, 0.5, 1, 2.5 and 3.5."""
    made, track, camera, placement = footage_scene(frame_start=101)
    image = bpy.data.images.new("first", 4, 4)
    image.filepath_raw, image.file_format = str(tmp_path / "000000.jpg"), "JPEG"
    image.save()
    positions = np.array((0.0, 1, 2, 5, 7))
    rigging().camera.show_footage(camera, tmp_path, positions, placement, scale=0.5)
    shown = []
    for frame in range(101, 106):
        bpy.context.scene.frame_set(frame)
        user = camera.data.evaluated_get(bpy.context.evaluated_depsgraph_get()).background_images[0].image_user
        shown.append(frame - user.frame_start + 1 + user.frame_offset)
    assert shown == [0, 2, 2, 3, 4]


def test_missing_footage_is_reported(tmp_path):
    _, track, camera, placement = footage_scene()
    with pytest.raises(Exception, match="000000.jpg is missing"):
        rigging().camera.show_footage(camera, tmp_path, track.positions, placement)
