"""The pose library: pose assets of the face with pictures of one avatar, in an asset library of the extension.

Each avatar has a .blend of its own in a folder below the extension's user folder, which is registered in the
preferences as an asset library. Blender reads the assets, shows them in the Asset Browser and in the asset shelf of
Pose Mode, and applies and blends them; nothing of the extension is needed for that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import bpy
import numpy as np

from . import preferences
from .avatars import avatar_path, has_avatar
from .engine import played_frame
from .engine.camera import WorkerCamera
from .engine.cancellable_call import call_unless_cancelled
from .engine.rendered_frame import EMPTY_ALPHA, RenderedFrame
from .engine.subjects import RenderSubjects, Subject
from .face_board.expressions import EXPRESSIONS
from .face_board.pose_assets import (
    catalog_id,
    make_asset,
    places_of_expression,
    places_of_face,
    seen_pose,
    set_thumbnail,
)
from .face_board.values import Board, Places, board_of
from .file_names import file_name
from .player.players import player_of
from .reading import reading
from .rig.data import JOINT_NAMES
from .rig.rig_properties import Rig
from .worker import session
from .writing import sentences_about, write_file, written

NAME: Final = "Effigy Poses"
"""Of the asset library in the preferences."""
SIZE: Final = 256
"""Pixels of a side of a thumbnail."""
SEEN: Final = 0.22
"""Metres that a thumbnail shows from its upper to its lower edge: a face reads better than a whole head."""
DISTANCE: Final = 0.9
"""Metres from the camera to the eyes."""
LEAST_TOLD: Final = 0.02
"""Of a slider: less of what a pose lacks is not told."""
_CATALOGS: Final = "blender_assets.cats.txt"
_SEPARATORS: Final = re.compile(r"[:/\\]")
_HEADER: Final = "# This is an Asset Catalog Definition file for Blender.\n\nVERSION 1\n"


def folder() -> Path:
    """The folder of the asset library. It is created if it does not exist."""
    return preferences.user_folder("poses")


def is_registered() -> bool:
    """Whether Blender's preferences name the asset library."""
    return _entry() is not None


def make(rig: Rig, depsgraph: bpy.types.Depsgraph, tell: Callable[[float], None] = lambda share: None) -> Path:
    """Writes the poses of a rig with pictures of its avatar into a .blend, in place of earlier ones of its name, and
    registers the asset library. `tell` is called with the share that is done. Raises an `EffigyError`.
    """
    board, pictures, name = board_of(rig), Pictures(rig, depsgraph), rig.mesh.name
    place = _made_folder() / file_name(name, ".blend")
    made: list[bpy.types.Action] = []
    try:
        for number, expression in enumerate(EXPRESSIONS, 1):
            if places := places_of_expression(board, expression):
                made.append(make_asset(rig, places, expression.name, catalog_of(name, expression.kind)))
                pictures.show(made[-1], board, places)
            tell(number / len(EXPRESSIONS))
        with written(place, "write a pose library") as temporary:
            bpy.data.libraries.write(str(temporary), set(made), fake_user=True, compress=True)
    finally:
        for action in made:
            bpy.data.actions.remove(action)
    _write_catalogs(name)
    if _entry() is None:
        bpy.context.preferences.filepaths.asset_libraries.new(name=NAME, directory=str(folder()))
        bpy.context.preferences.is_dirty = True
    return place


def remove() -> None:
    """Takes the asset library out of the preferences and deletes the files that `make` has written. Poses that the
    artist has saved there stay on the disk.
    """
    libraries = bpy.context.preferences.filepaths.asset_libraries
    if (entry := _entry()) is not None:
        libraries.remove(entry)
        bpy.context.preferences.is_dirty = True
    for path in _made_folder().glob("*.blend"):
        with sentences_about(path):
            path.unlink(missing_ok=True)


