"""The player of each rig's avatar, kept while the avatar's file and the rig's shape keys are the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import bpy
from bpy.app.handlers import persistent

from ..avatar_header import NOUN, REMEDY, names_in
from ..errors import EffigyError
from ..reading import reading
from ..rig.placement import head_place
from ..rig.rig_properties import Rig
from .baked_file import BUST, BakedAvatar, read_baked
from .deltas import read_deltas
from .evaluate import Player
from .head import HeadDeltas

MOST_KEPT: Final = 8
"""Avatars, and heads, with some megabytes each."""

_files: Final[dict[tuple[Any, ...], BakedAvatar | EffigyError | None]] = {}
"""By path, modification time and size; an error for a damaged file, None for one without a baked model."""
_busts: Final[dict[tuple[Any, ...], bool]] = {}
"""By the same key: whether the avatar has collar and shoulders."""
_heads: Final[dict[tuple[Any, ...], HeadDeltas]] = {}
"""By the mesh's shape keys."""
_players: Final[dict[tuple[Any, ...], Player]] = {}
"""By both keys."""
_edited: Final[dict[int, int]] = {}
"""By the number of a mesh whose shape keys an artist has edited: how often its mode was left since."""
_in_edit: Final[set[int]] = set()
"""Meshes that are being edited."""
EDIT_MODES: Final = frozenset({"EDIT", "SCULPT"})
"""In which an artist changes shape keys."""


def player_of(rig: Rig, path: Path, depsgraph: bpy.types.Depsgraph) -> Player | None:
    """The player of the avatar in the file `path` on a rig; None if the file has no baked model.

    Raises an `EffigyError` for a damaged file and for an avatar of another head model.
    """
    file = _file_key(path)
    baked = _baked(path, file)
    if baked is None:
        return None
    if baked.head_fingerprint != rig.head_fingerprint:
        raise EffigyError(
            f"The avatar {path.name} was trained on another head model than “{rig.armature.name}” is of: add it "
            "without a rig selected, to get a rig of its own."
        )
    mesh = rig.mesh.data
    keys = mesh.shape_keys
    head = mesh.session_uid, keys.session_uid, len(keys.key_blocks), len(mesh.vertices), edits_of(rig)
    if (file, head) not in _players:
        if head not in _heads:
            _keep(_heads, head, read_deltas(rig, head_place(rig, depsgraph).vertices))
        _keep(_players, (file, head), Player(baked, _heads[head]))
    return _players[file, head]


def edits_of(rig: Rig) -> int:
    """How often the shape of a rig's head was edited since the file was opened."""
    return _edited.get(rig.mesh.data.session_uid, 0)


def has_player(path: Path) -> bool:
    """Whether the avatar in a file has a baked model. False for a file that cannot be read."""
    try:
        return _baked(path, _file_key(path)) is not None
    except EffigyError:
        return False


def has_enhancer(path: Path) -> bool:
    """Whether the avatar in a file can be played, and was trained with an enhancer. False as in `has_player`."""
    try:
        baked = _baked(path, _file_key(path))
    except EffigyError:
        return False
    return baked is not None and baked.has_enhancer


def has_bust(path: Path) -> bool:
    """Whether the avatar in a file has collar and shoulders, no matter who evaluates it. False as in `has_player`."""
    try:
        key = _file_key(path)
        if key not in _busts:
            baked = _baked(path, key)
            # The worker evaluates an avatar without a baked model.
            found = BUST in names_in(path) if baked is None else baked.bust is not None
            _keep(_busts, key, found)
        return _busts[key]
    except EffigyError:
        return False


def _file_key(path: Path) -> tuple[Any, ...]:
    with reading(path, NOUN, REMEDY):
        status = path.stat()
        return str(path), status.st_mtime_ns, status.st_size


def _baked(path: Path, key: tuple[Any, ...]) -> BakedAvatar | None:
    if key not in _files:
        try:
            found = read_baked(path)
        except EffigyError as error:
            found = error
        _keep(_files, key, found)
    found = _files[key]
    if isinstance(found, EffigyError):
        raise EffigyError(str(found))
    return found


def _keep(kept: dict[tuple[Any, ...], Any], key: tuple[Any, ...], value: Any) -> None:
    while len(kept) >= MOST_KEPT:
        del kept[next(iter(kept))]
    kept[key] = value


@persistent
def _note_edits(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph | None = None) -> None:
    """Values of shape keys change in object mode, with every slider; their points only in these modes."""
    view_layer = depsgraph.view_layer if depsgraph is not None else None
    active = view_layer.objects.active if view_layer is not None else None
    edited = set()
    if active is not None and active.type == "MESH" and active.mode in EDIT_MODES:
        edited.add(active.original.data.session_uid)
    for left in _in_edit - edited:
        _edited[left] = _edited.get(left, 0) + 1
    _in_edit.clear()
    _in_edit.update(edited)


@persistent
def _before_load(*_: object) -> None:
    # Numbers of meshes may come again in another file.
    unregister()


@persistent
def _after_undo(*_: object) -> None:
    for mesh in _edited:
        _edited[mesh] += 1


handlers: Final = (
    ("load_pre", _before_load),
    ("depsgraph_update_post", _note_edits),
    ("undo_post", _after_undo),
    ("redo_post", _after_undo),
)


def unregister() -> None:
    for kept in (_files, _busts, _heads, _players, _edited, _in_edit):
        kept.clear()
