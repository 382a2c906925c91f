"""Brings a painted texture back on the active avatar, as a copy of its file with what was painted."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import bpy
from bpy.props import StringProperty

from ..blender_addon import active
from ..blender_addon.avatars import AvatarInfo, set_avatar
from ..blender_addon.errors import EffigyError
from ..blender_addon.player.baked_file import read_baked
from ..blender_addon.reporting import ReportingOperator
from ..blender_addon.textures import work
from ..blender_addon.textures.paint import Attribute

CHANGED: Final = {
    Attribute.COLOR: "other colours",
    Attribute.OPACITY: "another opacity",
    Attribute.OFFSETS: "other places",
}


class EFFIGY_OT_import_texture(ReportingOperator, bpy.types.Operator):
    bl_idname = "effigy.import_texture"
    bl_label = "Import Painted Texture"
    bl_description = (
        "Take the colours, the opacity or the offsets of a texture from Export Textures that was painted on. The "
        "avatar gets a copy of its file with them, beside the texture; earlier copies stay for Undo"
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
        path, count, attribute = work.import_texture(rig, context.evaluated_depsgraph_get(), texture)
        baked = read_baked(path)
        assert baked is not None
        set_avatar(rig, path, AvatarInfo.from_baked(baked))
        self.report({"INFO"}, f"{count:,} Gaussians have {CHANGED[attribute]}: {path}.")


classes = (EFFIGY_OT_import_texture,)
