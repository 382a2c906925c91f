"""Writes the active avatar's colours, opacity and offsets as textures over its UV map, to be painted on."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import BoolProperty, StringProperty

from ..blender_addon import active
from ..blender_addon.errors import EffigyError
from ..blender_addon.file_names import file_name
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.textures import work
from ..blender_addon.textures.paint import Attribute


class EFFIGY_OT_export_textures(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.export_textures"
    bl_label = "Export Textures"
    bl_description = (
        "Write the avatar's colours, opacity and offsets as images over the UV map of its mesh. Paint on them, then "
        "use Import Painted Texture"
    )

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default="*.png;*.exr", options={"HIDDEN"})
    # Blender then asks before a file is replaced.
    check_existing: BoolProperty(default=True, options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        if not self.filepath:
            folder = Path(bpy.data.filepath).parent if bpy.data.filepath else Path()
            self.filepath = str(folder / file_name(active.need_rig(context).mesh.name, work.ENDS[Attribute.COLOR]))
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError("Choose a name with which those of the images begin.")
        chosen = Path(bpy.path.abspath(self.filepath)).absolute()
        name = chosen.name
        for end in (*work.ENDS.values(), ".png", ".exr"):
            name = name.removesuffix(end)
        if not name:
            raise EffigyError("Choose a name with which those of the images begin.")
        depsgraph = context.evaluated_depsgraph_get()
        files = work.export_textures(active.need_rig(context), depsgraph, chosen.with_name(name))
        self.report({"INFO"}, f"{', '.join(file.name for file in files)} are in {chosen.parent}.")


classes = (EFFIGY_OT_export_textures,)
