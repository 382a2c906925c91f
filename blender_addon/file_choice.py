"""Opens the file browser for a file that an operator reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bpy


def choose_file(operator: Any, context: bpy.types.Context) -> set[str]:
    """Lets the artist choose `operator.filepath`, in the folder of the .blend. No file is chosen at first: Blender
    would suggest the .blend itself, which none of the operators reads.
    """
    if not operator.filepath and bpy.data.filepath:
        operator.filepath = f"{Path(bpy.data.filepath).parent}{os.sep}"
    context.window_manager.fileselect_add(operator)
    return {"RUNNING_MODAL"}
