"""Make new rigs of the user's FLAME file, once the backend has read it and said what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
from bpy.props import StringProperty

from ..blender_addon import preferences
from ..blender_addon.reporting import WorkingOperator
from ..blender_addon.rig.data import RigData
from ..blender_addon.worker import session

SECONDS_TO_READ = 120.0


class EFFIGY_OT_choose_head(WorkingOperator, bpy.types.Operator):
    bl_idname = "effigy.choose_head"
    bl_label = "Use My FLAME File"
    bl_description = "Make new rigs of a FLAME model of yours (.pkl or .npz); rigs that are there stay as they are"

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default="*.pkl;*.npz", options={"HIDDEN"})

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def prepare(self, context: bpy.types.Context):
        path, client = Path(bpy.path.abspath(self.filepath)).absolute(), session.client()
        return lambda: (path, client.call("head.rig", {"head": {"file": str(path)}}, timeout=SECONDS_TO_READ))

    def finish(self, context: bpy.types.Context, result: tuple[Path, dict[str, Any]]) -> None:
        path, answer = result
        data = RigData.from_answer(answer)
        chosen = preferences.get()
        chosen.head_file = str(path)
        chosen.head_said = (
            f"{data.head_name}: {len(data.vertices)} vertices, {len(data.identity)} identity and "
            f"{len(data.expression_names)} expression components"
        )
        self.report({"INFO"}, f"{chosen.head_said}.")


classes = (EFFIGY_OT_choose_head,)
