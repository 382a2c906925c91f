"""The avatar of a rig: a file beside the .blend, by its path, or packed inside it.

A packed avatar is a text datablock (Blender keeps no other bytes of ours that appending and linking carry along) with
the file in base64. The worker reads files only, so a packed one is written out once, into the extension's user folder,
under its own hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import bpy
from bpy.app.handlers import persistent

from . import preferences
from .errors import EffigyError
from .paths import absolute, stored
from .reporting import tell_soon
from .rig.rig_properties import Rig, find_rig, find_rigs
from .worker import session

SUFFIX: Final = ".effigy"
COLUMNS: Final = 4096
"""Characters a line: text datablocks are slow with many lines."""
SECONDS_TO_OPEN: Final = 60.0


def has_avatar(armature: bpy.types.Object) -> bool:
    return bool(armature.effigy.avatar or armature.effigy.packed)


def avatar_path(armature: bpy.types.Object) -> Path:
    """The file that holds the avatar of a rig's armature; an `EffigyError` where it has none or its file is gone."""
    if armature.effigy.packed:
        return _unpacked(armature.effigy.packed)
    if not armature.effigy.avatar:
        raise EffigyError(f"“{armature.name}” has no avatar yet: train one, or add an existing {SUFFIX} file.")
    path = absolute(armature.effigy.avatar, armature)
    if not path.is_file():
        raise EffigyError(f"The avatar of “{armature.name}” is not at {path}: press Relink and show where it is now.")
    return path


def missing(scene: bpy.types.Scene) -> Iterator[bpy.types.Object]:
    """The armatures of a scene whose avatar's file is gone."""
    for rig in find_rigs(scene.objects):
        settings = rig.armature.effigy
        if settings.avatar and not settings.packed and not absolute(settings.avatar, rig.armature).is_file():
            yield rig.armature


def describe(path: Path) -> dict[str, Any]:
    """What the worker says of an avatar's file (`avatar.open`); waits, so call it from a thread."""
    if not path.is_file():
        raise EffigyError(f"There is no avatar at {path}.")
    return session.client().call("avatar.open", {"path": path}, timeout=SECONDS_TO_OPEN)["info"]


def set_avatar(rig: Rig, path: Path, info: dict[str, Any]) -> None:
    """Show the avatar in `path` on a rig, if it was made on the rig's head model."""
    if info["head_fingerprint"] != rig.head_fingerprint:
        raise EffigyError(
            f"The avatar {path.name} was trained on the head model “{info['head_name']}”, and "
            f"“{rig.armature.name}” is of “{rig.head_name}”: add it without a rig selected, and it "
            "gets one of its own."
        )
    if rig.armature.library is not None:
        raise EffigyError(
            f"“{rig.armature.name}” is linked from another file: make a library override of it, or change it there."
        )
    rig.armature.effigy.avatar, rig.armature.effigy.packed = stored(path), None


def relink(rig: Rig, path: Path, info: dict[str, Any]) -> int:
    """Give the rig, and every other rig that has lost the same file, the avatar in `path`; how many they were."""
    old, lost = rig.armature.effigy.avatar, [rig.armature]
    if old:
        lost += [
            armature
            for scene in bpy.data.scenes
            for armature in missing(scene)
            if armature.effigy.avatar == old and armature.library is None and armature != rig.armature
        ]
    for armature in dict.fromkeys(lost):
        set_avatar(find_rig(armature), path, info)
    return len(set(lost))


def pack(armature: bpy.types.Object) -> None:
    """Take the avatar's file into the .blend."""
    path = avatar_path(armature)
    if armature.effigy.packed:
        raise EffigyError(f"The avatar of “{armature.name}” is packed already.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EffigyError(f"The avatar {path} cannot be read: {error.strerror or error}.") from error
    text = bpy.data.texts.new(path.name)
    text.use_fake_user = False
    text.from_string("\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), COLUMNS)))
    armature.effigy.packed = text


def unpack(armature: bpy.types.Object) -> Path:
    """Write a packed avatar beside the .blend again and use that file."""
    text = armature.effigy.packed
    if text is None:
        raise EffigyError(f"The avatar of “{armature.name}” is not packed.")
    kept = absolute(armature.effigy.avatar, armature) if armature.effigy.avatar else None
    data = _bytes_of(text)
    if kept is None or (kept.is_file() and kept.read_bytes() != data) or not kept.parent.is_dir():
        kept = unused(home() / Path(text.name).with_suffix(SUFFIX).name)
    _write(kept, data)
    armature.effigy.avatar, armature.effigy.packed = stored(kept), None
    if text.users == 0:
        bpy.data.texts.remove(text)
    return kept


def home() -> Path:
    """Where new files go: beside the .blend, or, while that is unsaved, the user's folder."""
    return Path(bpy.data.filepath).parent if bpy.data.filepath else Path.home()


def unused(path: Path, taken: tuple[Path, ...] = ()) -> Path:
    """`path`, or with a number if something is there already or about to be."""
    number, chosen = 1, path
    while chosen.exists() or chosen in taken:
        number += 1
        chosen = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return chosen


def _unpacked(text: bpy.types.Text) -> Path:
    data = _bytes_of(text)
    path = preferences.user_folder("unpacked") / f"{hashlib.sha256(data).hexdigest()[:24]}{SUFFIX}"
    if not path.is_file():
        _write(path, data)
    return path


def _bytes_of(text: bpy.types.Text) -> bytes:
    try:
        return base64.b64decode("".join(line.body for line in text.lines), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EffigyError(
            f"The packed avatar “{text.name}” was edited and cannot be read any more: relink its file."
        ) from error


def _write(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise EffigyError(f"The avatar could not be written to {path}: {error.strerror or error}.") from error


@persistent
def _report_missing(*_: object) -> None:
    """An artist who opens a file whose avatars have gone is told, rather than left with empty renders."""
    lost = [armature for scene in bpy.data.scenes for armature in missing(scene)]
    if lost:
        names = ", ".join(f"“{armature.name}” ({absolute(armature.effigy.avatar, armature)})" for armature in lost)
        tell_soon(f"The avatar's file is gone for {names}: press Relink in the Effigy tab and show where it is now.")


def register() -> None:
    bpy.app.handlers.load_post.append(_report_missing)


def unregister() -> None:
    if _report_missing in bpy.app.handlers.load_post:
        bpy.app.handlers.load_post.remove(_report_missing)
