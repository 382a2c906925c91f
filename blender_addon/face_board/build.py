"""Adds the face board to a rig, and removes it.

The handles are bones of the rig's own armature: pose assets and *Paste Flipped* work on the bones of one armature, keys
of handles, jaw, eyes and neck lie in one action, and whatever copies, appends, links or overrides the rig takes the
board along.

A slider's value and its keys stay as they are. What a handle adds is a second shape key with the same vertices
(`rig_properties.handles_name`), which a driver sets, so that a keyed performance and a correction by hand are two
things of which neither overwrites the other. With s the slider's value, o its opposite's and h how far the handles are
moved towards s, the slider's side of s - o counts: the driver gives max(s - o + h, 0) - max(s - o, 0), at most what is
left of the slider's range. So a handle that is pulled down first takes the performance's smile away, then frowns, and a
handle at rest adds nothing. These are *simple expressions*, which Blender evaluates without Python.
"""

from __future__ import annotations

from math import inf
from typing import Final

import bpy
import numpy as np
from mathutils import Matrix, Vector

from ..errors import EffigyError
from ..rig.action import bone_path, value_path
from ..rig.armature import edit_bones
from ..rig.build import DEPENDENCY_PROPERTY
from ..rig.joint_limits import LOOK_SIDEWAYS, LOOK_UP
from ..rig.rig_properties import HANDLE_PROPERTY, Rig, handles_name, meshes_of
from .layout import TRAVEL, Group, Handle, handles_of, opposite
from .places import Places, find_places
from .shapes import frame_shape, handle_shape, remove_unused

BOARD_PROPERTY: Final = "effigy_face_board"
"""Custom property on the armature: how far a handle moves for a slider's value of 1, in the armature's space."""
FRAME_PROPERTY: Final = "effigy_handle_frame"
"""Custom property on the bones that show the board's frames."""
_COLLECTIONS: Final = {Group.FACE: "Face", Group.GAZE: "Gaze", Group.BOARD: "Board"}
_PALETTES: Final = {"L": "THEME01", "R": "THEME04", "": "THEME09"}
_LENGTH: Final = 0.01
"""Metres of a handle's bone, which is the unit of its shape."""
_LIMIT, _GAZE = "Face Board Limit", "Face Board"
"""Names of constraints."""
_WIDEST: Final = 10.0


def has_board(rig: Rig) -> bool:
    """Whether the rig has a face board."""
    return BOARD_PROPERTY in rig.armature


def add_board(rig: Rig, depsgraph: bpy.types.Depsgraph) -> None:
    """Adds the handles, their shape keys and their drivers to a rig. Raises an `EffigyError` on a rig that is linked,
    has a board, or has none of ARKit's sliders.
    """
    check_own(rig)
    if has_board(rig):
        raise EffigyError(f"“{rig.armature.name}” has face controls already.")
    handles = handles_of(name for name in rig.slider_names if name in rig.key_blocks)
    if not any(handle.drives for handle in handles):
        raise EffigyError(
            f'The head model "{rig.head_name}" has none of ARKit\'s sliders, which the face controls move: use the '
            "head model's own sliders."
        )
    places = find_places(rig, handles, depsgraph)
    travel = TRAVEL * float(np.cbrt(np.linalg.det(places.frame[:3, :3])))
    _add_bones(rig, handles, places)
    for handle in handles:
        _set_up_bone(rig, handle, travel)
    _set_up_collections(rig, handles)
    for mesh in meshes_of(rig.armature):
        if mesh.data.library is None and mesh.data.shape_keys is not None:
            _add_keys(Rig(rig.armature, mesh), handles, travel)
    rig.armature[BOARD_PROPERTY] = travel
    rig.armature.update_tag()


def remove_board(rig: Rig) -> None:
    """Removes what `add_board` has added. Keys of the handles stay in the artist's actions."""
    check_own(rig)
    if not has_board(rig):
        raise EffigyError(f"“{rig.armature.name}” has no face controls.")
    for mesh in meshes_of(rig.armature):
        if mesh.data.library is None and mesh.data.shape_keys is not None:
            _remove_keys(Rig(rig.armature, mesh))
    for bone in rig.armature.pose.bones:
        for constraint in [each for each in bone.constraints if each.name.startswith(_GAZE)]:
            bone.constraints.remove(constraint)
    added = [bone.name for bone in rig.armature.data.bones if HANDLE_PROPERTY in bone or FRAME_PROPERTY in bone]
    for name in added:
        rig.armature.pose.bones[name].custom_shape = None
    with edit_bones(rig.armature) as bones:
        for name in added:
            bones.remove(bones[name])
    for name in _COLLECTIONS.values():
        collection = rig.armature.data.collections.get(name)
        if collection is not None and not len(collection.bones):
            rig.armature.data.collections.remove(collection)
    del rig.armature[BOARD_PROPERTY]
    remove_unused()
    rig.armature.update_tag()


