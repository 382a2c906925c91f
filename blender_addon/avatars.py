"""The avatar of a rig: a file beside the .blend, stored by its path, or packed inside the .blend.

A packed avatar is a text datablock that holds the file in base64, the only datablock for arbitrary bytes that appending
and linking carry along. The worker reads files only, so a packed avatar is written once to the extension's user folder,
under its hash. It is written nowhere else but by *Unpack Avatar*, into the folder that the artist sees, and never
before its bytes were recognised as an avatar.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bpy
import numpy as np
from bpy.app.handlers import persistent

from . import preferences, trusted_paths
from .avatar_header import NOUN, REMEDY, check_avatar_file, is_avatar
from .errors import EffigyError
from .file_names import file_name, readable
from .paths import absolute, is_file, stored
from .player.baked_file import BakedAvatar, read_baked
from .player.players import has_bust
from .reading import check_unless_missing, reading
from .renaming import write_new
from .reporting import report_soon
from .rig.armature import add_torso
from .rig.rig_properties import Rig, find_rig, find_rigs
from .worker import session

SUFFIX: Final = ".effigy"
COLUMNS: Final = 4096
"""Characters per line. Text datablocks are slow if they have many lines."""
OPEN_TIMEOUT: Final = 60.0
"""Seconds."""
LONGEST_SHOWN: Final = 200
"""Characters of a stored path in a message."""
MOST_PACKED: Final = 700 << 20
"""Characters of a packed avatar: the backend reads avatars of up to 512 MiB, which are 683 MiB in base64. A larger text
would only fill the memory."""


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

    @classmethod
    def from_baked(cls, baked: BakedAvatar) -> AvatarInfo:
        return cls(baked.head_name, baked.head_fingerprint, baked.identity, baked.gaussians, baked.size)


def has_avatar(armature: bpy.types.Object) -> bool:
    return bool(armature.effigy.avatar or armature.effigy.packed)


def avatar_path(armature: bpy.types.Object, *, asked: bool = True) -> Path:
    """The file with the avatar of a rig's armature. Raises an `EffigyError` if it has no avatar or the file is missing.

    `asked`: whether the artist has asked for something that needs the file. Otherwise it is looked for only if the
    .blend names a file that was used on this computer before (`trusted_paths`).
    """
    if not asked and not is_known(armature):
        raise EffigyError(
            f"The avatar of “{armature.name}” was not used on this computer before, so it is not shown yet: press Look "
            "for Its Files in the Effigy tab if you trust whoever made this .blend."
        )
    if armature.effigy.packed:
        return _unpacked(armature.effigy.packed)
    if not armature.effigy.avatar:
        raise EffigyError(f"“{armature.name}” has no avatar yet: train one, or add an existing {SUFFIX} file.")
    path = absolute(armature.effigy.avatar, armature)
    if not is_file(path):
        check_unless_missing(path, NOUN)
        raise EffigyError(f"The avatar of “{armature.name}” is not at {path}: press Relink Avatar and choose the file.")
    return path


def is_known(armature: bpy.types.Object) -> bool:
    """Whether the avatar of an armature may be read without a click: its file or its packed bytes were used on this
    computer before, or it has none.
    """
    settings = armature.effigy
    try:
        if settings.packed:
            digest = _digest(settings.packed)
            return not digest or is_file(_place_of(digest))
        return not settings.avatar or trusted_paths.trusts(absolute(settings.avatar, armature))
    except EffigyError:
        # Damaged: looking for it reaches for no file, and gives the sentence for the artist.
        return True


def missing(scene: bpy.types.Scene, *, asked: bool = True) -> Iterator[bpy.types.Object]:
    """The armatures of a scene whose avatar's file is missing. `asked`: as in `avatar_path`."""
    for armature in dict.fromkeys(rig.armature for rig in find_rigs(scene.objects)):
        settings = armature.effigy
        if not settings.avatar or settings.packed or not (asked or is_known(armature)):
            continue
        try:
            found = is_file(absolute(settings.avatar, armature))
        except EffigyError:
            found = False
        if not found:
            yield armature


def stored_path(armature: bpy.types.Object) -> Path | None:
    """The full path of the avatar's file; None if there is none or it is damaged."""
    with suppress(EffigyError):
        return absolute(armature.effigy.avatar, armature) if armature.effigy.avatar else None
    return None


def read_info(path: Path) -> AvatarInfo:
    """Reads an avatar's description from the baked model in its file or, without one, through the worker. Waits for
    the answer, so call it from a thread.
    """
    check_avatar_file(path)
    if (baked := read_baked(path)) is not None:
        return AvatarInfo.from_baked(baked)
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
    _check_own(rig.armature)
    use_file(rig.armature, path)
    if has_bust(path):
        add_torso(rig)


def use_file(armature: bpy.types.Object, path: Path) -> None:
    """Makes the file `path` the armature's avatar. A packed one that no other rig uses leaves the .blend: it would be
    saved with it, some tens of megabytes that nobody sees.
    """
    text = armature.effigy.packed
    armature.effigy.avatar, armature.effigy.packed = stored(path), None
    if text is not None and text.users == 0:
        bpy.data.texts.remove(text)


def relink(rig: Rig, path: Path, info: AvatarInfo) -> int:
    """Assigns the avatar in `path` to the rig and to every other rig whose avatar is the same missing file. Returns the
    number of rigs.
    """
    old, lost = stored_path(rig.armature), [rig.armature]
    if old is not None:
        lost += [
            armature
            for scene in bpy.data.scenes
            for armature in missing(scene)
            if stored_path(armature) == old and armature.library is None and armature != rig.armature
        ]
    for armature in dict.fromkeys(lost):
        set_avatar(find_rig(armature), path, info)
    return len(set(lost))


