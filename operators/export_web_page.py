"""Writes a web page with the active avatar inside, which anybody opens in a browser by a double click."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty

from ..blender_addon import active, sharing
from ..blender_addon.errors import EffigyError
from ..blender_addon.file_names import file_name
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.web_page import SUFFIX
from ..blender_addon.writing import write_file


class EFFIGY_OT_export_web_page(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.export_web_page"
    bl_label = "Export Web Page"
    bl_description = (
        "Write one .html file with the avatar inside, to send by mail: it opens in any browser, turns with the mouse "
        "and moves with sliders"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default=f"*{SUFFIX}", options={"HIDDEN"})
    # Blender then asks before a file is replaced.
    check_existing: BoolProperty(default=True, options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not self.filepath:
            folder = Path(bpy.data.filepath).parent if bpy.data.filepath else Path()
            self.filepath = str(folder / file_name(active.need_rig(context).mesh.name, SUFFIX))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError(f"Choose a name for the file to write ({SUFFIX}).")
        path = Path(bpy.path.ensure_ext(bpy.path.abspath(self.filepath), SUFFIX)).absolute()
        page = sharing.web_page(active.need_rig(context), context.evaluated_depsgraph_get())
        write_file(path, page, "Blender: exporting a web page")
        self.report({"INFO"}, f"{path}: {len(page) / 1e6:.1f} MB. It shows this avatar to everybody who has the file.")


classes = (EFFIGY_OT_export_web_page,)