def travel_of(rig: Rig) -> float:
    """How far a handle of the rig moves for a slider's value of 1, in the armature's space."""
    travel = rig.armature.get(BOARD_PROPERTY)
    if not isinstance(travel, float) or not 0 < travel < inf:
        raise EffigyError(f"“{rig.armature.name}” has no face controls: add them first.")
    return travel


def reach_of(rig: Rig, handle: Handle) -> float:
    """How far a handle goes, in values of its sliders: as far as these do, which a track may have widened beyond 1."""
    limits = [rig.key_blocks[name].slider_max for names in handle.drives.values() for name in names]
    return max([handle.reach, *limits])


def check_own(rig: Rig) -> None:
    """Refuses a rig whose bones or shape keys are linked from another file."""
    if not rig.is_editable or rig.armature.data.library is not None:
        raise EffigyError(
            f"The bones of “{rig.armature.name}” belong to another file: add or remove its face controls there."
        )


def _add_bones(rig: Rig, handles: list[Handle], places: Places) -> None:
    turn = Matrix(places.frame).to_3x3().normalized()
    up, front, length = turn @ Vector((0, 0, 1)), turn @ Vector((0, -1, 0)), _LENGTH * places.unit
    neck, jaw = rig.bone_name("neck"), rig.bone_name("jaw")
    with edit_bones(rig.armature) as bones:
        for handle in handles:
            names = [handle.name, _frame_name(handle)] if handle.group is Group.BOARD else [handle.name]
            for name in names:
                bone = bones.new(name)
                bone.head = Vector(places.heads[handle.name])
                bone.tail = bone.head + up * length
                bone.align_roll(front)
                bone.parent, bone.use_deform = bones[jaw if handle.follows_jaw else neck], False


def _frame_name(handle: Handle) -> str:
    stem, dot, side = handle.name.partition(".")
    return f"{stem}_frame{dot}{side}"


def _set_up_bone(rig: Rig, handle: Handle, travel: float) -> None:
    """Shape, colour, locks and limits of a handle, and what it turns."""
    bone = rig.armature.pose.bones[handle.name]
    bone.bone[HANDLE_PROPERTY] = handle.name
    bone.custom_shape = handle_shape(handle.shape)
    bone.custom_shape_wire_width = 2.0
    bone.lock_location = tuple(axis not in handle.axes for axis in "xyz")
    bone.lock_rotation = bone.lock_scale = (True, True, True)
    bone.lock_rotation_w = True
    bone.color.palette = _PALETTES[handle.name.partition(".")[2]]
    limit = bone.constraints.new("LIMIT_LOCATION")
    limit.name, limit.owner_space, limit.use_transform_limit = _LIMIT, "LOCAL", True
    for axis in "xyz":
        furthest = reach_of(rig, handle) * travel if axis in handle.axes else 0.0
        for end, value in (("min", -furthest), ("max", furthest)):
            setattr(limit, f"use_{end}_{axis}", True)
            setattr(limit, f"{end}_{axis}", value)
    for joint in handle.turns:
        _turn_eye(rig, joint, handle, travel)
    if handle.group is Group.BOARD:
        frame = rig.armature.pose.bones[_frame_name(handle)]
        frame.bone[FRAME_PROPERTY] = handle.name
        side = handle.name.partition(".")[2]
        frame.custom_shape = frame_shape(handle.shape, f"{handle.label} {side}".strip())
        frame.bone.hide_select = True


def _turn_eye(rig: Rig, joint: str, handle: Handle, travel: float) -> None:
    """Lets a handle turn an eye beside its keyed rotation, as far as the eyeLook sliders' lids follow."""
    constraint = rig.pose_bone(joint).constraints.new("TRANSFORM")
    constraint.name = f"{_GAZE} {handle.name}"
    constraint.target, constraint.subtarget = rig.armature, handle.name
    constraint.target_space = constraint.owner_space = "LOCAL"
    constraint.map_from, constraint.map_to, constraint.mix_mode_rot = "LOCATION", "ROTATION", "BEFORE"
    furthest = handle.reach * travel
    constraint.from_min_x = constraint.from_min_y = -furthest
    constraint.from_max_x = constraint.from_max_y = furthest
    # An eye's bone points out of the face, with its z axis down (`conventions.BONE_AXES`).
    sideways, up = np.radians(handle.reach * LOOK_SIDEWAYS), np.radians(handle.reach * LOOK_UP)
    constraint.map_to_x_from, constraint.map_to_z_from = "Y", "X"
    constraint.to_min_x_rot, constraint.to_max_x_rot = up, -up
    constraint.to_min_z_rot, constraint.to_max_z_rot = sideways, -sideways


