"""Brings a painted texture back on the active avatar, as a copy of its file with other colours."""

from __future__ import annotations

from pathlib import Path

import bpy
from bpy.props import StringProperty

from ..blender_addon import active
from ..blender_addon.avatars import AvatarInfo, set_avatar
from ..blender_addon.errors import EffigyError
from ..blender_addon.player.baked_file import read_baked
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.textures import work


class EFFIGY_OT_import_texture(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.import_texture"
    bl_label = "Import Painted Texture"
    bl_description = (
        "Take the colours of a painted texture. The avatar gets a copy of its file with these colours, beside the "
        "texture; the file that it had stays as it is"
    )
    bl_options = {"REGISTER", "UNDO"}

    filepath: StringProperty(subtype="FILE_PATH", options={"HIDDEN", "SKIP_SAVE"})
    filter_glob: StringProperty(default="*.png;*.exr", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return active.poll(cls, context)

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def run(self, context: bpy.types.Context) -> None:
        if not self.filepath:
            raise EffigyError("Choose the painted texture (.png or .exr).")
        rig = active.need_rig(context)
        texture = Path(bpy.path.abspath(self.filepath)).absolute()
        path, count = work.import_colors(rig, context.evaluated_depsgraph_get(), texture)
        baked = read_baked(path)
        assert baked is not None
        set_avatar(rig, path, AvatarInfo.from_baked(baked))
        self.report({"INFO"}, f"{count:,} Gaussians have other colours: {path}.")


classes = (EFFIGY_OT_import_texture,)