def add_pose(rig: Rig, depsgraph: bpy.types.Depsgraph, name: str) -> str:
    """Adds the face that is shown to this file's own assets. Returns a sentence about what bones cannot hold, if
    any.
    """
    board = board_of(rig)
    places, left = places_of_face(rig, board)
    action = make_asset(rig, places, name)
    # A file keeps a datablock that nothing uses only if it is told to.
    action.use_fake_user = True
    Pictures(rig, depsgraph).show(action, board, places)
    names = [each for each, value in zip(board.sliders, left.tolist(), strict=True) if abs(value) > LEAST_TOLD]
    if not names:
        return ""
    return f"Opposite sliders share a bone, so the pose has less of these: {', '.join(names)}."


class Pictures:
    """Pictures of a rig's avatar, from the front; none of a rig without one."""

    def __init__(self, rig: Rig, depsgraph: bpy.types.Depsgraph) -> None:
        self._rig = rig
        self._avatar = avatar_path(rig.armature) if has_avatar(rig.armature) else None
        self._player = player_of(rig, self._avatar, depsgraph) if self._avatar is not None else None

    def show(self, action: bpy.types.Action, board: Board, places: Places) -> None:
        """Gives a pose asset its picture, if there is an avatar."""
        if (image := self.of(board, places)) is not None:
            set_thumbnail(action, image)

    def of(self, board: Board, places: Places) -> np.ndarray | None:
        """(SIZE, SIZE, 4) with the handles at `places`: sRGB-encoded, alpha not premultiplied."""
        if self._avatar is None:
            return None
        pose = seen_pose(self._rig, board, places)
        visible = RenderSubjects((Subject(self._avatar, pose, player=self._player),), ())
        camera = _camera(self._rig)
        if not bpy.app.background and played_frame.is_playable(visible, False):
            frame = played_frame.draw(visible, camera)
        else:
            params = {"subjects": [each.message() for each in visible.subjects], "camera": camera.message()}
            answer = call_unless_cancelled(session.client(), "avatar.render", params, lambda: False)
            frame = RenderedFrame.from_answer(answer)
        covered = np.maximum(frame.alpha, EMPTY_ALPHA)[..., None]
        return np.clip(np.dstack((frame.color / covered, frame.alpha)), 0, 1)


def _camera(rig: Rig) -> WorkerCamera:
    """In front of the face of a head at the world's origin."""
    joints = rig.base_joints
    eyes = joints[[JOINT_NAMES.index("eye_L"), JOINT_NAMES.index("eye_R")]].mean(0)
    turn = np.diag((1.0, -1.0, -1.0))
    world_to_camera, focal = np.eye(4), SIZE * DISTANCE / SEEN
    world_to_camera[:3, :3] = turn
    world_to_camera[:3, 3] = -turn @ (eyes + (0, -0.14 * SEEN, DISTANCE))
    intrinsics = np.array(((focal, 0, SIZE / 2), (0, focal, SIZE / 2), (0, 0, 1)))
    return WorkerCamera(world_to_camera, intrinsics, False, SIZE, SIZE)


def _entry() -> bpy.types.UserAssetLibrary | None:
    libraries = bpy.context.preferences.filepaths.asset_libraries
    return next((each for each in libraries if each.name == NAME and Path(each.path) == folder()), None)


def _made_folder() -> Path:
    return preferences.user_folder("poses", "avatars")


def catalog_of(name: str, kind: str) -> str:
    """The path of an asset catalog. A colon ends a path in the list of catalogs, and a slash one of its parts."""
    return f"{_SEPARATORS.sub(' ', name)}/{kind}"


def _write_catalogs(name: str) -> None:
    """Adds the catalogs of an avatar to those of the library, some of which may be the artist's."""
    place, text = folder() / _CATALOGS, _HEADER
    if place.is_file():
        with reading(place, "list of asset catalogs", "delete it"):
            text = place.read_text("utf-8", "surrogateescape")
    for kind in dict.fromkeys(expression.kind for expression in EXPRESSIONS):
        path = catalog_of(name, kind)
        if catalog_id(path) not in text:
            text = f"{text.rstrip()}\n{catalog_id(path)}:{path}:{path.replace('/', '-')}\n"
    write_file(place, text.encode("utf-8", "surrogateescape"), "write a pose library")
