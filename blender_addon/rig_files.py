"""The files that a rig's settings name, and which of them wait for the artist's consent (`trusted_paths`)."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import bpy

from . import avatars, trusted_paths
from .errors import EffigyError
from .file_names import readable
from .paths import MORE, STORED, absolute, settings_of


def unknown(armature: bpy.types.Object) -> list[str]:
    """The captures and avatars of an armature that were not used on this computer before, as texts for the artist."""
    found = [readable(str(path)) for path in _paths(armature) if not trusted_paths.trusts(path)]
    if armature.effigy.packed and not avatars.is_known(armature):
        found.append(f"{armature.effigy.packed.name} (packed)")
    return found


def trust(obj: bpy.types.Object) -> int:
    """Makes everything that `unknown` lists known. Returns how many they were."""
    waiting = unknown(obj)
    trusted_paths.trust(*_paths(obj), chosen=False)
    if obj.effigy.packed:
        # A damaged one is reported where it is used.
        with suppress(EffigyError):
            avatars.remember_packed(obj.effigy.packed)
    return len(waiting)


def _paths(obj: bpy.types.Object) -> list[Path]:
    """The full paths in an object's settings, each once. Damaged ones are left out."""
    settings = obj.effigy
    training = settings_of(settings.training) or {}
    found: dict[Path, None] = {}
    # A packed avatar does not need the file that it was packed from.
    own = [name for name in STORED if not (name == "avatar" and settings.packed)]
    trained = [*(training.get(name, "") for name in STORED), *training.get(MORE, [])]
    for text in (*(getattr(settings, name) for name in own), *trained):
        if text:
            with suppress(EffigyError):
                found[absolute(text, obj)] = None
    return list(found)
