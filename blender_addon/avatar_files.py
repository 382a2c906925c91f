"""What the verbs that take an avatar's file have in common: the file chosen, and described by the worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
from bpy.props import StringProperty

from . import avatars
from .errors import EffigyError
from .reporting import WorkingOperator


class AvatarOperator(WorkingOperator):
    """Mixed into an operator: `finish` gets (path, what the worker says of the avatar)."""

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{avatars.SUFFIX}", options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if self.filepath:
            # Dropped into the window.
            return self.execute(context)
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def prepare(self, context: bpy.types.Context) -> Callable[[], tuple[Path, dict[str, Any]]]:
        if not self.filepath:
            raise EffigyError(f"Choose an avatar ({avatars.SUFFIX}).")
        path = Path(bpy.path.abspath(self.filepath)).absolute()
        return lambda: (path, avatars.describe(path))
