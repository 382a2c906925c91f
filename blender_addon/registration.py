"""Registers and unregisters the whole extension.

A module is registered if it has any of these: `classes`, a tuple of Blender classes in the order of their dependencies;
`handlers`, a tuple of pairs of a list's name in `bpy.app.handlers` and a persistent function; `register()` and
`unregister()`, either alone or both, for what is neither: a property on a Blender type, a timer, a menu entry, data to
free. A package is registered through its `__init__` if that has any of these, otherwise through its modules in
alphabetical order.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import ModuleType
from typing import Final

import bpy

from .preferences import PACKAGE

ORDER: Final = (
    "blender_addon.panels.preferences_page",
    "blender_addon.properties",
    "blender_addon.native_clouds",
    "blender_addon.worker",
    "blender_addon.rig",
    "blender_addon.player",
    "blender_addon.engine",
    "blender_addon.viewport",
    "blender_addon.native",
    "blender_addon.carried_paths",
    "blender_addon.avatars",
    "blender_addon.whole_blend",
    "blender_addon.saved_elsewhere",
    "blender_addon.tasks",
    "blender_addon.live",
    "blender_addon.backend_setup",
    "operators",
    "blender_addon.panels",
)
"""Modules and packages below the extension's package. Each comes after those that it depends on."""

_BESIDE_CLASSES: Final = ("handlers", "register", "unregister")
"""What a module can have beside `classes`."""

_registered: list[type | ModuleType] = []
"""The classes, and the modules with anything else to register, in the order in which they were registered."""


def register_all() -> None:
    """Registers everything in `ORDER`. If anything fails, what was registered before it is unregistered again."""
    try:
        for module in _modules():
            for cls in getattr(module, "classes", ()):
                if cls not in _registered:
                    bpy.utils.register_class(cls)
                    _registered.append(cls)
            if any(hasattr(module, name) for name in _BESIDE_CLASSES):
                # Added first, because an incomplete registration has to be undone as well.
                _registered.append(module)
                for name, function in _handlers(module):
                    getattr(bpy.app.handlers, name).append(function)
                if hasattr(module, "register"):
                    module.register()
    except Exception:
        unregister_all()
        raise


def unregister_all() -> None:
    """Undoes the registration in the reverse order."""
    while _registered:
        entry = _registered.pop()
        if not isinstance(entry, ModuleType):
            bpy.utils.unregister_class(entry)
            continue
        for name, function in _handlers(entry):
            # Another extension, or a failed registration, may have left it out.
            with suppress(ValueError):
                getattr(bpy.app.handlers, name).remove(function)
        if hasattr(entry, "unregister"):
            entry.unregister()


def _handlers(module: ModuleType) -> tuple[tuple[str, Callable[..., None]], ...]:
    return getattr(module, "handlers", ())


def _modules() -> Iterator[ModuleType]:
    """The modules to register, in order. A package in `ORDER` that does not exist is skipped."""
    for name in ORDER:
        try:
            module = importlib.import_module(f"{PACKAGE}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{PACKAGE}.{name}":
                raise
            continue
        if any(hasattr(module, name) for name in ("classes", *_BESIDE_CLASSES)) or not hasattr(module, "__path__"):
            yield module
            continue
        for found in sorted(pkgutil.iter_modules(module.__path__), key=lambda found: found.name):
            yield importlib.import_module(f"{module.__name__}.{found.name}")
