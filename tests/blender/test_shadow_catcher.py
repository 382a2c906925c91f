"""The floor that catches a head's shadow: where it lies, and what Cycles renders of it."""

from __future__ import annotations

from pathlib import Path

import bpy
import numpy as np
import pytest
from rig_scenes import make_rig

SIDE = 64


def test_the_floor_lies_below_the_head_and_shows_nothing_but_its_shadow(tmp_path: Path):
    rig = make_rig()
    rig.armature.location = (0.3, 0.0, 0.5)
    bpy.context.view_layer.objects.active = rig.mesh
    bpy.context.view_layer.update()
    assert bpy.ops.effigy.add_shadow_catcher() == {"FINISHED"}
    (floor,) = (obj for obj in bpy.data.objects if obj.is_shadow_catcher)
    bpy.context.view_layer.update()
    lowest = min((rig.mesh.matrix_world @ vertex.co).z for vertex in rig.mesh.data.vertices)
    assert floor.location.z == pytest.approx(lowest, abs=1e-3)
    assert floor.location.x == pytest.approx(0.3, abs=0.05)
    scene = bpy.context.scene
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", "SUN"))
    sun.data.energy, sun.rotation_euler = 5, (0, -0.9, 0)
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.location = (floor.location.x, floor.location.y, floor.location.z + 4)
    for obj in (sun, camera):
        scene.collection.objects.link(obj)
    scene.camera, scene.render.engine, scene.cycles.samples = camera, "CYCLES", 4
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.render.image_settings.file_format, scene.render.image_settings.color_mode = "PNG", "RGBA"
    scene.render.filepath = str(tmp_path / "shadow.png")
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(scene.render.filepath)
    alpha = np.array(image.pixels).reshape(SIDE, SIDE, 4)[..., 3]
    # The sun shines from the left: the shadow falls to the right of the head, the rest of the floor is empty.
    right, left = alpha[28:36, 37:42].max(), alpha[28:36, 18:27].max()
    assert right > 0.3 and left < 0.1, (right, left)
