"""Blender's camera as the worker's pinhole: every setting that bends a view, against Blender's own projection."""

from __future__ import annotations

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector


def view(**settings: object) -> bpy.types.Object:
    """A camera with such settings; those that begin with `render_` are the scene's."""
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    bpy.context.scene.collection.objects.link(camera)
    camera.location, camera.rotation_euler = (0.4, -1.2, 0.3), (1.3, 0.2, 0.4)
    render = bpy.context.scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = 192, 108, 100
    for name, value in settings.items():
        owner = render if name.startswith("render_") else camera.data
        setattr(owner, name.removeprefix("render_"), value)
    return camera


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lens": 35.0, "shift_x": 0.2, "shift_y": -0.1},
        {"render_resolution_x": 108, "render_resolution_y": 192, "shift_x": 0.2, "shift_y": -0.1},
        {"sensor_fit": "VERTICAL", "sensor_height": 20.0, "shift_y": 0.15},
        {"sensor_fit": "HORIZONTAL", "render_resolution_y": 300, "shift_x": 0.3},
        {"render_pixel_aspect_x": 2.0, "shift_x": 0.1, "shift_y": 0.1},
        {"render_pixel_aspect_y": 1.5, "shift_y": -0.2},
        {"lens_unit": "FOV", "angle": 0.6},
        {"type": "ORTHO", "ortho_scale": 1.7, "shift_x": 0.2, "shift_y": 0.1},
        {"type": "ORTHO", "ortho_scale": 0.9, "render_pixel_aspect_y": 1.5, "sensor_fit": "VERTICAL"},
        {"render_resolution_percentage": 25},
        {"render_use_border": True, "render_border_min_x": 0.2, "render_border_max_y": 0.7, "shift_x": 0.1},
    ],
)
def test_a_point_is_projected_to_the_same_pixel_as_by_blender(settings, module):
    convert, to_head = module("blender_addon.engine.camera"), module("blender_addon.rig.conventions").points_to_head
    camera, scene = view(**settings), bpy.context.scene
    scene.camera = camera
    depsgraph = bpy.context.evaluated_depsgraph_get()
    size = convert.image_size(scene.render)
    region = convert.render_region(scene.render, *size)
    converted = convert.worker_camera(camera.evaluated_get(depsgraph), depsgraph, size, region)
    points = np.random.default_rng(1).normal(0, 0.3, (20, 3))
    projected = np.array([world_to_camera_view(scene, camera, Vector(point)) for point in points])
    there = to_head(points) @ converted.world_to_camera[:3, :3].T + converted.world_to_camera[:3, 3]
    flat = there[:, :2] if converted.orthographic else there[:, :2] / there[:, 2:]
    ours = flat * np.diag(converted.intrinsics)[:2] + converted.intrinsics[:2, 2]
    expected = np.stack((projected[:, 0] * size[0] - region.left, (1 - projected[:, 1]) * size[1] - region.top), 1)
    assert np.abs(ours - expected).max() < 0.01
    assert np.abs(there[:, 2] - projected[:, 2]).max() < 1e-5


def test_the_scale_of_a_camera_object_is_ignored_as_in_blender(module):
    convert = module("blender_addon.engine.camera")
    camera, scene = view(), bpy.context.scene
    size = convert.image_size(scene.render)
    region = convert.render_region(scene.render, *size)
    answers = []
    for scale in (1, 3):
        camera.scale = scale, scale, scale
        depsgraph = bpy.context.evaluated_depsgraph_get()
        answers.append(convert.worker_camera(camera.evaluated_get(depsgraph), depsgraph, size, region))
    assert np.allclose(answers[0].world_to_camera, answers[1].world_to_camera, atol=1e-6)


def test_unsupported_cameras_are_refused_with_a_sentence(module):
    convert, error = module("blender_addon.engine.camera"), module("blender_addon.errors").EffigyError
    depsgraph = bpy.context.evaluated_depsgraph_get()
    region = convert.RenderRegion(0, 0, 10, 10)
    with pytest.raises(error, match="panoramic"):
        convert.worker_camera(view(type="PANO"), depsgraph, (10, 10), region)
    with pytest.raises(error, match="not a camera"):
        convert.worker_camera(bpy.data.objects.new("lamp", None), depsgraph, (10, 10), region)
    render = bpy.context.scene.render
    render.use_border, render.border_min_x, render.border_max_x = True, 0.5, 0.501
    with pytest.raises(error, match="contains no pixel"):
        convert.render_region(render, 20, 20)