def _set_up_collections(rig: Rig, handles: list[Handle]) -> None:
    collections = rig.armature.data.collections
    for handle in handles:
        name = _COLLECTIONS[handle.group]
        collection = collections.get(name) or collections.new(name)
        collection.assign(rig.armature.data.bones[handle.name])
        if handle.group is Group.BOARD:
            collection.assign(rig.armature.data.bones[_frame_name(handle)])


def _add_keys(rig: Rig, handles: list[Handle], travel: float) -> None:
    mesh, blocks = rig.mesh, rig.key_blocks
    shown = mesh.active_shape_key_index
    pulls: dict[str, list[tuple[Handle, str]]] = {}
    for handle in handles:
        for way, names in handle.drives.items():
            for name in names:
                pulls.setdefault(name, []).append((handle, way))
    points = np.empty(3 * len(blocks[0].data), np.float32)
    for name, pulled in pulls.items():
        if name not in blocks or handles_name(name) in blocks:
            continue
        blocks[name].points.foreach_get("co", points)
        block = mesh.shape_key_add(name=handles_name(name), from_mix=False)
        block.points.foreach_set("co", points)
        block.slider_min, block.slider_max, block.value = -_WIDEST, _WIDEST, 0.0
        block.relative_key = blocks[name].relative_key
        _drive(rig, block, name, pulled, travel)
    mesh.active_shape_key_index = shown
    driver = _dependency(rig)
    for name in pulls:
        if driver is not None and handles_name(name) in blocks:
            variable = driver.variables.new()
            _read_value(variable, rig.mesh.data.shape_keys, handles_name(name), "value")


def _drive(rig: Rig, block: bpy.types.ShapeKey, name: str, pulled: list[tuple[Handle, str]], travel: float) -> None:
    curve = block.driver_add("value")
    # Blender maps values within 1e-4 of a key to the key. Without keys the driver's value is taken as it is.
    curve.keyframe_points.clear()
    driver = curve.driver
    driver.type = "SCRIPTED"
    terms = []
    for index, (handle, way) in enumerate(pulled):
        variable = driver.variables.new()
        variable.name = f"h{index}"
        _read_place(variable, rig.armature, handle, way[1])
        terms.append(f"{way[0]}h{index}")
    key, own = rig.mesh.data.shape_keys, "s"
    for variable_name, slider, value in (
        ("s", name, "value"),
        ("m", name, "slider_max"),
        ("o", opposite(name), "value"),
    ):
        if slider is not None and slider in rig.key_blocks:
            variable = driver.variables.new()
            variable.name = variable_name
            _read_value(variable, key, slider, value)
            own = "(s-o)" if variable_name == "o" else own
    driver.expression = f"min(max({own}+({''.join(terms)})*{1 / travel:.9g},0)-max({own},0),max(m-s,0))"


def _read_place(variable: bpy.types.DriverVariable, armature: bpy.types.Object, handle: Handle, axis: str) -> None:
    """Lets a variable hold a handle's location. Those of the gaze may follow a target by constraints, which count; of
    the others the property itself is read, which has no rounding of matrices.
    """
    variable.type = "TRANSFORMS" if handle.turns else "SINGLE_PROP"
    target = variable.targets[0]
    target.id = armature
    if handle.turns:
        target.bone_target = handle.name
        target.transform_space, target.transform_type = "LOCAL_SPACE", f"LOC_{axis.upper()}"
    else:
        target.data_path = f"{bone_path(handle.name)}.location[{'xyz'.index(axis)}]"


def _read_value(variable: bpy.types.DriverVariable, key: bpy.types.Key, name: str, what: str) -> None:
    variable.type = "SINGLE_PROP"
    target = variable.targets[0]
    target.id_type, target.id = "KEY", key
    target.data_path = f'key_blocks["{bpy.utils.escape_identifier(name)}"].{what}'


def _dependency(rig: Rig) -> bpy.types.Driver | None:
    """The driver by which the armature depends on the expressions (`rig.build`)."""
    data = rig.armature.animation_data
    path = f'["{DEPENDENCY_PROPERTY}"]'
    return next((curve.driver for curve in (data.drivers if data else ()) if curve.data_path == path), None)


def _remove_keys(rig: Rig) -> None:
    blocks = rig.key_blocks
    active = rig.mesh.active_shape_key
    shown = active.name if active is not None else ""
    driver = _dependency(rig)
    added = [handles_name(name) for name in rig.slider_names if handles_name(name) in blocks]
    paths = set(map(value_path, added))
    if driver is not None:
        for variable in [each for each in driver.variables if each.targets[0].data_path in paths]:
            driver.variables.remove(variable)
    for name in added:
        blocks[name].driver_remove("value")
        rig.mesh.shape_key_remove(blocks[name])
    if shown in blocks:
        rig.mesh.active_shape_key_index = blocks.find(shown)
