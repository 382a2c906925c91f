"""Draws the rig's bones over the splats.

Blender draws the bones before the splats, which would then hide them although the armature is displayed in front.
"""

from __future__ import annotations

from typing import Final

import bpy
import gpu
from gpu_extras.batch import batch_for_shader

from ..rig.rig_properties import Rig

LINE_WIDTH: Final = 2.0
"""Pixels at interface scale 1."""


def draw_bones(rig: Rig, context: bpy.types.Context) -> None:
    """Draws the bones of a rig as lines in the theme's colours. Draws nothing unless the armature is visible, selected
    and displayed in front, and the overlays show bones.
    """
    armature, overlay = rig.armature, context.space_data.overlay
    if not (
        overlay.show_overlays
        and overlay.show_bones
        and armature.show_in_front
        and armature.select_get()
        and armature.visible_in_viewport_get(context.space_data)
    ):
        return
    theme = context.preferences.themes[0].view_3d
    posing, active = armature.mode == "POSE", armature.data.bones.active
    evaluated = armature.evaluated_get(context.view_layer.depsgraph)
    ends, colors = [], []
    for bone in evaluated.pose.bones:
        # Blender 5 moved the selection from the bone to the pose bone.
        selectable = bone if hasattr(bone, "select") else bone.bone
        if posing and active is not None and bone.name == active.name:
            color = theme.bone_pose_active
        elif posing:
            color = theme.bone_pose if selectable.select else theme.wire
        else:
            color = theme.object_active if armature == context.object else theme.object_selected
        ends += [evaluated.matrix_world @ bone.head, evaluated.matrix_world @ bone.tail]
        colors += [(*color[:3], 1.0)] * 2
    shader = gpu.shader.from_builtin("POLYLINE_FLAT_COLOR")
    batch = batch_for_shader(shader, "LINES", {"pos": [tuple(end) for end in ends], "color": colors})
    gpu.state.depth_test_set("NONE")
    gpu.state.blend_set("ALPHA")
    shader.bind()
    shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
    shader.uniform_float("lineWidth", LINE_WIDTH * context.preferences.system.ui_scale)
    batch.draw(shader)
    gpu.state.blend_set("NONE")
