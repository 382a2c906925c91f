"""One place that registers and unregisters everything.

A module takes part by what it has: `classes`, a tuple of Blender classes in the order in which they depend on one
another, and `register()`/`unregister()` for what is no class (a property on a Blender type, a handler, a timer, a menu
entry). A folder speaks through its `__init__` if that has any of these, else through its modules, by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Final

import bpy

PACKAGE: Final = __package__.rpartition(".")[0]
"""The extension's own package, `bl_ext.<repository>.effigy`: the key of its preferences and of its user folder."""

ORDER: Final = (
    "blender_addon.preferences",
    "blender_addon.properties",
    "blender_addon.worker",
    "blender_addon.rig",
    "blender_addon.engine",
    "blender_addon.viewport",
    "blender_addon.paths",
    "blender_addon.avatars",
    "blender_addon.tasks",
    "blender_addon.backend_setup",
    "operators",
    "blender_addon.panels",
)
"""What is pointed at comes before what points at it."""

_undo: list[tuple[str, object]] = []
"""What was registered, in order: ("class", class) or ("module", module)."""


def register_all() -> None:
    try:
        for module in _modules():
            for cls in getattr(module, "classes", ()):
                if ("class", cls) not in _undo:
                    bpy.utils.register_class(cls)
                    _undo.append(("class", cls))
            if hasattr(module, "register"):
                # Before the call: half a registration has something to undo as well.
                _undo.append(("module", module))
                module.register()
    except Exception:
        unregister_all()
        raise


def unregister_all() -> None:
    while _undo:
        kind, what = _undo.pop()
        if kind == "class":
            bpy.utils.unregister_class(what)
        else:
            what.unregister()


def _modules() -> Iterator[ModuleType]:
    for name in ORDER:
        try:
            module = importlib.import_module(f"{PACKAGE}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{PACKAGE}.{name}":
                raise
            continue
        if hasattr(module, "classes") or hasattr(module, "register") or not hasattr(module, "__path__"):
            yield module
            continue
        for found in sorted(pkgutil.iter_modules(module.__path__), key=lambda found: found.name):
            yield importlib.import_module(f"{module.__name__}.{found.name}")
