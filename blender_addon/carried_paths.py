"""Carries the paths of rigs from file to file, as Blender carries those of its images.

Whenever paths are written, the .blend to which they are relative is written beside them (`effigy.origin`):

- Saving writes them relative to the new place. If that was a copy, or failed, they are written back.
- Opening a file notes where it is now: it may have been moved together with its folder.
- Appending writes them relative to this file. A linked object notes where its library is, for *Make Local*.
- A path that the artist chooses is relative to this file, so the object's other paths are then made so too.

Blender 4.2 has no handler for appending. There an appended object keeps its origin until the file is saved;
`paths.folder_of` gives the same path meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final

import bpy
from bpy.app.handlers import persistent

from . import trusted_paths
from .paths import (
    MORE,
    STORED,
    absolute,
    folder_of,
    inherits_from,
    is_of_another_system,
    is_usable,
    open_file,
    settings_of,
    stored,
)

_TEMPORARY: Final = ("copybuffer", "quit")
"""Names of the files in Blender's temporary folder that hold objects of another file: what was copied with Ctrl+C, and
the last session."""
_AUTOSAVE: Final = "_autosave"


def own_paths_changed(obj: bpy.types.Object, name: str) -> None:
    """The artist or a script has set the path `name` of an object, relative to this file: makes the object's other
    paths relative to this file too.
    """
    if obj.library is None and not trusted_paths.is_suspended():
        _rewrite(obj, leave=name)


def _rewrite(obj: bpy.types.Object, target: Path | None = None, *, leave: str = "") -> None:
    """Writes the paths of an object relative to the .blend `target`, by default the open one, or as full paths if that
    was never saved. `leave`: the property that is so already.
    """
    settings = obj.effigy
    current = str(target) if target else bpy.data.filepath

    def rewritten(text: str) -> str:
        if not is_usable(text) or is_of_another_system(text):
            return text
        if text.startswith("//") and folder_of(obj) is None:
            return text
        return stored(absolute(text, obj), Path(current).parent if current else None)

    with trusted_paths.suspended():
        changed: dict[str, str] = {}
        for name in STORED:
            if name != leave and (text := getattr(settings, name)):
                changed[name] = rewritten(text)
        if leave != "training" and (params := settings_of(settings.training)):
            paths: dict[str, Any] = {name: rewritten(params[name]) for name in STORED if name in params}
            if MORE in params:
                paths[MORE] = [rewritten(path) for path in params[MORE]]
            changed["training"] = json.dumps(params | paths)
        for name, text in (changed | {"origin": current}).items():
            if getattr(settings, name) != text:
                setattr(settings, name, text)


def _with_paths() -> Iterator[bpy.types.Object]:
    """All objects that store a path, linked ones as well."""
    names = (*STORED, "training")
    return (obj for obj in bpy.data.objects if any(getattr(obj.effigy, name) for name in names))


def _own() -> list[bpy.types.Object]:
    """The objects whose paths this file stores. A library override without paths of its own has those of its library,
    and keeps them while the library is missing.
    """
    return [
        obj for obj in _with_paths() if obj.library is None and not inherits_from(obj) and not _has_lost_library(obj)
    ]


def _has_lost_library(obj: bpy.types.Object) -> bool:
    override = obj.override_library
    return override is not None and (override.reference is None or override.reference.is_missing)


def _is_temporary(blend: PurePath) -> bool:
    return blend.name.startswith(_TEMPORARY) or blend.stem.endswith(_AUTOSAVE)


def _note_place(obj: bpy.types.Object, blend: str) -> None:
    """An object was read from the file `blend`, to which its paths are relative, wherever that was when it was saved.
    What Blender itself keeps for a while in its temporary folder is still relative to the file from which it came.
    """
    if not (_is_temporary(PurePath(blend)) and obj.effigy.origin):
        obj.effigy.origin = blend


@persistent
def _before_saving(filepath: str, *_: object) -> None:
    if filepath:
        for obj in _own():
            _rewrite(obj, Path(filepath).absolute())


@persistent
def _after_saving(filepath: str, *_: object) -> None:
    """Restores the paths if a copy was saved or saving failed, because then this file has not moved, or is still
    unsaved.
    """
    open_file.origins_hold = bpy.data.filepath
    if filepath and filepath != bpy.data.filepath:
        for obj in _own():
            _rewrite(obj)


def _note_libraries() -> None:
    """A library may have been moved since it was saved. The overrides of its objects have its paths."""
    found = list(_with_paths())
    inheriting = [(obj, reference) for obj in found if (reference := inherits_from(obj))]
    for obj in found:
        if obj.library is not None:
            _note_place(obj, bpy.path.abspath(obj.library.filepath))
    for obj, reference in inheriting:
        obj.effigy.origin = reference.effigy.origin


@persistent
def _after_loading(*_: object) -> None:
    _note_libraries()
    open_file.origins_hold = bpy.data.filepath
    for obj in _own() if bpy.data.filepath else ():
        _note_place(obj, bpy.data.filepath)
        if obj.effigy.origin != bpy.data.filepath:
            _rewrite(obj)


@persistent
def _after_importing(imported: Any, *_: object) -> None:
    """Objects were appended or linked (Blender 4.3 and later)."""
    _note_libraries()
    for item in imported.import_items:
        obj, library = item.id, item.source_library
        if not isinstance(obj, bpy.types.Object) or item.append_action not in {"MAKE_LOCAL", "COPY_LOCAL"}:
            continue
        # An override keeps the paths of its library.
        if library is not None and inherits_from(obj) is None and not _has_lost_library(obj):
            _note_place(obj, bpy.path.abspath(library.filepath))
            _rewrite(obj)


def _look_at_open_file() -> None:
    _after_loading()


handlers: Final = (
    ("save_pre", _before_saving),
    ("save_post", _after_saving),
    ("save_post_fail", _after_saving),
    ("load_post", _after_loading),
    # Blender 4.2 has none for importing.
    *((("blend_import_post", _after_importing),) if hasattr(bpy.app.handlers, "blend_import_post") else ()),
)


def register() -> None:
    # Blender gives an extension no access to its data while it enables it.
    bpy.app.timers.register(_look_at_open_file, first_interval=0)


def unregister() -> None:
    open_file.origins_hold = None
    if bpy.app.timers.is_registered(_look_at_open_file):
        bpy.app.timers.unregister(_look_at_open_file)
