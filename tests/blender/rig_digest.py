"""What is in the open file, as text that two states of it can be compared by."""

from __future__ import annotations

from typing import Any

import bpy
import numpy as np
from rig_scenes import rigging


def digest() -> dict[str, Any]:
    """Everything that an artist would miss after an undo: objects with transforms, parents, constraints, modifiers and
    collections, shape keys, bones, vertices, actions, strips, drivers, paths and the settings of scenes.
    """
    bpy.context.view_layer.update()
    return {
        **{f"object {obj.name}": _object(obj) for obj in _own(bpy.data.objects)},
        **{
            f"collection {each.name}": sorted(each.objects.keys() + each.children.keys())
            for each in _own(bpy.data.collections)
        },
        **{f"mesh {each.name}": _mesh(each) for each in _own(bpy.data.meshes)},
        **{f"keys {each.name}": _keys(each) for each in _own(bpy.data.shape_keys)},
        **{f"armature {each.name}": _rest(each) for each in _own(bpy.data.armatures)},
        **{f"action {each.name}": _action(each) for each in _own(bpy.data.actions)},
        **{f"scene {each.name}": _scene(each) for each in _own(bpy.data.scenes)},
        "texts": [each.name for each in _own(bpy.data.texts)],
        "images": [each.name for each in _own(bpy.data.images)],
        "sounds": [each.name for each in _own(bpy.data.sounds)],
        "cameras": [(each.name, each.lens, len(each.background_images)) for each in _own(bpy.data.cameras)],
        "materials": [each.name for each in _own(bpy.data.materials)],
        "node groups": [(each.name, len(each.nodes)) for each in _own(bpy.data.node_groups)],
    }


def _own(blocks: Any) -> list[Any]:
    """Blender keeps what was linked from other files over an undo, unused."""
    return [block for block in blocks if block.library is None]


def _object(obj: bpy.types.Object) -> tuple[Any, ...]:
    return (
        _rounded(obj.matrix_basis),
        _rounded(obj.matrix_world),
        _rounded(obj.matrix_parent_inverse),
        obj.parent and obj.parent.name,
        obj.parent_type,
        obj.data and obj.data.name,
        [(each.name, each.type, each.mute) for each in obj.constraints],
        [_modifier(each) for each in obj.modifiers],
        sorted(each.name for each in obj.users_collection),
        (obj.hide_viewport, obj.hide_render, obj.visible_camera, obj.hide_get()),
        [slot.link for slot in obj.material_slots],
        (obj.effigy.avatar, obj.effigy.capture, obj.effigy.packed and obj.effigy.packed.name),
        (obj.effigy.exposure, obj.effigy.red, obj.effigy.blue, obj.effigy.black),
        _animation(obj),
        obj.pose and [(bone.name, _rounded(bone.matrix_basis)) for bone in obj.pose.bones],
    )


def _mesh(mesh: bpy.types.Mesh) -> tuple[Any, ...]:
    points = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", points)
    return len(mesh.vertices), float(np.abs(points).sum()), mesh.materials.keys()


def _keys(key: bpy.types.Key) -> tuple[Any, ...]:
    points = np.empty(3 * len(key.reference_key.data), np.float32)
    key.reference_key.data.foreach_get("co", points)
    blocks = [(block.name, round(block.value, 6), block.mute, block.slider_max) for block in key.key_blocks]
    return float(np.abs(points).sum()), blocks, _animation(key)


def _rest(data: bpy.types.Armature) -> list[Any]:
    return [(bone.name, _rounded(bone.matrix_local)) for bone in data.bones]


def _action(action: bpy.types.Action) -> list[Any]:
    if hasattr(action, "slots"):
        bags = [bag for layer in action.layers for strip in layer.strips for bag in strip.channelbags]
        curves = [curve for bag in bags for curve in bag.fcurves]
    else:
        curves = list(action.fcurves)
    return [
        (each.data_path, each.array_index, [_rounded(point.co) for point in each.keyframe_points]) for each in curves
    ]


def _animation(target: bpy.types.ID) -> Any:
    data = target.animation_data
    if data is None:
        return None
    strips = [
        (track.name, track.mute, strip.name, strip.action and strip.action.name, strip.frame_start, strip.blend_type)
        for track, strip in rigging().action.strips_of(target)
    ]
    drivers = [(each.data_path, each.driver.expression) for each in data.drivers]
    return data.action and data.action.name, data.action_blend_type, data.use_tweak_mode, strips, drivers


def _scene(scene: bpy.types.Scene) -> tuple[Any, ...]:
    render, view, editor = scene.render, scene.view_settings, scene.sequence_editor
    strips = (getattr(editor, "strips_all", None) or getattr(editor, "sequences_all", ())) if editor else ()
    return (
        (render.engine, render.resolution_x, render.resolution_y, render.fps, render.fps_base, render.film_transparent),
        (scene.frame_start, scene.frame_end, scene.sync_mode, view.view_transform, view.look),
        scene.camera and scene.camera.name,
        [(layer.name, layer.use_pass_z) for layer in scene.view_layers],
        sorted(each.name for each in scene.objects),
        scene.collection.children.keys(),
        [(each.name, each.type, each.channel) for each in strips],
        [(each.name, each.frame) for each in scene.timeline_markers],
        [node.name for tree in _compositors(scene) for node in tree.nodes],
    )


def _compositors(scene: bpy.types.Scene) -> list[Any]:
    """The node trees of the scene's compositor, which Blender keeps elsewhere in 5.3, in 5.0 and before."""
    if hasattr(scene, "compositor_effects"):
        trees = [effect.node_group for effect in scene.compositor_effects]
    elif hasattr(scene, "compositing_node_group"):
        trees = [scene.compositing_node_group]
    else:
        trees = [scene.node_tree]
    return [tree for tree in trees if tree is not None]


def _modifier(modifier: bpy.types.Modifier) -> list[Any]:
    values = [getattr(modifier, each.identifier) for each in modifier.bl_rna.properties if each.type != "COLLECTION"]
    return [
        value.name if hasattr(value, "name") else value
        for value in values
        if isinstance(value, (bool, str, bpy.types.ID))
    ]


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple((np.round(np.array(values, np.float64).ravel(), 5) + 0.0).tolist())
