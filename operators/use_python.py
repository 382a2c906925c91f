"""Chooses an interpreter for the backend, after checking that it can run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy
from bpy.props import StringProperty

from ..blender_addon import preferences
from ..blender_addon.file_choice import choose_file
from ..blender_addon.installation.check import Interpreter, check_interpreter
from ..blender_addon.reporting import ThreadedOperator


class EFFIGY_OT_use_python(ThreadedOperator, bpy.types.Operator):
    bl_idname = "effigy.use_python"
    bl_label = "Use This Python"
    bl_description = "Choose the Python of an environment that has the backend's packages, for example venv/bin/python"

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return choose_file(self, context)

    def prepare(self, context: bpy.types.Context) -> Callable[[], Interpreter]:
        # Symbolic links are kept: the Python of an environment is a link, and its target does not use the environment.
        path = Path(bpy.path.abspath(self.filepath)).absolute()
        return lambda: check_interpreter(path)

    def finish(self, context: bpy.types.Context, found: Interpreter) -> None:
        preferences.get().backend_python = str(found.path)
        self.report({"INFO"}, f"The backend runs on {found.description}.")


classes = (EFFIGY_OT_use_python,)
