"""Makes avatars of networks playable: the worker bakes one into a new file, which takes its place on the rigs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import bpy

from . import avatars, tasks, training
from .errors import EffigyError
from .file_names import file_name, numbered
from .playable_files import ENDING
from .player.players import has_player
from .renaming import unused
from .rig.rig_properties import Rig, find_rigs
from .rig.steps import Steps
from .tasks import Task


def suggested(rig: Rig) -> Path:
    """A free name beside the avatar's file. Raises an `EffigyError` for a rig whose avatar cannot be baked."""
    return unused(numbered(_networks_of(rig), ENDING))


def start(rig: Rig, out: Path) -> Task:
    """Starts baking the rig's avatar into the file `out`."""
    path = _networks_of(rig)
    out = out.with_name(file_name(out.name, avatars.SUFFIX))
    if out == path:
        raise EffigyError(f"{path.name} keeps the networks: choose another name for the avatar that Blender plays.")
    params: dict[str, Any] = {"avatar": str(path), "out": str(out)}
    with suppress(EffigyError):
        # The frames of its footage show best which poses matter.
        params["capture"] = str(training.capture_of(rig))
    return tasks.start(
        f"Make {path.stem} playable",
        "bake",
        params,
        lambda _: _use(path, out),
        f"The avatar that Blender plays by itself is in {out}: put it on its rig with Add Avatar.",
    )


def _networks_of(rig: Rig) -> Path:
    """The file of an avatar that Blender cannot play."""
    armature = rig.armature
    if armature.effigy.packed:
        raise EffigyError(f"The avatar of “{armature.name}” is packed: unpack it first.")
    if armature.library is not None:
        raise EffigyError(
            f"“{armature.name}” is linked from another file: bake its avatar there, or make a library override."
        )
    path = avatars.avatar_path(armature)
    if has_player(path):
        raise EffigyError(f"Blender plays {path.name} by itself already.")
    return path


def _use(networks: Path, out: Path) -> Steps[str]:
    """Puts the baked avatar on the rigs that have the one of the networks. They are searched for, because they may have
    been renamed or copied since.
    """
    yield 0.5
    rigs = [
        rig
        for scene in bpy.data.scenes
        for rig in find_rigs(scene.objects)
        if rig.armature.library is None
        and not rig.armature.effigy.packed
        and avatars.stored_path(rig.armature) == networks
    ]
    for armature in dict.fromkeys(rig.armature for rig in rigs):
        avatars.use_file(armature, out)
    if not rigs:
        return f"The avatar that Blender plays by itself is in {out}. Its rig is no longer in this file."
    return (
        f"“{rigs[0].armature.name}” plays {out.name}, without the backend. Undo, or Add Avatar with {networks.name}, "
        "brings its networks back."
    )
