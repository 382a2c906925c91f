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
def test_a_point_lies_where_blender_sees_it(settings, module):
    convert, to_head = module("blender_addon.engine.camera"), module("blender_addon.rig.conventions").points_to_head
    camera, scene = view(**settings), bpy.context.scene
    scene.camera = camera
    depsgraph = bpy.context.evaluated_depsgraph_get()
    size = convert.picture_size(scene.render)
    window = convert.window_of(scene.render, *size)
    lens = convert.camera_parameters(camera.evaluated_get(depsgraph), depsgraph, size, window)
    points = np.random.default_rng(1).normal(0, 0.3, (20, 3))
    seen = np.array([world_to_camera_view(scene, camera, Vector(point)) for point in points])
    there = to_head(points) @ lens["world_to_camera"][:3, :3].T + lens["world_to_camera"][:3, 3]
    flat = there[:, :2] if lens["orthographic"] else there[:, :2] / there[:, 2:]
    ours = flat * np.diag(lens["intrinsics"])[:2] + lens["intrinsics"][:2, 2]
    expected = np.stack((seen[:, 0] * size[0] - window.left, (1 - seen[:, 1]) * size[1] - window.top), 1)
    assert np.abs(ours - expected).max() < 0.01
    assert np.abs(there[:, 2] - seen[:, 2]).max() < 1e-5


def test_a_scaled_camera_sees_as_blender_has_it_see(module):
    convert = module("blender_addon.engine.camera")
    camera, scene = view(), bpy.context.scene
    size = convert.picture_size(scene.render)
    window = convert.window_of(scene.render, *size)
    answers = []
    for scale in (1, 3):
        camera.scale = scale, scale, scale
        depsgraph = bpy.context.evaluated_depsgraph_get()
        answers.append(convert.camera_parameters(camera.evaluated_get(depsgraph), depsgraph, size, window))
    assert np.allclose(answers[0]["world_to_camera"], answers[1]["world_to_camera"], atol=1e-6)


def test_what_cannot_be_seen_through_is_refused_with_a_sentence(module):
    convert, error = module("blender_addon.engine.camera"), module("blender_addon.errors").EffigyError
    depsgraph = bpy.context.evaluated_depsgraph_get()
    window = convert.Window(0, 0, 10, 10)
    with pytest.raises(error, match="panoramic"):
        convert.camera_parameters(view(type="PANO"), depsgraph, (10, 10), window)
    with pytest.raises(error, match="no camera"):
        convert.camera_parameters(bpy.data.objects.new("lamp", None), depsgraph, (10, 10), window)
    render = bpy.context.scene.render
    render.use_border, render.border_min_x, render.border_max_x = True, 0.5, 0.501
    with pytest.raises(error, match="holds no pixel"):
        convert.window_of(render, 20, 20)
