"""Registers and unregisters the whole extension.

A module is registered if it has `classes`, a tuple of Blender classes in the order of their dependencies, or a pair of
functions `register()` and `unregister()` for what is not a class: a property on a Blender type, a handler, a timer, a
menu entry. A package is registered through its `__init__` if that has any of these, otherwise through its modules in
alphabetical order.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Final

import bpy

from .preferences import PACKAGE

ORDER: Final = (
    "blender_addon.panels.preferences_page",
    "blender_addon.properties",
    "blender_addon.worker",
    "blender_addon.rig",
    "blender_addon.engine",
    "blender_addon.viewport",
    "blender_addon.carried_paths",
    "blender_addon.avatars",
    "blender_addon.whole_blend",
    "blender_addon.saved_elsewhere",
    "blender_addon.tasks",
    "blender_addon.backend_setup",
    "operators",
    "blender_addon.panels",
)
"""Modules and packages below the extension's package. Each comes after those that it depends on."""

_registered: list[type | ModuleType] = []
"""The classes, and the modules with a `register` function, in the order in which they were registered."""


def register_all() -> None:
    """Registers everything in `ORDER`. If anything fails, what was registered before it is unregistered again."""
    try:
        for module in _modules():
            for cls in getattr(module, "classes", ()):
                if cls not in _registered:
                    bpy.utils.register_class(cls)
                    _registered.append(cls)
            if hasattr(module, "register"):
                # Added before the call, because an incomplete registration has to be undone as well.
                _registered.append(module)
                module.register()
    except Exception:
        unregister_all()
        raise


def unregister_all() -> None:
    """Undoes the registration in the reverse order."""
    while _registered:
        entry = _registered.pop()
        if isinstance(entry, ModuleType):
            entry.unregister()
        else:
            bpy.utils.unregister_class(entry)


def _modules() -> Iterator[ModuleType]:
    """The modules to register, in order. A package in `ORDER` that does not exist is skipped."""
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
