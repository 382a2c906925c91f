"""Faces as pose assets: actions with one frame that Blender's Asset Browser and pose library apply to the handles."""

from __future__ import annotations

import uuid
from typing import Final

import bpy
import numpy as np

from ..rig.action import Curve, add_curve, bone_path, new_action
from ..rig.joint_limits import LOOK_SIDEWAYS, LOOK_UP
from ..rig.pose import RigPose
from ..rig.rig_properties import Rig
from ..rig.rotations import quaternion_to_axis_angle
from .expressions import GAZE, Expression
from .values import Board, Places, board_of, own_places, own_values

_SPACE: Final = uuid.UUID("6ef1f2b6-1e36-4c29-9d0c-3f0f6a1f6e11")


def catalog_id(path: str) -> str:
    """The number by which Blender knows the asset catalog `path`, the same on every machine."""
    return str(uuid.uuid5(_SPACE, path))


def places_of_expression(board: Board, expression: Expression) -> Places:
    """Where a pose puts the handles that it sets; those of sliders that the head lacks are left out."""
    total = np.array([expression.sliders.get(name, 0.0) for name in board.sliders])
    places, _ = board.divide(total, np.zeros(len(board.sliders)))
    gaze = {(GAZE, axis): np.float64(value) for axis, value in zip("xy", expression.gaze, strict=True)}
    places = {**places, **(gaze if any(expression.gaze) else {})}
    moved = {name for (name, _), place in places.items() if place}
    return {place: value for place, value in places.items() if expression.poses(place[0], place[0] in moved)}


def places_of_face(rig: Rig, board: Board) -> tuple[Places, np.ndarray]:
    """Where handles alone would show the face that sliders and handles show now, and what they cannot hold (K,)."""
    own, largest = own_values(rig, board)
    total = board.total(own, board.pull(own_places(rig, board)), largest)
    gaze = own_places(rig, board, only_gaze=True)
    places, left = board.divide(total, board.pull(gaze))
    return {**places, **gaze}, left


def make_asset(rig: Rig, places: Places, name: str, catalog: str = "") -> bpy.types.Action:
    """An action with the handles at `places` in frame 1, marked as an asset of the catalog with the path `catalog`."""
    board, bones = board_of(rig), rig.handle_bones()
    action = new_action(name, rig.armature)
    for handle in sorted({handle for handle, _ in places}):
        bone = bones[handle].name
        path = f"{bone_path(bone)}.location"
        for index, axis in enumerate("xyz"):
            value = float(places.get((handle, axis), 0.0)) * board.travel
            add_curve(action, Curve(path, index, bone, np.ones(1), np.full(1, value)))
    action.asset_mark()
    action.asset_data.author = "Effigy"
    action.asset_data.tags.new("face")
    if catalog:
        action.asset_data.tags.new(catalog.rpartition("/")[2].lower())
        action.asset_data.catalog_id = catalog_id(catalog)
    return action


def set_thumbnail(action: bpy.types.Action, image: np.ndarray) -> None:
    """Gives an asset a picture: (H, W, 4) sRGB-encoded, alpha not premultiplied, top row first."""
    preview = action.preview_ensure()
    preview.image_size = image.shape[1::-1]
    preview.image_pixels_float.foreach_set(np.ascontiguousarray(image[::-1], np.float32).ravel())


def seen_pose(rig: Rig, board: Board, places: Places) -> RigPose:
    """The pose of a head at the world's origin with neutral sliders and its handles at `places`."""
    neutral = np.zeros(len(board.sliders))
    values = board.total(neutral, board.pull(places), neutral + 1)
    total = dict(zip(board.sliders, values.tolist(), strict=True))
    expression = np.array([total.get(name, 0.0) for name in rig.expression_names])
    jaw = np.zeros(3)
    if rig.arkit_names:
        channels = np.array([total.get(name, 0.0) for name in rig.arkit_names])
        expression, jaw = expression + channels @ rig.arkit_expression, channels @ rig.arkit_jaw
    eyes = {joint: _turned(places, joint) for joint in ("eye_L", "eye_R")}
    return RigPose(
        expression.astype(np.float32),
        neck=np.zeros(3, np.float32),
        jaw=jaw.astype(np.float32),
        **eyes,
        root=np.eye(4),
        head_motion=np.eye(4),
    )


def _turned(places: Places, joint: str) -> np.ndarray:
    """(3,) axis-angle in head space by which the handles of the gaze turn an eye."""
    names = (GAZE, f"{GAZE}.{joint[-1]}")
    sideways, up = (sum(float(places.get((name, axis), 0.0)) for name in names) for axis in "xy")
    turn, nod = np.radians(sideways * LOOK_SIDEWAYS) / 2, np.radians(-up * LOOK_UP) / 2
    # First the nod about x, then the turn about y.
    w, x, y = np.cos(turn) * np.cos(nod), np.cos(turn) * np.sin(nod), np.sin(turn) * np.cos(nod)
    quaternion = np.array(((w, x, y, -np.sin(turn) * np.sin(nod)),))
    return quaternion_to_axis_angle(quaternion)[0].astype(np.float32)
