"""The paths that are stored in a .blend file: what they mean, and how they are written.

They are relative to the .blend file (`//`) once it has been saved; `carried_paths` adjusts them when the file is saved
elsewhere and when an object moves to another file. Each object has beside its paths the file that they are relative to
(`effigy.origin`), so that `folder_of` is the only place that decides what `//` means.
Relative paths are written with `/` on every system, so that a file from Windows works on a Linux render farm.

A stored path may be a stranger's: damaged, or chosen to do harm. `absolute` makes a path of it and reaches for nothing.
What runs without a click asks `trusted_paths.trusts` before it looks for the file. `check_written` decides whether the
artist's click may write there.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

import bpy

from . import trusted_paths
from .errors import EffigyError

STORED: Final = ("capture", "avatar")
MORE: Final = "more"
"""In a rig's property `training`: the list of the further captures that the avatar is trained on."""
"""The path properties on a rig; also names of paths in its property `training`."""
LONGEST: Final = 4096
"""Characters of a path. Linux allows as many bytes; paths on Windows are shorter in practice."""
LONGEST_SETTINGS: Final = 1 << 16
"""Characters of the property `training`, whose two paths are its longest parts."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass
class _OpenFile:
    """The module's state."""

    origins_hold: str | None = None
    """The path of the open .blend if `carried_paths` has seen it being opened or saved, so that each object in it has
    the right origin. In a file that was open before the extension was enabled the origins may be those of a folder from
    which it was moved."""


open_file: Final = _OpenFile()


def absolute(path: str, owner: bpy.types.ID | None = None) -> Path:
    """The full path of a stored one, without `..`. `//` means the folder that `folder_of` gives for `owner`. Does not
    look whether there is such a file. Raises an `EffigyError` for a text that can be no path.
    """
    if not is_usable(path):
        whose = f" of “{owner.name}”" if owner else ""
        raise EffigyError(
            f"A path{whose} in this .blend is damaged or too long ({path[:60]!r}…): choose the file again."
        )
    folder = folder_of(owner)
    if path.startswith("//") and folder is not None:
        # With `\\` it was written on Windows by a version that kept the system's separators.
        path = str(folder / (path[2:] if os.name == "nt" else path[2:].replace("\\", "/")))
    full = Path(bpy.path.abspath(path)).absolute()
    # As Blender shortens its own paths, also where a folder before `..` is a link: `stored` counted it as a folder, and
    # `trusted_paths` compares texts.
    return Path(os.path.normpath(full))


def folder_of(owner: bpy.types.ID | None) -> Path | None:
    """The folder that `//` means in the paths of an object; None if that is a file that was never saved.

    It is the folder of the .blend to which the object belongs: of its library if it is linked, and of the library of
    its reference if it is an override that has the reference's paths. An object that was appended, or linked and then
    made local, belongs to the file from which it came (`effigy.origin`) until its paths are written again.
    """
    reference = inherits_from(owner)
    if reference is not None:
        return folder_of(reference)
    if owner is not None and owner.library is not None:
        return _folder(bpy.path.abspath(owner.library.filepath))
    origin = str(getattr(getattr(owner, "effigy", None), "origin", ""))
    if (
        origin
        and open_file.origins_hold == bpy.data.filepath
        and is_usable(origin)
        and not is_of_another_system(origin)
    ):
        return _folder(origin)
    return blend_folder()


def inherits_from(owner: bpy.types.ID | None) -> bpy.types.Object | None:
    """The linked object from which a library override has its paths; None for any other object, and for an override
    with paths of its own.
    """
    if not isinstance(owner, bpy.types.Object) or owner.override_library is None:
        return None
    reference = owner.override_library.reference
    if not isinstance(reference, bpy.types.Object) or reference.is_missing:
        return None
    return reference if reference.effigy.origin == owner.effigy.origin else None


def _folder(blend: str) -> Path | None:
    return Path(blend).absolute().parent if blend else None


def is_file(path: Path) -> bool:
    """Whether there is such a file. Unlike that of `Path`, it has no error for a name that is too long or a folder that
    may not be searched.
    """
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def check_written(path: Path, owner: bpy.types.Object) -> None:
    """Refuses to write a file, or into a folder, that only a .blend names, unless it is below the folder of that
    .blend, where links are followed, or was chosen on this computer. `owner` has the path in its settings.
    """
    if trusted_paths.was_chosen(path):
        return
    folder = blend_folder()
    with suppress(OSError, ValueError, RuntimeError):
        resolved = path.resolve()
        # From Python 3.13 on, a link that leads to itself is left as it is, where earlier ones raise an error.
        unresolved = any(part.is_symlink() for part in (resolved, *resolved.parents))
        if folder is not None and not unresolved and resolved.is_relative_to(folder.resolve()):
            return
    raise EffigyError(
        f"“{owner.name}” would write to {path}, which is not in the folder of this .blend and was not chosen on this "
        "computer: choose the capture's folder again under Train, or save the .blend beside it."
    )


def stored(path: Path, folder: Path | None = None) -> str:
    """The text to store for a full path: relative to `folder`, by default that of the .blend file if it has been
    saved.
    """
    if folder is None and not bpy.data.filepath:
        return str(path)
    try:
        relative = bpy.path.relpath(str(path), start=str(folder) if folder else None)
        return relative.replace("\\", "/") if os.name == "nt" and relative.startswith("//") else relative
    except ValueError:
        # On Windows there is no relative path to another drive.
        return str(path)


def is_of_another_system(path: str, windows: bool = os.name == "nt") -> bool:
    """Whether this is a full path of another kind of system: a drive or a server where this one has none (`windows`
    False), or a path from the root where this one has drives. It names nothing here and must be kept as it is.
    """
    if windows:
        return PurePosixPath(path).is_absolute() and not PureWindowsPath(path).is_absolute()
    return PureWindowsPath(path).is_absolute() and not PurePosixPath(path).is_absolute()


def settings_of(text: str) -> dict[str, Any] | None:
    """A rig's property `training` as a dictionary, in which the paths are texts, and those of MORE a list of texts;
    None if it is empty or damaged.
    """
    if not 0 < len(text) <= LONGEST_SETTINGS:
        return None
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(settings, dict) or not all(isinstance(settings.get(name, ""), str) for name in STORED):
        return None
    more = settings.get(MORE, [])
    return settings if isinstance(more, list) and all(isinstance(path, str) for path in more) else None


def is_usable(path: str) -> bool:
    """Whether a text can be a path."""
    if len(path) > LONGEST or _CONTROL.search(path):
        return False
    try:
        # Half of a character, as damaged JSON may hold it, names no file.
        os.fsencode(path)
    except ValueError:
        return False
    return True


def blend_folder() -> Path | None:
    """The folder of the .blend file; None if it has not been saved."""
    return Path(bpy.data.filepath).parent if bpy.data.filepath else None