def pack(armature: bpy.types.Object) -> None:
    """Packs the avatar's file into the .blend."""
    path = avatar_path(armature)
    if armature.effigy.packed:
        raise EffigyError(f"The avatar of “{armature.name}” is packed already.")
    _check_own(armature)
    check_avatar_file(path)
    with reading(path, NOUN, REMEDY):
        data = path.read_bytes()
    text = bpy.data.texts.new(path.name)
    text.use_fake_user = False
    text.from_string("\n".join(textwrap.wrap(base64.b64encode(data).decode("ascii"), COLUMNS)))
    armature.effigy.packed = text


def unpack(armature: bpy.types.Object, chosen: Path | None = None) -> Path:
    """Writes a packed avatar to a new file and uses that: at `chosen`, or beside the .blend under the name of the
    packed text. The name gets the suffix of avatars, and a number where it is taken: no file is ever replaced. A
    file there that has the same bytes is used as it is. The .blend itself has no say in the folder.
    """
    text = armature.effigy.packed
    if text is None:
        raise EffigyError(f"The avatar of “{armature.name}” is not packed.")
    _check_own(armature)
    if chosen is None and not bpy.data.filepath:
        raise EffigyError("Save the .blend file first: the avatar is written beside it. Or choose a file for it.")
    folder, name = (Path(bpy.data.filepath).parent, text.name) if chosen is None else (chosen.parent, chosen.name)
    place = folder / file_name(name, SUFFIX)
    data = _bytes_of(text)
    path = place if _holds(place, data) else _write(place, data)
    use_file(armature, path)
    return path


def remember_packed(text: bpy.types.Text) -> None:
    """Makes a packed avatar one that may be shown without a click. Raises an `EffigyError` if it is damaged."""
    _unpacked(text)


def _check_own(armature: bpy.types.Object) -> None:
    if armature.library is not None:
        raise EffigyError(
            f"“{armature.name}” is linked from another file: make a library override of it, or change it there."
        )


def _unpacked(text: bpy.types.Text) -> Path:
    data = _bytes_of(text)
    path = _place_of(hashlib.sha256(data).hexdigest())
    if not is_file(path):
        preferences.user_folder("unpacked")
        written = _write(path, data)
        if written != path and is_file(path):
            # Another Blender has written the same bytes at the same moment.
            written.unlink(missing_ok=True)
    return path


def _place_of(digest: str) -> Path:
    """Where the packed avatar with this hash is written for the worker. The folder may not exist yet."""
    folder = bpy.utils.extension_path_user(preferences.PACKAGE, path="unpacked", create=False)
    return Path(folder, f"{digest[:24]}{SUFFIX}")


_digests: dict[tuple[int, int], str] = {}
"""By a text's `session_uid` and its number of lines: the hash of its bytes, empty if they are no avatar's. Kept because
panels ask for it at every redraw."""


def _digest(text: bpy.types.Text) -> str:
    key = text.session_uid, len(text.lines)
    if key not in _digests:
        _digests[key] = ""
        with suppress(EffigyError):
            _digests[key] = hashlib.sha256(_bytes_of(text)).hexdigest()
    return _digests[key]


def _bytes_of(text: bpy.types.Text) -> bytes:
    """The bytes of a packed avatar. Raises an `EffigyError` if they are not those of an avatar."""
    try:
        lines = []
        room = MOST_PACKED
        for line in text.lines:
            lines.append(line.body)
            room -= len(lines[-1])
            if room < 0:
                raise EffigyError(f"The text “{text.name}” is too large to be a packed avatar: relink its file.")
        data = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EffigyError(
            f"The packed avatar “{text.name}” was edited and can no longer be read: relink its file."
        ) from error
    if not is_avatar(io.BytesIO(data), len(data)):
        raise EffigyError(f"The text “{text.name}” holds no avatar, so it is not used: relink the avatar's file.")
    return data


def _shown_path(armature: bpy.types.Object) -> str:
    with suppress(EffigyError):
        return readable(str(absolute(armature.effigy.avatar, armature)))
    return readable(f"{armature.effigy.avatar[:LONGEST_SHOWN]}…")


def _holds(path: Path, data: bytes) -> bool:
    """Whether there is a file with these bytes."""
    with suppress(OSError):
        return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
    return False


def _write(path: Path, data: bytes) -> Path:
    try:
        return write_new(path, data)
    except OSError as error:
        raise EffigyError(f"The avatar could not be written to {path}: {error.strerror or error}.") from error


@persistent
def _report_missing(*_: object) -> None:
    """Reports missing avatars when a file is opened, instead of leaving the artist with empty renders."""
    _digests.clear()
    lost = [armature for scene in bpy.data.scenes for armature in missing(scene, asked=False)]
    if lost:
        names = ", ".join(f"“{armature.name}” ({_shown_path(armature)})" for armature in lost)
        report_soon(f"The avatar's file is missing for {names}: press Relink Avatar in the Effigy tab.")
    elif any(not is_known(rig.armature) for scene in bpy.data.scenes for rig in find_rigs(scene.objects)):
        report_soon(
            "This .blend names avatars that were not used on this computer before: press Look for Its Files in the "
            "Effigy tab if you made it, or trust whoever did.",
            "WARNING",
        )


handlers: Final = (("load_post", _report_missing),)
