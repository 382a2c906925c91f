"""A scene with an avatar for the tests of native splats, and what its point cloud shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
import pytest
from engine_scenes import premultiplied, read_png, set_format, stage

SUPPORTED = "type" in bpy.types.PointCloud.bl_rna.properties
needs_5_3 = pytest.mark.skipif(not SUPPORTED, reason="Blender draws Gaussians by itself from version 5.3 on")
LAYOUT = {"FLOAT_VECTOR": ("vector", 3), "FLOAT4": ("vector", 4), "QUATERNION": ("value", 4)}


def stage_cat(avatars: Path) -> Any:
    """A rig before a camera, in a scene that Cycles renders in a second."""
    rig = stage(avatars / "cat.effigy")
    render = bpy.context.scene.render
    render.engine, render.resolution_x, render.resolution_y = "CYCLES", 32, 32
    render.threads_mode, render.threads = "FIXED", 1
    bpy.context.scene.cycles.samples, bpy.context.scene.cycles.use_denoising = 16, False
    return rig


def cloud_of(rig):
    return next(obj for obj in bpy.data.objects if obj.type == "POINTCLOUD" and obj.effigy_native.mesh == rig.mesh)


def values_of(cloud):
    """Each attribute of the evaluated point cloud, by name."""
    data, found = cloud.evaluated_get(bpy.context.evaluated_depsgraph_get()).data, {}
    for attribute in data.attributes:
        key, width = LAYOUT[attribute.data_type]
        found[attribute.name] = np.empty(len(attribute.data) * width, np.float32)
        attribute.data.foreach_get(key, found[attribute.name])
        found[attribute.name] = found[attribute.name].reshape(-1, width)
    return found


def places(cloud):
    """(G, 3) in the world."""
    motion = np.array(cloud.evaluated_get(bpy.context.evaluated_depsgraph_get()).matrix_world)
    return values_of(cloud)["position"] @ motion[:3, :3].T + motion[:3, 3]


def wanted(module, rig):
    """The splats of the rig's pose as the engine Effigy evaluates them."""
    frame, depsgraph = module("blender_addon.native.frame"), bpy.context.evaluated_depsgraph_get()
    request = frame.request_of(rig, None, depsgraph, asked=True)
    answer = request.player.splats(request.pose.message(), request.viewpoint.message())
    return request, module("blender_addon.viewport.splats").Splats.from_answer(answer, np.eye(4))


def render(path, **settings):
    for name, value in settings.items():
        setattr(bpy.context.scene.render, name, value)
    set_format("PNG")
    bpy.context.scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    return read_png(path)


def difference(one, other):
    """Mean difference of blocks of 4 x 4 pixels: Cycles chooses by chance which Gaussians a ray meets, and a difference
    in the last digit of a place, rotation or size changes what it chooses, whatever the seed.
    """
    one, other = (np.concatenate((premultiplied(pixels), pixels[..., 3:]), -1) for pixels in (one, other))
    return np.abs((one - other).reshape(8, 4, 8, 4, 4).mean((1, 3))).mean()


def nod(rig, frames=(1, 5), turns=(-0.6, 0.6)):
    """Keys the neck's angle, radians, in each of the frames, and opens the jaw as far."""
    bone = rig.pose_bone("neck")
    for frame, turn in zip(frames, turns, strict=True):
        bone.rotation_quaternion = np.cos(turn / 2), 0, np.sin(turn / 2), 0
        bone.keyframe_insert("rotation_quaternion", frame=frame)
        rig.key_blocks["jawOpen"].value = max(turn, 0)
        rig.key_blocks["jawOpen"].keyframe_insert("value", frame=frame)
    bpy.context.scene.frame_start, bpy.context.scene.frame_end = frames[0], frames[-1]
