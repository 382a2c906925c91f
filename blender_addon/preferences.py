"""Effigy's page in Blender's preferences: which Python runs the backend, which head model rigs are made of."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Final

import bpy
from bpy.props import StringProperty

from .errors import EffigyError
from .installation import place

PACKAGE: Final = __package__.rpartition(".")[0]
ENVIRONMENT_VARIABLE: Final = "EFFIGY_BACKEND_PYTHON"
NO_BACKEND: Final = (
    "Effigy's backend is not installed yet: open Edit ▸ Preferences ▸ Add-ons ▸ Effigy and press "
    "Install Backend, or point Use This Python at an interpreter that has its packages."
)


def _worker_changed(settings: EffigyPreferences, context: bpy.types.Context) -> None:
    from . import backend_setup

    backend_setup.forget_findings()


class EffigyPreferences(bpy.types.AddonPreferences):
    bl_idname = PACKAGE

    backend_python: StringProperty(
        name="Backend Python",
        options={"HIDDEN"},
        description="The interpreter that runs the backend; empty: the one that Install Backend made",
    )
    worker_command: StringProperty(
        name="Worker Command",
        update=_worker_changed,
        description="A command that starts the backend's worker on another machine, as in: ssh studio 'cd effigy && "
        ".venv/bin/python -m backend serve'. Empty: it runs on this one",
    )
    head_file: StringProperty(
        name="Head Model",
        options={"HIDDEN"},
        description="The FLAME file of which new rigs are made; empty: the open head that comes with Effigy",
    )
    head_said: StringProperty(options={"HIDDEN"}, description="What the head model in use is, in a sentence")

    def draw(self, context: bpy.types.Context) -> None:
        from .panels.preferences_page import draw

        draw(self, self.layout)


def get() -> EffigyPreferences:
    """EffigyError where Blender runs the extension without an entry for it, as after `blender --addons`."""
    entry = bpy.context.preferences.addons.get(PACKAGE)
    if entry is None:
        raise EffigyError(
            "Blender runs Effigy without an entry in its preferences, so it does not know the backend: enable "
            "Effigy in Edit ▸ Preferences ▸ Add-ons."
        )
    return entry.preferences


def extension_folder() -> Path:
    """Where this extension is installed: `python -m backend` runs with this as its working directory."""
    return Path(__file__).resolve().parent.parent


def user_folder(*parts: str) -> Path:
    """A folder of ours that survives updates of the extension; made if it is not there."""
    return Path(bpy.utils.extension_path_user(PACKAGE, path=os.path.join(*parts) if parts else "", create=True))


def private_folder() -> Path:
    """Where Install Backend makes its environment; not made here."""
    return Path(bpy.utils.extension_path_user(PACKAGE, path="backend", create=False))


def backend_python() -> Path:
    """The interpreter of the backend: the preference, else the environment variable, else the private environment."""
    for chosen in (get().backend_python, os.environ.get(ENVIRONMENT_VARIABLE, "")):
        if chosen:
            path = Path(bpy.path.abspath(chosen))
            if not path.is_file():
                raise EffigyError(
                    f"There is no Python at {path} any more: choose another in Edit ▸ Preferences ▸ Add-ons ▸ Effigy."
                )
            return path
    folder = private_folder()
    if python := place.private_python(folder):
        return python
    if place.read_stamp(folder):
        raise EffigyError(
            "The Python that the backend was made from is gone, as after an update of Blender: press "
            "Install Backend in Edit ▸ Preferences ▸ Add-ons ▸ Effigy."
        )
    raise EffigyError(NO_BACKEND)


def worker_command() -> list[str]:
    """The artist's own command that starts the worker, taken apart as by a shell; empty where there is none."""
    try:
        return shlex.split(get().worker_command)
    except ValueError as error:
        raise EffigyError(
            "The Worker Command in Edit ▸ Preferences ▸ Add-ons ▸ Effigy has a quotation mark "
            "that does not end: close it."
        ) from error


def head_file() -> Path | None:
    """The user's FLAME file, or None for the open head."""
    chosen = get().head_file
    if not chosen:
        return None
    path = Path(bpy.path.abspath(chosen))
    if not path.is_file():
        raise EffigyError(
            f"The head model is not at {path} any more: choose it again, or the open head, in Edit ▸ "
            "Preferences ▸ Add-ons ▸ Effigy."
        )
    return path


classes = (EffigyPreferences,)
