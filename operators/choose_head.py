"""Chooses the user's FLAME file as the head model for new rigs, after the backend has read it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy
from bpy.props import IntProperty, StringProperty

from ..blender_addon import preferences
from ..blender_addon.file_choice import choose_file
from ..blender_addon.reading import check_file
from ..blender_addon.reporting import ThreadedOperator
from ..blender_addon.rig.data import RigData
from ..blender_addon.worker import session

READ_TIMEOUT = 120.0
"""Seconds."""


class EFFIGY_OT_choose_head(ThreadedOperator, bpy.types.Operator):
    bl_idname = "effigy.choose_head"
    bl_label = "Use My FLAME File"
    bl_description = "Make new rigs from your own FLAME model (.pkl or .npz). Existing rigs do not change"

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default="*.pkl;*.npz", options={"HIDDEN"})
    expression_count: IntProperty(
        name="Expressions",
        default=-1,
        min=-1,
        soft_max=100,
        options={"SKIP_SAVE"},
        description="How many of the file's components are expressions, where the file does not say it. -1: as the "
        "file says, which FLAME's own files do",
    )

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return choose_file(self, context)

    def prepare(self, context: bpy.types.Context) -> Callable[[], tuple[Path, RigData]]:
        path, client = Path(bpy.path.abspath(self.filepath)).absolute(), session.client()
        check_file(path, "head model")
        head = {"file": str(path)} | ({"expression_count": self.expression_count} if self.expression_count >= 0 else {})

        def read() -> tuple[Path, RigData]:
            answer = client.call("head.rig", {"head": head}, timeout=READ_TIMEOUT)
            return path, RigData.from_answer(answer)

        return read

    def finish(self, context: bpy.types.Context, result: tuple[Path, RigData]) -> None:
        path, data = result
        settings = preferences.get()
        settings.head_file = str(path)
        settings.head_said = (
            f"{data.head_name}: {len(data.vertices)} vertices, {len(data.identity)} identity and "
            f"{len(data.expression_names)} expression components"
        )
        if not data.expression_names:
            settings.head_said += ", so only its eyes, jaw and neck can move"
        self.report({"INFO"}, f"{settings.head_said}.")


classes = (EFFIGY_OT_choose_head,)
