"""The common part of the operators that take an avatar's file: choosing it and reading its description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy
from bpy.props import StringProperty

from . import avatars
from .errors import EffigyError
from .file_choice import choose_file
from .reporting import ThreadedOperator


class AvatarOperator(ThreadedOperator):
    """Mixed into an operator, whose `finish` gets the path and the avatar's `AvatarInfo`."""

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{avatars.SUFFIX}", options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.filepath:
            # The file was dropped into the window.
            return self.execute(context)
        return choose_file(self, context)

    def prepare(self, context: bpy.types.Context) -> Callable[[], tuple[Path, avatars.AvatarInfo]]:
        if not self.filepath:
            raise EffigyError(f"Choose an avatar ({avatars.SUFFIX}).")
        path = Path(bpy.path.abspath(self.filepath)).absolute()
        return lambda: (path, avatars.read_info(path))
