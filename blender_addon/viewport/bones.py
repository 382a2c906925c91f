"""Draws the rig's bones over the splats.

Blender draws the bones before the splats, which would then hide them although the armature is displayed in front. A
bone with a custom shape, as the handles of the face board have, is drawn as the edges of that shape.
"""

from __future__ import annotations

from typing import Any, Final

import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Matrix

from ..rig.rig_properties import Rig

LINE_WIDTH: Final = 2.0
"""Pixels at interface scale 1, of a bone without a custom shape."""


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
    evaluated = armature.evaluated_get(context.view_layer.depsgraph)
    by_width: dict[float, list[tuple[np.ndarray, np.ndarray]]] = {}
    for bone in evaluated.pose.bones:
        if is_shown(bone):
            lines = bone_lines(bone, armature.data.show_bone_custom_shapes)
            colors = np.tile((*_color_of(bone, armature, context)[:3], 1.0), (len(lines), 1))
            width = bone.custom_shape_wire_width if bone.custom_shape is not None else LINE_WIDTH
            by_width.setdefault(width, []).append((lines, colors))
    world = np.array(evaluated.matrix_world)
    gpu.state.depth_test_set("NONE")
    gpu.state.blend_set("ALPHA")
    for width, drawn in by_width.items():
        points = np.concatenate([lines for lines, _ in drawn])
        colors = np.concatenate([each for _, each in drawn])
        _draw(world, points, colors, width * context.preferences.system.ui_scale)
    gpu.state.blend_set("NONE")


def _draw(world: np.ndarray, points: np.ndarray, colors: np.ndarray, width: float) -> None:
    """Lines with ends (2 N, 3) in the armature's space, and a colour (2 N, 4) for each end; `width` in pixels."""
    places = (points @ world[:3, :3].T + world[:3, 3]).astype(np.float32)
    shader = gpu.shader.from_builtin("POLYLINE_FLAT_COLOR")
    batch = batch_for_shader(shader, "LINES", {"pos": places, "color": colors.astype(np.float32)})
    shader.bind()
    shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
    shader.uniform_float("lineWidth", width)
    batch.draw(shader)


def is_shown(bone: bpy.types.PoseBone) -> bool:
    """Whether neither the bone nor all of its collections are hidden."""
    # Blender 5 moved these from the bone to the pose bone.
    hidden = bone.hide if hasattr(bone, "hide") else bone.bone.hide
    collections = bone.bone.collections
    return not hidden and (not len(collections) or any(each.is_visible_effectively for each in collections))


def bone_lines(bone: bpy.types.PoseBone, with_shapes: bool = True) -> np.ndarray:
    """(2 N, 3) ends of the lines that show an evaluated bone, in the armature's space."""
    shape = bone.custom_shape
    if not with_shapes or shape is None or shape.type != "MESH" or not len(shape.data.edges):
        return np.array((bone.head, bone.tail))
    points = np.empty(3 * len(shape.data.vertices), np.float32)
    edges = np.empty(2 * len(shape.data.edges), np.int32)
    shape.data.vertices.foreach_get("co", points)
    shape.data.edges.foreach_get("vertices", edges)
    scale = bone.custom_shape_scale_xyz * (bone.bone.length if bone.use_custom_shape_bone_size else 1.0)
    placed = Matrix.LocRotScale(bone.custom_shape_translation, bone.custom_shape_rotation_euler, scale)
    matrix = np.array((bone.custom_shape_transform or bone).matrix @ placed)
    return points.reshape(-1, 3)[edges] @ matrix[:3, :3].T + matrix[:3, 3]


def _color_of(bone: bpy.types.PoseBone, armature: bpy.types.Object, context: bpy.types.Context) -> Any:
    theme = context.preferences.themes[0]
    if armature.mode != "POSE":
        return theme.view_3d.object_active if armature == context.object else theme.view_3d.object_selected
    active = armature.data.bones.active
    # Blender 5 moved the selection from the bone to the pose bone.
    selected = (bone if hasattr(bone, "select") else bone.bone).select
    is_active = active is not None and bone.name == active.name
    own = _color_set(bone, theme)
    if own is not None:
        return own.active if is_active and selected else own.select if selected else own.normal
    if is_active:
        return theme.view_3d.bone_pose_active
    return theme.view_3d.bone_pose if selected else theme.view_3d.wire


def _color_set(bone: bpy.types.PoseBone, theme: bpy.types.Theme) -> Any:
    """The colours that an artist or the face board has given a bone; None for the theme's own."""
    for color in (bone.color, bone.bone.color):
        if color.palette == "CUSTOM":
            return color.custom
        if color.palette.startswith("THEME"):
            return theme.bone_color_sets[int(color.palette.removeprefix("THEME")) - 1]
    return None
