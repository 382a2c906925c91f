"""The extension's stored settings, and its folders.

`panels.preferences_page` draws the settings; this module imports nothing of the interface.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import bpy
from bpy.props import CollectionProperty, StringProperty

from .command_line import split_command
from .errors import EffigyError
from .installation import place

PACKAGE: Final = __package__.rpartition(".")[0]
"""The extension's own package, `bl_ext.<repository>.effigy`: the key of its preferences and of its user folder."""
ENVIRONMENT_VARIABLE: Final = "EFFIGY_BACKEND_PYTHON"
NO_BACKEND: Final = (
    "Effigy's backend is not installed yet: open Edit ▸ Preferences ▸ Add-ons ▸ Effigy and press "
    "Install Backend, or choose an interpreter that has its packages with Use This Python."
)


class EffigySharedFolder(bpy.types.PropertyGroup):
    """A folder that this machine and the worker's machine both reach."""

    local: StringProperty(
        name="On This Machine",
        subtype="DIR_PATH",
        description="The folder on this machine, for example P:\\film",
    )
    remote: StringProperty(
        name="On the Worker's Machine",
        description="The same folder on the machine that the Worker Command reaches, for example /mnt/film",
    )


class EffigySettings:
    """The stored settings, mixed into the class of the preferences page."""

    backend_python: StringProperty(
        name="Backend Python",
        options={"HIDDEN"},
        description="The interpreter that runs the backend. Empty: the one that Install Backend made",
    )
    worker_command: StringProperty(
        name="Worker Command",
        description='A command that starts the backend on another machine, for example: ssh studio "cd effigy && '
        '.venv/bin/python -m backend serve". Empty: the backend runs on this machine',
    )
    shared: CollectionProperty(
        type=EffigySharedFolder,
        name="Shared Folders",
        description="Folders that both machines reach, such as a studio's server. Files in them stay where they are; "
        "all other files are sent to the worker, and its results are fetched",
    )
    head_file: StringProperty(
        name="Head Model",
        options={"HIDDEN"},
        description="The FLAME file that new rigs are made from. Empty: the open head that comes with Effigy",
    )
    head_said: StringProperty(
        options={"HIDDEN"}, description="The numbers of vertices and components of the chosen head model, for display"
    )


def get() -> EffigySettings:
    """The settings. Raises an `EffigyError` where Blender runs the extension without an entry in its preferences, as
    after `blender --addons`.
    """
    entry = bpy.context.preferences.addons.get(PACKAGE)
    if entry is None:
        raise EffigyError(
            "Blender runs Effigy without an entry in its preferences, so the backend is not known: enable "
            "Effigy in Edit ▸ Preferences ▸ Add-ons."
        )
    return entry.preferences


def extension_folder() -> Path:
    """The folder where this extension is installed; the working directory of `python -m backend`."""
    return Path(__file__).resolve().parent.parent


def user_folder(*parts: str) -> Path:
    """A folder for the extension's own files that survives its updates. It is created if it does not exist."""
    return Path(bpy.utils.extension_path_user(PACKAGE, path=str(Path(*parts)) if parts else "", create=True))


def environments() -> place.Environments:
    """The environments that Install Backend makes, one of which is used. Their folder is not created here.

    On Windows they lie in the user's local application data, because below the extension's user folder the paths of
    PyTorch's files are longer than Windows allows.
    """
    user = [bpy.utils.extension_path_user(PACKAGE, path=name, create=False) for name in ("environments", "backend")]
    root, former = map(Path, user)
    if os.name == "nt":
        local = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
        root = Path(local, "Effigy", "{}.{}".format(*bpy.app.version))
    return place.Environments(root, former)


def backend_python() -> Path:
    """The interpreter of the backend: from the preferences, otherwise from the environment variable
    EFFIGY_BACKEND_PYTHON, otherwise of the environment that Install Backend made. Raises an `EffigyError` if there is
    none.
    """
    for chosen in (get().backend_python, os.environ.get(ENVIRONMENT_VARIABLE, "")):
        if chosen:
            path = _full_path(chosen, "The Python of the backend")
            if not path.is_file():
                raise EffigyError(
                    f"There is no Python at {path} any more: choose another in Edit ▸ Preferences ▸ Add-ons ▸ Effigy."
                )
            return path
    installed = environments()
    if python := installed.python():
        return python
    if installed.current():
        raise EffigyError(
            "The Python that the backend was made from is gone, as happens when Blender is updated: press "
            "Install Backend in Edit ▸ Preferences ▸ Add-ons ▸ Effigy."
        )
    raise EffigyError(NO_BACKEND)


def worker_command() -> list[str]:
    """The artist's own command that starts the worker, as its arguments; empty if there is none."""
    try:
        return split_command(get().worker_command)
    except ValueError as error:
        raise EffigyError(
            "The Worker Command in Edit ▸ Preferences ▸ Add-ons ▸ Effigy has a quotation mark "
            "that is never closed: add the closing one."
        ) from error


def shared_folders() -> list[tuple[str, str]]:
    """(folder here, folder on the worker's machine) of each row. Raises an `EffigyError` for a relative one."""
    return [(row.local and str(_full_path(row.local, "A shared folder")), row.remote) for row in get().shared]


def chosen_head_file() -> Path | None:
    """The user's FLAME file, whether it is still there or not; None for the open head."""
    chosen = get().head_file
    return _full_path(chosen, "The head model") if chosen else None


def _full_path(text: str, what: str) -> Path:
    """A path of the preferences. Raises an `EffigyError` for one that is relative to the .blend (`//`): every .blend
    that is opened would make it another file. `what` begins the sentence.
    """
    if text.startswith("//"):
        raise EffigyError(
            f"{what} in Edit ▸ Preferences ▸ Add-ons ▸ Effigy is a path relative to the .blend ({text}): enter the "
            "full path."
        )
    return Path(text)


def head_file() -> Path | None:
    """The user's FLAME file, or None for the open head. Raises an `EffigyError` if the file is gone."""
    path = chosen_head_file()
    if path is not None and not path.is_file():
        raise EffigyError(
            f"The head model is no longer at {path}: choose it again, or use the open head, in Edit ▸ "
            "Preferences ▸ Add-ons ▸ Effigy."
        )
    return path
