"""The avatar of a rig: a file beside the .blend, stored by its path, or packed inside the .blend.

A packed avatar is a text datablock that holds the file in base64, the only datablock for arbitrary bytes that appending
and linking carry along. The worker reads files only, so a packed avatar is written once to the extension's user folder,
under its hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from bpy.app.handlers import persistent

from . import preferences
from .errors import EffigyError
from .file_names import safe_file_name
from .paths import absolute, stored
from .renaming import rename
from .reporting import report_soon
from .rig.rig_properties import Rig, find_rig, find_rigs
from .worker import session

SUFFIX: Final = ".effigy"
COLUMNS: Final = 4096
"""Characters per line. Text datablocks are slow if they have many lines."""
OPEN_TIMEOUT: Final = 60.0
"""Seconds."""


@dataclass(frozen=True)
class AvatarInfo:
    """The description of an avatar's file."""

    head_name: str
    head_fingerprint: str
    identity: np.ndarray
    """(S,) identity coefficients of the person."""
    gaussians: int
    size: int
    """Side of the training images, pixels."""

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> AvatarInfo:
        """From the worker's answer to `avatar.open`."""
        try:
            info = answer["info"]
            return cls(
                head_name=str(info["head_name"]),
                head_fingerprint=str(info["head_fingerprint"]),
                identity=np.asarray(info["identity"], np.float32),
                gaussians=int(info["gaussians"]),
                size=int(info["size"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise EffigyError(
                f"The backend described the avatar in a way that is unknown here ({error}): "
                "install the backend again, from this version's preferences."
            ) from error


def has_avatar(armature: bpy.types.Object) -> bool:
    return bool(armature.effigy.avatar or armature.effigy.packed)


def avatar_path(armature: bpy.types.Object) -> Path:
    """The file with the avatar of a rig's armature. Raises an `EffigyError` if it has no avatar or the file is
    missing.
    """
    if armature.effigy.packed:
        return _unpacked(armature.effigy.packed)
    if not armature.effigy.avatar:
        raise EffigyError(f"“{armature.name}” has no avatar yet: train one, or add an existing {SUFFIX} file.")
    path = absolute(armature.effigy.avatar, armature)
    if not path.is_file():
        raise EffigyError(f"The avatar of “{armature.name}” is not at {path}: press Relink and choose the file.")
    return path


def missing(scene: bpy.types.Scene) -> Iterator[bpy.types.Object]:
    """The armatures of a scene whose avatar's file is missing."""
    for rig in find_rigs(scene.objects):
        settings = rig.armature.effigy
        if settings.avatar and not settings.packed and not absolute(settings.avatar, rig.armature).is_file():
            yield rig.armature


def read_info(path: Path) -> AvatarInfo:
    """Reads an avatar's description through the worker. Waits for the answer, so call it from a thread."""
    if not path.is_file():
        raise EffigyError(f"There is no avatar at {path}.")
    answer = session.client().call("avatar.open", {"path": path}, timeout=OPEN_TIMEOUT)
    return AvatarInfo.from_answer(answer)


def set_avatar(rig: Rig, path: Path, info: AvatarInfo) -> None:
    """Assigns the avatar in `path` to a rig. Raises an `EffigyError` if it was trained on another head model."""
    if info.head_fingerprint != rig.head_fingerprint:
        raise EffigyError(
            f"The avatar {path.name} was trained on the head model “{info.head_name}”, and "
            f"“{rig.armature.name}” is of “{rig.head_name}”: add it without a rig selected, to get a "
            "rig of its own."
        )
    if rig.armature.library is not None:
        raise EffigyError(
            f"“{rig.armature.name}” is linked from another file: make a library override of it, or change it there."
        )
    rig.armature.effigy.avatar, rig.armature.effigy.packed = stored(path), None


def relink(rig: Rig, path: Path, info: AvatarInfo) -> int:
    """Assigns the avatar in `path` to the rig and to every other rig whose avatar is the same missing file. Returns the
    number of rigs.
    """
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
    """Packs the avatar's file into the .blend."""
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
    """Writes a packed avatar to a file and uses that. The file is where it was packed from, or else beside the
    .blend.
    """
    text = armature.effigy.packed
    if text is None:
        raise EffigyError(f"The avatar of “{armature.name}” is not packed.")
    path = absolute(armature.effigy.avatar, armature) if armature.effigy.avatar else None
    data = _bytes_of(text)
    if path is None or (path.is_file() and path.read_bytes() != data) or not path.parent.is_dir():
        path = unused(home() / safe_file_name(text.name, SUFFIX))
    if not path.is_file():
        _write(path, data)
    armature.effigy.avatar, armature.effigy.packed = stored(path), None
    if text.users == 0:
        bpy.data.texts.remove(text)
    return path


def home() -> Path:
    """The folder for new files: that of the .blend, or the user's home folder while the .blend is unsaved."""
    return Path(bpy.data.filepath).parent if bpy.data.filepath else Path.home()


def unused(path: Path, taken: tuple[Path, ...] = ()) -> Path:
    """`path`, with a number added if it exists or is one of `taken`."""
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
            f"The packed avatar “{text.name}” was edited and can no longer be read: relink its file."
        ) from error


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        rename(temporary, path)
    except OSError as error:
        raise EffigyError(f"The avatar could not be written to {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@persistent
def _report_missing(*_: object) -> None:
    """Reports missing avatars when a file is opened, instead of leaving the artist with empty renders."""
    lost = [armature for scene in bpy.data.scenes for armature in missing(scene)]
    if lost:
        names = ", ".join(f"“{armature.name}” ({absolute(armature.effigy.avatar, armature)})" for armature in lost)
        report_soon(f"The avatar's file is missing for {names}: press Relink in the Effigy tab and choose the file.")


def register() -> None:
    bpy.app.handlers.load_post.append(_report_missing)


def unregister() -> None:
    if _report_missing in bpy.app.handlers.load_post:
        bpy.app.handlers.load_post.remove(_report_missing)
